"""The world of the adversaries: one merchant that takes orders to misbehave, one that is honest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversary.arena import Arena, ArenaNetwork
from zkchannels.devnet.postgres import THROWAWAY, Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def arena_network(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[ArenaNetwork]:
    """One network with a misbehaving merchant that tests share."""
    directory = memory_directory / "arena"
    with ArenaNetwork(directory, postgres=THROWAWAY, cluster=postgres_cluster) as network:
        yield network


@pytest.fixture
def arena(arena_network: ArenaNetwork) -> Iterator[Arena]:
    """The arena with everything running, and a misbehaving merchant that behaves until told."""
    arena = Arena(arena_network, prefix=f"a{next(_NUMBERS)}")
    arena.everything_runs()
    arena.order()
    yield arena
    arena.order()
