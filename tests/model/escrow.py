"""The escrow of one channel as the customer sees it, reduced to what decides about money."""

from __future__ import annotations

from typing import NamedTuple

FORGED = 9
"""Stands for a close on a state that the merchant made up; no customer ever agreed to it."""

FIRST_HALF, SECOND_HALF, MARGIN, OVER = range(4)
"""Where time is in a running delay; `claim` opens at OVER, everybody else is done before MARGIN."""

TIMED = frozenset({"AWAITING_MERCHANT", "EXPIRING", "CLOSING"})
ENDED = frozenset({"CLOSED", "RECLAIMED"})


class Escrow(NamedTuple):
    """One channel on chain; `status` is the name of a ChannelStatus.

    `on` is the state that is closed on (-1: none), `paid` what the customer got at the end.
    `put` counts what both sides have paid in, `rounds` the deadlines set since OPEN.
    """

    status: str = "ABSENT"
    phase: int = FIRST_HALF
    on: int = -1
    by_guard: bool = False
    struck: bool = False
    paid: int = -1
    funded: bool = False
