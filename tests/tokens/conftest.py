"""The networks of the flow tests, for holders of tokens."""

from __future__ import annotations

from tests.flow.conftest import (
    own_world,
    pytest_runtest_makereport,
    shared_network,
    world,
)

__all__ = ["own_world", "pytest_runtest_makereport", "shared_network", "world"]
