# A role and a database for peer authentication, unless they are there. Nothing of an existing one is
# touched, and a server elsewhere is its administrator's business.
prepare_database() {
    as_postgres() { (cd / && runuser -u postgres -- "$@"); }
    if ! as_postgres psql -qAtXc 'SELECT 1' >/dev/null 2>&1; then
        echo "#PACKAGE#: no PostgreSQL server answers here; make role and database '#PACKAGE#' when one does:" >&2
        echo "  sudo -u postgres createuser #PACKAGE#; sudo -u postgres createdb -O #PACKAGE# #PACKAGE#" >&2
        return 0
    fi
    if [ -z "$(as_postgres psql -qAtXc "SELECT 1 FROM pg_roles WHERE rolname = '#PACKAGE#'")" ]; then
        as_postgres createuser --no-superuser --no-createdb --no-createrole '#PACKAGE#'
    fi
    if [ -z "$(as_postgres psql -qAtXc "SELECT 1 FROM pg_database WHERE datname = '#PACKAGE#'")" ]; then
        as_postgres createdb --owner='#PACKAGE#' --encoding=UTF8 --template=template0 '#PACKAGE#'
    fi
}
