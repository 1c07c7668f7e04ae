"""A running network whose programs have no privileges, and somebody who steals from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.thief.support import Thief, UnprivilegedNetwork
from zkchannels.devnet.network import Network
from zkchannels.devnet.postgres import THROWAWAY, Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def robbed_network(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[Network]:
    """One network for all tests here: each brings its own channel and leaves all running."""
    directory = memory_directory / "robbed"
    with UnprivilegedNetwork(
        directory, postgres=THROWAWAY, cluster=postgres_cluster, merchants=("coffee",)
    ) as network:
        yield network


@pytest.fixture
def world(robbed_network: Network) -> World:
    """The shared network with everything running and the daemon ready."""
    world = World(robbed_network, prefix=f"t{next(_NUMBERS)}")
    world.everything_runs()
    return world


@pytest.fixture
def thief(world: World) -> Thief:
    """Somebody with an account on the chain and a connection to the merchant, and no more."""
    return Thief(world)
