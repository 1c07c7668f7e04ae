"""A whole network whose programs write into a journal, at the level that tells most."""

from __future__ import annotations

import secrets
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.journal.journald import Journald
from tests.link.parts import free_port
from zkchannels.devnet.network import Network
from zkchannels.devnet.postgres import THROWAWAY, Cluster
from zkchannels.devnet.service import Service


class RecordedNetwork(Network):
    """A network with one merchant, a password for its databases, and a door for a paired signer."""

    def __init__(self, directory: Path, journald: Journald, cluster: Cluster) -> None:
        super().__init__(directory, postgres=THROWAWAY, cluster=cluster, merchants=("coffee",))
        self._journald = journald
        self.password = secrets.token_urlsafe(18)
        self.tls = f"127.0.0.1:{free_port()}"

    def new_service(self, name: str, command: list[str], *, log: Path) -> Service:
        """A service whose output goes to the journal."""
        levels = {f"{program}_LOG_LEVEL": "debug" for program in _PROGRAMS}
        return Service(
            name,
            self._journald.connected(name, *command),
            log=log,
            environment={**levels, "CUSTOMERD_SOCKETS_SIGNER_TLS": self.tls},
        )

    def start_merchant(self, name: str) -> None:
        """Start it from a configuration that nobody else reads: a password is in it."""
        home = self.directory / name
        home.mkdir(mode=0o700)
        (home / "merchantd.toml").touch(mode=0o600)
        super().start_merchant(name)

    def start_daemon(self) -> None:
        """Start it from a configuration that nobody else reads."""
        self.config.touch(mode=0o600)
        super().start_daemon()

    def _database(self, name: str) -> str:
        return make_conninfo(super()._database(name), password=self.password)


_PROGRAMS = ("CUSTOMERD", "CUSTOMERSIGNER", "MERCHANTD")
