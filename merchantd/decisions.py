"""What the merchant does on chain about one channel: a pure function of records and chain time.

The merchant's part of the reconcile table in docs/protocol.md: level by level, not event by event,
so that an action lost, repeated or reorganised away is simply decided again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zkchannels.escrow.record import ChannelRecord, ChannelStatus

ENDS = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


class Action(Enum):
    """One thing to do; each may be decided again as long as its reason holds."""

    FUND = "fund"
    EXPIRE = "expire"
    DISPUTE = "dispute"
    CLAIM = "claim"
    RECORD_END = "record end"
    REOPEN_RECORD = "reopen record"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class LocalChannel:
    """What the merchant's records say about a channel; deposits in units of the escrow."""

    customer: bytes
    customer_deposit: int
    merchant_deposit: int
    expire_requested: bool
    ended: bool


def agreed_terms(local: LocalChannel, record: ChannelRecord) -> bool:
    """Tell whether the escrow holds the channel that was established, funded or not yet."""
    return (local.customer, local.customer_deposit, local.merchant_deposit) == (
        record.customer,
        record.customer_deposit,
        record.merchant_deposit,
    )


def merchant_actions(
    local: LocalChannel | None,
    head: ChannelRecord,
    final: ChannelRecord,
    *,
    now: int,
    margin: int,
    secret_known: bool,
) -> tuple[Action, ...]:
    """Return what to do, in order.

    Args:
        local: the merchant's record; None for a channel of the escrow that was never established
        head: the channel at the newest block
        final: the channel at the newest final block
        now: time of the newest block, seconds
        margin: seconds that the merchant leaves the customer after a deadline before it claims
        secret_known: whether the revocation secret of the posted close (`head.lock`) is recorded
    """
    records: tuple[Action, ...] = ()
    if local is not None:
        records = _records(local, head, final)
    return records + _moves(local, head, now=now, margin=margin, secret_known=secret_known)


def _records(local: LocalChannel, head: ChannelRecord, final: ChannelRecord) -> tuple[Action, ...]:
    # An end is an end when it is final; before, a reorganisation can still take it back.
    over = final.status in ENDS
    if over and not local.ended:
        return (Action.RECORD_END,)
    if local.ended and head.status not in ENDS:
        return (Action.REOPEN_RECORD, Action.ALARM)
    return ()


def _moves(
    local: LocalChannel | None,
    head: ChannelRecord,
    *,
    now: int,
    margin: int,
    secret_known: bool,
) -> tuple[Action, ...]:
    late = now > head.deadline + margin
    match head.status:
        case ChannelStatus.AWAITING_MERCHANT if local is not None:
            # After the deadline the customer may reclaim: the transaction would race with that.
            fund = agreed_terms(local, head) and now <= head.deadline
            return (Action.FUND,) if fund else ()
        case ChannelStatus.OPEN if local is not None and local.expire_requested:
            return (Action.EXPIRE,)
        case ChannelStatus.EXPIRING if late:
            return (Action.CLAIM,)
        case ChannelStatus.CLOSING:
            return _answer_close(local, head, late=late, secret_known=secret_known)
        case _:
            return ()


def _answer_close(
    local: LocalChannel | None, head: ChannelRecord, *, late: bool, secret_known: bool
) -> tuple[Action, ...]:
    if secret_known:
        # Until somebody claims, also after the deadline; never a claim on a revoked state.
        return (Action.DISPUTE,)
    # A close needs our signature: on a channel we do not know, records or the key are lost.
    alarm = (Action.ALARM,) if local is None else ()
    claim = (Action.CLAIM,) if late and head.merchant_balance > 0 else ()
    return alarm + claim
