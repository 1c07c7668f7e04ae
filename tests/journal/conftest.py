"""One journald for all tests here, and one network that writes into it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.journal.journald import Journald
from tests.journal.network import RecordedNetwork
from zkchannels.devnet.postgres import Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def journald(memory_directory: Path) -> Iterator[Journald]:
    """A real journald."""
    directory = memory_directory / "journald"
    directory.mkdir()
    with Journald(directory) as running:
        yield running


@pytest.fixture(scope="session")
def recorded(
    memory_directory: Path, journald: Journald, postgres_cluster: Cluster
) -> Iterator[RecordedNetwork]:
    """A network that writes into that journal, at debug level."""
    with RecordedNetwork(memory_directory / "recorded", journald, postgres_cluster) as network:
        yield network


@pytest.fixture
def world(recorded: RecordedNetwork) -> World:
    """The network with everything running and the daemon ready."""
    world = World(recorded, prefix=f"j{next(_NUMBERS)}")
    world.everything_runs()
    return world
