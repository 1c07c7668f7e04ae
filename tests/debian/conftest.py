"""The packages, and a machine that they are installed on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian.installed import InstalledNetwork, clean_machine
from tests.debian.packages import build
from tests.systemd.conftest import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """The packages of this checkout."""
    return build()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[InstalledNetwork]:
    """A clean machine: nothing is installed yet."""
    with clean_machine(f"debian-{os.getpid()}", tmp_path) as box:
        yield InstalledNetwork(box)
