"""A network whose programs can be ended at any boundary, shared by the replays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.lab import Lab


@pytest.fixture(scope="module")
def shared_lab(memory_directory: Path) -> Iterator[Lab]:
    """One network for all replays: each brings a channel of its own."""
    with Lab(memory_directory / "replay") as lab:
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The network with everything running and nothing at work."""
    shared_lab.away.clear()
    shared_lab.calm()
    return shared_lab
