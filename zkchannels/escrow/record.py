"""What the chain says about one channel, folded from the escrow's events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from zkchannels.escrow.ethereum import ZERO_ADDRESS, EthereumError
from zkchannels.escrow.events import (
    ChannelEvent,
    Closing,
    Disputed,
    Expiring,
    Funded,
    Opened,
    Reclaimed,
    Settled,
    Voided,
)


class ChannelStatus(Enum):
    """Statuses of a channel, numbered as in the contract."""

    ABSENT = 0
    AWAITING_MERCHANT = 1
    OPEN = 2
    EXPIRING = 3
    CLOSING = 4
    CLOSED = 5
    RECLAIMED = 6


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """A channel as the contract's view `channel(id)` shows it; amounts in units, time in seconds.

    Balances are those of the posted close (CLOSING), or what was paid out (CLOSED, RECLAIMED), else
    zero. `deadline` is when `claim` (EXPIRING, CLOSING) or `reclaim` (AWAITING_MERCHANT) becomes
    possible: at the first block whose time is later.
    """

    status: ChannelStatus = ChannelStatus.ABSENT
    customer: bytes = ZERO_ADDRESS
    customer_deposit: int = 0
    merchant_deposit: int = 0
    deadline: int = 0
    customer_balance: int = 0
    merchant_balance: int = 0
    lock: int = 0
    closed_by_guard: bool = False
    guard_struck_off: bool = False


ABSENT = ChannelRecord()


class ImpossibleEvent(EthereumError):
    """An event the contract cannot emit for a channel in this status: earlier ones are missing."""


_POSSIBLE: dict[type[ChannelEvent], tuple[ChannelStatus, ...]] = {
    Opened: (ChannelStatus.ABSENT,),
    Funded: (ChannelStatus.AWAITING_MERCHANT,),
    Reclaimed: (ChannelStatus.AWAITING_MERCHANT,),
    Expiring: (ChannelStatus.OPEN,),
    Closing: (ChannelStatus.OPEN, ChannelStatus.EXPIRING),
    Voided: (ChannelStatus.CLOSING,),
    Disputed: (ChannelStatus.CLOSING,),
    Settled: (ChannelStatus.OPEN, ChannelStatus.EXPIRING, ChannelStatus.CLOSING),
}


def fold(events: Iterable[ChannelEvent], start: ChannelRecord = ABSENT) -> ChannelRecord:
    """The record after the events of one channel, in the chain's order.

    Equals what `channel(id)` returns at the block of the last event. Raises ImpossibleEvent.
    """
    record = start
    for event in events:
        record = _after(record, event)
    return record


def _after(  # noqa: PLR0911  (one per event)
    record: ChannelRecord, event: ChannelEvent
) -> ChannelRecord:
    if record.status not in _POSSIBLE[type(event)]:
        raise ImpossibleEvent(f"{type(event).__name__} of a channel that is {record.status.name}")
    match event:
        case Opened():
            awaiting = event.merchant_deposit > 0
            return ChannelRecord(
                status=ChannelStatus.AWAITING_MERCHANT if awaiting else ChannelStatus.OPEN,
                customer=event.customer,
                customer_deposit=event.customer_deposit,
                merchant_deposit=event.merchant_deposit,
                deadline=event.deadline,
            )
        case Funded():
            return replace(record, status=ChannelStatus.OPEN, deadline=0)
        case Reclaimed():
            return replace(
                record,
                status=ChannelStatus.RECLAIMED,
                deadline=0,
                customer_balance=record.customer_deposit,
            )
        case Expiring():
            return replace(record, status=ChannelStatus.EXPIRING, deadline=event.deadline)
        case Closing():
            return replace(
                record,
                status=ChannelStatus.CLOSING,
                deadline=event.deadline,
                customer_balance=event.customer_balance,
                merchant_balance=event.merchant_balance,
                lock=event.lock,
                closed_by_guard=event.by_guard,
            )
        case Voided():
            return replace(
                record,
                status=ChannelStatus.EXPIRING,
                deadline=event.deadline,
                customer_balance=0,
                merchant_balance=0,
                lock=0,
                closed_by_guard=False,
                guard_struck_off=True,
            )
        case Disputed():
            return record  # `Settled` follows in the same transaction
        case Settled():
            return replace(
                record,
                status=ChannelStatus.CLOSED,
                deadline=0,
                customer_balance=event.customer_amount,
                merchant_balance=event.merchant_amount,
                lock=0,
                closed_by_guard=False,
            )
