"""A network whose daemon sees the chain through two nodes that may misbehave."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.chainfaults.network import FaultyNetwork, FaultyWorld
from zkchannels.devnet.postgres import THROWAWAY, Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def faulty_network(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[FaultyNetwork]:
    """One network that tests share: each brings a channel and mends what it broke."""
    directory = memory_directory / "faulty"
    with FaultyNetwork(directory, postgres=THROWAWAY, cluster=postgres_cluster) as network:
        yield network


@pytest.fixture
def world(faulty_network: FaultyNetwork) -> FaultyWorld:
    """The shared network, all nodes honest, everything running, the daemon ready."""
    faulty_network.mend()
    world = FaultyWorld(faulty_network, prefix=f"f{next(_NUMBERS)}")
    world.everything_runs()
    return world


@pytest.fixture
def own_world(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[FaultyWorld]:
    """A network of the test's own.

    For restarts of the chain: anvil loses blocks when it is reorganised after one.
    """
    directory = memory_directory / f"faulty{next(_NUMBERS)}"
    with FaultyNetwork(directory, postgres=THROWAWAY, cluster=postgres_cluster) as network:
        yield FaultyWorld(network, prefix="own")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of all services' logs beside a failure."""
    report = yield
    given = getattr(item, "funcargs", {})
    world = given.get("world") or given.get("own_world")
    if report.failed and isinstance(world, FaultyWorld):
        for path in sorted(world.network.directory.rglob("*.log")):
            if path.name != "postgres.log":
                end = "\n".join(path.read_text(errors="replace").splitlines()[-60:])
                report.sections.append((str(path.relative_to(world.network.directory)), end))
    return report
