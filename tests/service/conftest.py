"""Daemons under a manager."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.customerd.conftest import Alone
from tests.flow.world import World
from tests.nursery import ForkedNetwork
from tests.service.manager import Managed
from zkchannels.devnet.postgres import THROWAWAY, Cluster
from zkchannels.devnet.service import Service

_NUMBERS = itertools.count(1)


class Supervised(Alone):
    """A daemon without chain and signer, under a manager."""

    service: Managed

    def __init__(
        self,
        directory: Path,
        dsn: str,
        *,
        chain: str = "",
        module: tuple[str, ...] = ("customerd",),
        store: int = 64,
        watchdog: float | None = None,
    ) -> None:
        super().__init__(directory, dsn, chain=chain)
        self.service = Managed(
            "customerd",
            [sys.executable, "-m", *module, "--config", str(self.config)],
            log=directory / "customerd.log",
            sockets={"customerd.socket": self.socket},
            store=store,
            watchdog=watchdog,
        )
        self._seen = 0

    def begin(self) -> None:
        """Have it run; its log counts from now on."""
        if not self.service.running:
            self.service.start()
        self._seen = self.service.log.stat().st_size

    def log(self) -> list[dict[str, Any]]:
        """Return the events that the daemon logged since `begin`."""
        lines = self.service.log.read_bytes()[self._seen :].splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{")]


class KeptNetwork(ForkedNetwork):
    """A network whose daemon is under a manager that keeps its connections."""

    daemon: Managed

    def program(self, program: str, name: str = "") -> list[str]:
        """The daemon can be made to hang in its commits."""
        if program == "customerd":
            return [sys.executable, "-m", "tests.service.hanging", "commits"]
        return super().program(program, name)

    def new_service(self, name: str, command: list[str], *, log: Path) -> Service:
        """Put the daemon, and nothing else, under the manager."""
        if name != "customerd":
            return super().new_service(name, command, log=log)
        managed = Managed(
            name, command, log=log, sockets={"customerd.socket": self.socket}, store=64
        )
        self._stack.callback(managed.close)
        return managed


@pytest.fixture(scope="session")
def kept_network(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[KeptNetwork]:
    """One network for all tests of restarts under payments."""
    directory = memory_directory / "kept"
    with KeptNetwork(
        directory, postgres=THROWAWAY, cluster=postgres_cluster, merchants=("coffee",)
    ) as network:
        yield network


@pytest.fixture
def kept_world(kept_network: KeptNetwork) -> World:
    """The network with everything running and the daemon ready."""
    world = World(kept_network, prefix=f"k{next(_NUMBERS)}")
    world.everything_runs()
    return world


@pytest.fixture(scope="session")
def shared_daemon(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[Supervised]:
    """One daemon without chain and signer, which can be made to hang in its commits."""
    postgres_cluster.create_database("shared_daemon")
    made = Supervised(
        memory_directory / "shared",
        postgres_cluster.dsn("shared_daemon"),
        module=("tests.service.hanging", "commits"),
        store=1024,
    )
    yield made
    made.service.close()


@pytest.fixture
def daemon(shared_daemon: Supervised) -> Supervised:
    """The shared daemon, running, with its connections kept."""
    shared_daemon.begin()
    return shared_daemon


@pytest.fixture
def supervised(memory_directory: Path, database_dsn: str) -> Iterator[Callable[..., Supervised]]:
    """Makes daemons that are not started yet."""
    with ExitStack() as stack:

        def make(**options: object) -> Supervised:
            place = memory_directory / f"service{next(_NUMBERS)}"
            made = Supervised(place, database_dsn, **options)  # type: ignore[arg-type]
            stack.callback(made.service.close)
            return made

        yield make
