# A role and a database for peer authentication, unless they are there. Nothing of an existing one is
# touched, and a server elsewhere is its administrator's business.
prepare_database() { # NAME
    name=$1
    as_postgres() { (cd / && runuser -u postgres -- "$@"); }
    if ! as_postgres psql -qAtXc 'SELECT 1' >/dev/null 2>&1; then
        echo "$name: no PostgreSQL server answers here; make role and database $name when one does:" >&2
        echo "  sudo -u postgres createuser $name; sudo -u postgres createdb -O $name $name" >&2
        return 0
    fi
    if [ -z "$(as_postgres psql -qAtXc "SELECT 1 FROM pg_roles WHERE rolname = '$name'")" ]; then
        as_postgres createuser --no-superuser --no-createdb --no-createrole "$name"
    fi
    if [ -z "$(as_postgres psql -qAtXc "SELECT 1 FROM pg_database WHERE datname = '$name'")" ]; then
        as_postgres createdb --owner="$name" --encoding=UTF8 --template=template0 "$name"
    fi
}
