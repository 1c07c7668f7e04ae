"""The daemon that the command line talks to, and ways to run the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.owner import Owner
from tests.cli.running import Customerctl


@pytest.fixture
def socket_directory(memory_directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder with a path short enough for sockets."""
    directory = memory_directory / f"cli-{abs(hash(request.node.nodeid)):x}"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.fixture
def start_owner(socket_directory: Path) -> Iterator[Callable[[], Owner]]:
    """Start the daemon's place in the test; call it again after it died."""
    started: list[Owner] = []

    def start() -> Owner:
        started.append(Owner(socket_directory / "customerd.sock").__enter__())
        return started[-1]

    yield start
    for owner in started:
        owner.__exit__()


@pytest.fixture
def owner(start_owner: Callable[[], Owner]) -> Owner:
    """A peer that answers every method, with one channel called coffee."""
    return start_owner()


@pytest.fixture
def customerctl(socket_directory: Path) -> Customerctl:
    """Runs the program against the socket of this test."""
    return Customerctl(socket_directory / "customerd.sock")
