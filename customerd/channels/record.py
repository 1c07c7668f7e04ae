"""The channel record: what the daemon knows about one channel, apart from the chain."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from zkchannels.amounts import Asset


class Status(Enum):
    """Local status of a channel (docs/watcher.md); `authorized` and `revoking` are one commit."""

    NEW = "new"
    FUNDING = "funding"
    IDLE = "idle"
    PROVED = "proved"
    REVOKING = "revoking"
    ASKED = "asked"
    DECIDED = "decided"
    SUSPECT = "suspect"
    CLOSED = "closed"


LIVE = frozenset(
    {
        Status.FUNDING,
        Status.IDLE,
        Status.PROVED,
        Status.REVOKING,
        Status.ASKED,
        Status.DECIDED,
    }
)
"""Statuses with a closing authorization that the daemon will act on by itself."""

PAYABLE = (Status.IDLE, Status.PROVED, Status.REVOKING)
"""Statuses of a channel that can pay, now or once its payment at work is done."""


class Escrow(Struct, frozen=True):
    """An escrow contract as it was read from the chain."""

    escrow: bytes
    chain_id: int
    merchant: bytes
    token: bytes
    symbol: str
    decimals: int
    unit: int
    delay: int
    g1_half: bytes
    escrow_key: bytes

    @property
    def asset(self) -> Asset:
        """How amounts in this escrow are written."""
        return Asset(self.symbol, self.decimals, self.unit)


class Channel(Struct, frozen=True):
    """One row of the table `channel`."""

    channel: bytes
    label: str
    escrow: bytes
    host: str
    port: int
    salt: bytes
    customer_deposit: int
    merchant_deposit: int
    status: str
    index: int | None
    attempt: int
    customer_balance: int
    merchant_balance: int
    token: bytes | None
    authorized: int | None
    closing: int | None
    mutual_signature: bytes | None
    doubtful: bool
    """Perhaps not the newest state: closed by agreement, when it presses, or by force."""
    restored: bool
    """From a backup or found on chain: no recovery takes the doubt away."""
    created: float

    @property
    def state(self) -> Status:
        """The local status as an enumeration."""
        return Status(self.status)

    def __repr__(self) -> str:
        return f"Channel({self.label!r}, {self.status}, index={self.index})"


class State(Struct, frozen=True):
    """A state that has or had a closing authorization."""

    channel: bytes
    index: int
    attempt: int
    lock: bytes
    customer_balance: int
    merchant_balance: int
    signature: bytes | None
    guard: bytes
    permit: bytes | None

    def __repr__(self) -> str:
        return f"State(index={self.index}, attempt={self.attempt})"
