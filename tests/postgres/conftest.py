"""Worlds whose PostgreSQL may be broken at will: one shared by the tests that mend it again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.postgres.network import ProxiedNetwork
from zkchannels.devnet.postgres import RESTARTABLE

_NUMBERS = itertools.count(1)

LEASE = 3.0


@pytest.fixture(scope="session")
def breakable_network(memory_directory: Path) -> Iterator[ProxiedNetwork]:
    """One network over a server of its own; each test leaves the server running and whole."""
    directory = memory_directory / "breakable"
    with ProxiedNetwork(directory, postgres=RESTARTABLE, lease=LEASE) as network:
        yield network


@pytest.fixture
def network(breakable_network: ProxiedNetwork) -> ProxiedNetwork:
    """The shared network."""
    return breakable_network


@pytest.fixture
def world(network: ProxiedNetwork) -> World:
    """The shared network with everything running and the daemon ready."""
    world = World(network, prefix=f"pg{next(_NUMBERS)}")
    world.everything_runs()
    return world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of all services' logs beside a failure."""
    report = yield
    network = getattr(item, "funcargs", {}).get("network")
    if report.failed and isinstance(network, ProxiedNetwork):
        for path in sorted(network.directory.rglob("*.log")):
            if path.name != "postgres.log" and path.is_file():
                end = "\n".join(path.read_text(errors="replace").splitlines()[-30:])
                report.sections.append((str(path.relative_to(network.directory)), end))
    return report
