"""Fixtures of the signer's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signer.support import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A signer on a store of its own."""
    desk = Desk(tmp_path)
    yield desk
    desk.close()
