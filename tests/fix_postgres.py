"""PostgreSQL for tests: one throwaway cluster per run, in memory if possible, many databases."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zkchannels.devnet.postgres import THROWAWAY, Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def memory_directory() -> Iterator[Path]:
    """An empty folder in memory where the machine has /dev/shm, with a short path for sockets."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="customerd-", dir=place) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres_cluster(memory_directory: Path) -> Iterator[Cluster]:
    """A throwaway cluster (fsync off) that all tests of the run share; never kill this one."""
    with Cluster(memory_directory / "shared", settings=THROWAWAY) as cluster:
        yield cluster


@pytest.fixture
def database_dsn(postgres_cluster: Cluster) -> Iterator[str]:
    """The connection string of a fresh, empty database."""
    name = f"test_{next(_NUMBERS)}"
    postgres_cluster.create_database(name)
    yield postgres_cluster.dsn(name)
    postgres_cluster.drop_database(name)


@pytest.fixture
def own_cluster(memory_directory: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, to be killed, stopped and restarted at will."""
    # What is committed outlives the server, though not the machine.
    settings = {**THROWAWAY, "synchronous_commit": "on"}
    with Cluster(memory_directory / f"own-{next(_NUMBERS)}", settings=settings) as cluster:
        yield cluster
