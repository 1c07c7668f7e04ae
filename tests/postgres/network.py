"""A devnet whose daemons reach PostgreSQL through proxies, and a second daemon beside the first."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.flow.world import World
from tests.nursery import ForkedNetwork
from tests.postgres.proxy import Proxy
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient


class ProxiedNetwork(ForkedNetwork):
    """A network with one merchant whose daemons talk to the server through a proxy each."""

    def __init__(self, directory: Path, **more: Any) -> None:
        super().__init__(directory, merchants=("coffee",), **more)
        self.proxies: dict[str, Proxy] = {}

    def database(self, name: str) -> str:
        """Return the name of a program's database."""
        return f"{name}_{self._databases}"

    def direct(self, name: str) -> str:
        """Return the connection string of a program's database, past the proxy."""
        return self.cluster.dsn(self.database(name))

    def _database(self, name: str) -> str:
        given = conninfo_to_dict(super()._database(name))
        proxy = Proxy(self.directory / f"pg-{name}", Path(str(given["host"])))
        self.proxies[name] = self._stack.enter_context(proxy)
        return make_conninfo("", **{**given, "host": str(proxy.directory)})


class Second:
    """Another customerd on the database of a network's first, with sockets of its own."""

    def __init__(self, network: ForkedNetwork, *, dsn: str | None = None) -> None:
        directory = network.directory / "second"
        directory.mkdir(mode=0o700, exist_ok=True)
        self.socket = directory / "customerd.sock"
        self.signer_socket = directory / "signer.sock"
        config = network.config.read_text()
        config = config.replace(str(network.socket), str(self.socket))
        config = config.replace(str(network.signer_socket), str(self.signer_socket))
        config = config.replace(str(network.monitor_socket), str(directory / "monitor.sock"))
        if dsn is not None:
            lines = [
                f'dsn = "{dsn}"' if line.startswith("dsn") else line for line in config.split("\n")
            ]
            config = "\n".join(lines)
        path = directory / "customerd.toml"
        path.write_text(config)
        command = [sys.executable, "-m", "customerd", "--config", str(path)]
        self.service = Service("second", command, log=directory / "customerd.log")
        signer = [*network.signer_command[:-1], str(self.signer_socket)]
        self.signer = Service("its signer", signer, log=directory / "customersigner.log")
        both = [*network.signer_command, "--socket", str(self.signer_socket)]
        self.roaming = Service("a signer of both", both, log=directory / "roaming.log")

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call the second daemon."""
        with BlockingClient(str(self.socket), timeout=60) as client:
            return client.call(method, params)


def events(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a service's log."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@contextlib.contextmanager
def proxied_world(directory: Path, **more: Any) -> Iterator[World]:
    """Run a world over a proxied network."""
    with ProxiedNetwork(directory, **more) as network:
        yield World(network, prefix="pg")
