"""Host plumbing: systemd, logging, sockets, configuration, secret files."""
