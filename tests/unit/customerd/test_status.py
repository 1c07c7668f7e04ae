"""The status line that `systemctl status` shows."""

from __future__ import annotations

import pytest

from customerd.status import Facts, describe


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (Facts((), 3, "2.41 ETH", 19_233_410), "ready: 3 channels, 2.41 ETH, head 19,233,410"),
        (Facts((), 0, "", -1), "ready: 0 channels"),
        (
            Facts(("safe_mode",), 1, "1 ETH, 5 USDC", 7, operations=2),
            "safe mode (no signer): 1 channel, 1 ETH, 5 USDC, 2 operations at work, head 7",
        ),
        (
            Facts(("chain_unavailable", "safe_mode"), 1, "1 ETH", 7, alarms=1),
            (
                "safe mode (no signer, chain not followed): 1 channel, 1 ETH, head 7, "
                "1 alarm (customerctl getinfo)"
            ),
        ),
        (
            Facts(("chain_unavailable",), 1, "1 ETH", 7),
            "chain not followed: 1 channel, 1 ETH, head 7",
        ),
        (
            Facts(("database_unavailable", "safe_mode"), 2, "1 ETH", 7),
            "database away: 2 channels, 1 ETH, head 7",
        ),
        (
            Facts((), 2, "1 ETH", 7, stuck="reconcile"),
            "hung (reconcile): 2 channels, 1 ETH, head 7",
        ),
    ],
)
def test_the_most_important_comes_first(facts: Facts, text: str) -> None:
    """The line begins with what holds the daemon up, in words, and goes on with what it has."""
    assert describe(facts) == text
