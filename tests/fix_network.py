"""Whole networks: every part a real process on real sockets, forked from what is imported."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.nursery import ForkedNetwork
from zkchannels.devnet.postgres import DURABLE, THROWAWAY, Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def shared_network(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[ForkedNetwork]:
    """One network that tests share: each brings its own channel and leaves all services running."""
    directory = memory_directory / "network"
    with ForkedNetwork(directory, postgres=THROWAWAY, cluster=postgres_cluster) as network:
        yield network


@pytest.fixture
def world(shared_network: ForkedNetwork) -> World:
    """The shared network with everything running and the daemon ready."""
    world = World(shared_network, prefix=f"w{next(_NUMBERS)}")
    world.everything_runs()
    return world


@pytest.fixture
def own_world(memory_directory: Path) -> Iterator[World]:
    """A network of the test's own, PostgreSQL included, to be broken at will."""
    directory = memory_directory / f"own{next(_NUMBERS)}"
    # Durable settings: a killed server must come back with everything it committed.
    with ForkedNetwork(directory, postgres=DURABLE, merchants=("coffee",)) as network:
        yield World(network, prefix="own")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of all services' logs beside a failure."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world") or getattr(item, "funcargs", {}).get(
        "own_world"
    )
    if report.failed and isinstance(world, World):
        for path in sorted(world.network.directory.rglob("*.log")):
            if path.name != "postgres.log":
                end = "\n".join(path.read_text(errors="replace").splitlines()[-30:])
                report.sections.append((str(path.relative_to(world.network.directory)), end))
    return report
