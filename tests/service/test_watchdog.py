"""The watchdog: fed while event loop and watcher go round, and no longer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.service.conftest import Supervised

WATCHDOG = 2.0
Make = Callable[..., Supervised]


@pytest.mark.parametrize("part", ["loop", "follower", "reconcile"])
def test_what_hangs_is_ended(supervised: Make, part: str) -> None:
    """When the event loop or a loop of the watcher hangs the watchdog is fed no more."""
    daemon = supervised(
        module=("tests.service.hanging", part), chain='stuck_after = "500ms"\n', watchdog=WATCHDOG
    )
    daemon.service.start()
    # Fed for longer than the watchdog waits: it is the fault that ends the daemon, not its start.
    for _ in range(3):
        daemon.service.wait_next("WATCHDOG=1")
    os.kill(daemon.service.pid, signal.SIGUSR1)
    assert daemon.service.aborted.wait(20)
    assert daemon.service.wait(20) == -signal.SIGABRT
    if part != "loop":
        assert [event["loops"] for event in daemon.log() if event["event"] == "watcher_hung"] == [
            part
        ]
        assert any(f"STATUS=hung ({part})" in told for told in daemon.service.told)


def test_a_node_that_is_away_is_no_watcher_that_hangs(supervised: Make) -> None:
    """Without any node the watcher's own loops go round: the watchdog is fed on and on."""
    daemon = supervised(chain='stuck_after = "300ms"\npoll = "100ms"\n', watchdog=WATCHDOG)
    daemon.service.start()
    for _ in range(4):
        daemon.service.wait_next("WATCHDOG=1")
    assert not daemon.service.aborted.is_set()
    assert not any(event["event"] == "watcher_hung" for event in daemon.log())
    assert "chain_unavailable" in daemon.rpc("getinfo")["missing"]
