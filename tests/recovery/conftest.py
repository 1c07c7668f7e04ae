"""The networks of the flow tests, for tests that break their memory."""

from __future__ import annotations

from tests.flow.conftest import (
    own_world,
    pytest_runtest_makereport,
    shared_network,
    world,
)

__all__ = ["own_world", "pytest_runtest_makereport", "shared_network", "world"]
