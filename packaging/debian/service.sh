# Started or restarted without waiting: a daemon whose database is away waits for it, and the package's
# installation shall not. Clients wait at the socket meanwhile.
restart_service() { # UNIT
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    systemctl --quiet is-enabled "$1" || return 0
    if command -v policy-rc.d >/dev/null; then
        policy-rc.d "$1" restart || return 0
    fi
    systemctl --no-block restart "$1" || true
}
