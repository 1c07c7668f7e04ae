"""The escrow's events and their decoding from logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from zkchannels.escrow import abi
from zkchannels.escrow.ethereum import EthereumError

_WORD = "uint256"


class RawLog(Protocol):
    """The part of a log that this module reads: topics of 32 bytes each, data."""

    @property
    def topics(self) -> Sequence[bytes]:
        """Signature of the event, then its indexed values."""
        ...

    @property
    def data(self) -> bytes:
        """The other values."""
        ...


class UnknownEvent(EthereumError):
    """A log whose first topic is no event of the escrow."""


class _Event:
    """What all events share: types as in the contract, and how many of the first are indexed."""

    __slots__ = ()
    TYPES: ClassVar[tuple[str, ...]]
    INDEXED: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Opened(_Event):
    """A channel exists: OPEN, or awaiting the merchant's deposit, until `deadline` at least."""

    TYPES = (_WORD, "address", _WORD, _WORD, _WORD)
    INDEXED = 2
    channel: int
    customer: bytes
    customer_deposit: int
    merchant_deposit: int
    deadline: int


@dataclass(frozen=True, slots=True)
class Funded(_Event):
    """The merchant's deposit is in; OPEN."""

    TYPES = (_WORD,)
    channel: int


@dataclass(frozen=True, slots=True)
class Reclaimed(_Event):
    """The customer has its deposit back; RECLAIMED."""

    TYPES = (_WORD,)
    channel: int


@dataclass(frozen=True, slots=True)
class Expiring(_Event):
    """The merchant demands a close; EXPIRING."""

    TYPES = (_WORD, _WORD)
    channel: int
    deadline: int


@dataclass(frozen=True, slots=True)
class Closing(_Event):
    """A close state is posted by the customer or its guard; CLOSING."""

    TYPES = (_WORD, _WORD, _WORD, _WORD, _WORD, "bool")
    INDEXED = 2
    channel: int
    lock: int
    customer_balance: int
    merchant_balance: int
    deadline: int
    by_guard: bool


@dataclass(frozen=True, slots=True)
class Voided(_Event):
    """A guard's close was on a revoked state; EXPIRING again, the guard struck off."""

    TYPES = (_WORD, "bytes32", _WORD)
    channel: int
    secret: bytes
    deadline: int


@dataclass(frozen=True, slots=True)
class Disputed(_Event):
    """The customer's close was on a revoked state; `Settled` follows with all for the merchant."""

    TYPES = (_WORD, "bytes32")
    channel: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Settled(_Event):
    """Both are paid, or owed, these amounts; CLOSED."""

    TYPES = (_WORD, _WORD, _WORD)
    channel: int
    customer_amount: int
    merchant_amount: int


@dataclass(frozen=True, slots=True)
class Owed(_Event):
    """A payout failed and waits for its receiver's `withdraw`."""

    TYPES = ("address", _WORD)
    receiver: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Withdrawn(_Event):
    """All that was owed to the receiver went to an address of its choice."""

    TYPES = ("address", "address", _WORD)
    receiver: bytes
    to: bytes
    amount: int


ChannelEvent: TypeAlias = (
    Opened | Funded | Reclaimed | Expiring | Closing | Voided | Disputed | Settled
)
EscrowEvent: TypeAlias = ChannelEvent | Owed | Withdrawn

_CHANNEL_EVENTS: tuple[type[Any], ...] = (
    Opened,
    Funded,
    Reclaimed,
    Expiring,
    Closing,
    Voided,
    Disputed,
    Settled,
)
_EVENTS: tuple[type[Any], ...] = (*_CHANNEL_EVENTS, Owed, Withdrawn)
TOPICS: dict[bytes, type[EscrowEvent]] = {
    abi.topic(event.__name__, event.TYPES): event for event in _EVENTS
}
CHANNEL_TOPICS: frozenset[bytes] = frozenset(
    abi.topic(event.__name__, event.TYPES) for event in _CHANNEL_EVENTS
)


def decode_event(log: RawLog) -> EscrowEvent:
    """The event in a log of an escrow.

    Raises UnknownEvent for another first topic, InvalidAbi for values that are not canonical.
    """
    kind: Any = TOPICS.get(bytes(log.topics[0])) if log.topics else None
    if kind is None:
        raise UnknownEvent("no event of the escrow")
    types: tuple[str, ...] = kind.TYPES
    indexed = log.topics[1:]
    if len(indexed) != kind.INDEXED:
        raise abi.InvalidAbi("wrong number of topics")
    # Indexed values are single words and come first in every event: together they are one encoding.
    event: EscrowEvent = kind(*abi.decode(types, b"".join(indexed) + log.data))
    return event
