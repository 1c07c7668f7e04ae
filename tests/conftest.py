"""The fixtures every test may use live in plugins, one file per part."""

from __future__ import annotations

import os
import signal
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.fix_adversary",
    "tests.fix_chain",
    "tests.fix_log",
    "tests.fix_network",
    "tests.fix_postgres",
]

# Background jobs of a shell ignore SIGINT, and so would every process that tests start and
# interrupt; a handler of our own is reset to the default when they are executed.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARE = "TEST_SHARE"
"""Environment variable: one of how many of the slow tests is taken, others each day; 1 is all."""
SLOW = frozenset({"adversary", "chainfaults", "link", "postgres", "recovery", "thief"})
"""Folders whose tests each break a network of processes, and wait until it has settled."""
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, in a run that takes a share, the slow tests that are the turn of other days."""
    share, day = int(os.environ.get(SHARE, "1")), datetime.now(UTC).toordinal()

    def taken(item: pytest.Item) -> bool:
        if item.path.relative_to(_HERE).parts[0] not in SLOW:
            return True
        return (zlib.crc32(item.nodeid.encode()) + day) % share == 0

    left_out = [item for item in items if not taken(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if taken(item)]
