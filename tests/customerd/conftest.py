"""A daemon with a database and without chain and signer: what it does by itself."""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nursery import new_service
from zkchannels.jsonrpc.client import BlockingClient

_NUMBERS = itertools.count(1)


class Alone:
    """One customerd process and its owner socket."""

    def __init__(
        self, directory: Path, dsn: str, *, name: str = "customerd", chain: str = ""
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / f"{name}.sock"
        self.config = directory / f"{name}.toml"
        self.config.write_text(
            f'[sockets]\nrpc = "{self.socket}"\nsigner = "{directory / name}-signer.sock"\n'
            f'[database]\ndsn = "{dsn}"\nlease = "2s"\n'
            f'[chain]\nendpoints = ["http://127.0.0.1:9"]\n{chain}'
            f'[guard]\nkey = "{directory / "guard.key"}"\n'
        )
        self.command = [sys.executable, "-m", "customerd", "--config", str(self.config)]
        self.service = new_service(name, self.command, log=directory / f"{name}.log")

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call on a connection of its own."""
        with BlockingClient(str(self.socket), timeout=20) as client:
            return client.call(method, params)

    def connect(self) -> socket.socket:
        """Return a raw connection to the owner socket."""
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(20)
        raw.connect(str(self.socket))
        return raw

    def exchange(self, data: bytes) -> list[Any]:
        """Send bytes, end the sending side, and return every line that comes back as JSON."""
        with self.connect() as raw:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: raw.recv(65536), b""))
        return [json.loads(line) for line in received.splitlines()]

    def log(self) -> list[dict[str, Any]]:
        """Return the events that the daemon logged."""
        lines = self.service.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture
def place(memory_directory: Path) -> Path:
    """An empty folder with a short path."""
    return memory_directory / f"alone{next(_NUMBERS)}"


@pytest.fixture
def alone(place: Path, database_dsn: str) -> Iterator[Alone]:
    """A running daemon without chain and signer."""
    daemon = Alone(place, database_dsn)
    daemon.service.start()
    yield daemon
    daemon.service.stop()
