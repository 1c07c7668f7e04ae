"""The merchant's part of the reconcile table, over all combinations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from merchantd.decisions import Action, LocalChannel, merchant_actions
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

CUSTOMER = b"\x22" * 20
DEADLINE = 10_000
MARGIN = 100
BEFORE, OVER, LATE = DEADLINE, DEADLINE + MARGIN, DEADLINE + MARGIN + 1
AGREED = LocalChannel(
    customer=CUSTOMER,
    customer_deposit=60,
    merchant_deposit=40,
    expire_requested=False,
    ended=False,
)
OTHER_TERMS = replace(AGREED, merchant_deposit=41)
ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


def record(status: ChannelStatus, *, merchant_balance: int = 70) -> ChannelRecord:
    """A channel of 60 and 40 units in some status."""
    if status is ChannelStatus.ABSENT:
        return ChannelRecord()
    timed = status not in (ChannelStatus.OPEN, *ENDED)
    closing = status is ChannelStatus.CLOSING
    return ChannelRecord(
        status=status,
        customer=CUSTOMER,
        customer_deposit=60,
        merchant_deposit=40,
        deadline=DEADLINE if timed else 0,
        customer_balance=100 - merchant_balance if closing else 0,
        merchant_balance=merchant_balance if closing else 0,
        lock=7 if closing else 0,
    )


LOCALS = (
    None,
    *(
        replace(terms, expire_requested=requested, ended=ended)
        for terms in (AGREED, OTHER_TERMS)
        for requested in (False, True)
        for ended in (False, True)
    ),
)


def everything() -> Iterator[
    tuple[LocalChannel | None, ChannelRecord, ChannelRecord, int, bool, tuple[Action, ...]]
]:
    """Every combination of what the decision depends on, with the decision."""
    for local, head, final, now, known, balance in itertools.product(
        LOCALS, ChannelStatus, ChannelStatus, (BEFORE, OVER, LATE), (False, True), (0, 70)
    ):
        at_head = record(head, merchant_balance=balance)
        at_final = record(final)
        yield (
            local,
            at_head,
            at_final,
            now,
            known,
            merchant_actions(local, at_head, at_final, now=now, margin=MARGIN, secret_known=known),
        )


def test_every_combination_is_decided_without_contradiction() -> None:
    """At most one transaction is decided on, and no end is recorded and reopened at once."""
    moves = {Action.FUND, Action.EXPIRE, Action.DISPUTE, Action.CLAIM}
    for *_, actions in everything():
        assert len(moves & set(actions)) <= 1
        assert len(set(actions)) == len(actions)
        assert not {Action.RECORD_END, Action.REOPEN_RECORD} <= set(actions)


def test_disputes_exactly_revoked_closes_at_any_time() -> None:
    """A posted close is disputed exactly when its secret is known, also after the deadline."""
    for _, head, _, _, known, actions in everything():
        revoked = head.status is ChannelStatus.CLOSING and known
        assert (Action.DISPUTE in actions) == revoked


def test_never_claims_before_deadline_and_margin() -> None:
    """A claim is decided after deadline and margin only, for expired channels and honest closes."""
    for _, head, _, now, known, actions in everything():
        expired = head.status is ChannelStatus.EXPIRING
        closed = head.status is ChannelStatus.CLOSING and not known and head.merchant_balance > 0
        assert (Action.CLAIM in actions) == ((expired or closed) and now == LATE)


def test_expires_only_on_request() -> None:
    """An open channel is expired exactly when the operator asked for it."""
    for local, head, _, _, _, actions in everything():
        asked = local is not None and local.expire_requested
        assert (Action.EXPIRE in actions) == (asked and head.status is ChannelStatus.OPEN)


def test_funds_only_what_was_agreed() -> None:
    """The merchant's deposit goes in only under the agreed terms and before the deadline."""
    for local, head, _, now, _, actions in everything():
        agreed = local is not None and local.merchant_deposit == 40
        due = head.status is ChannelStatus.AWAITING_MERCHANT and now == BEFORE
        assert (Action.FUND in actions) == (agreed and due)


def test_records_an_end_only_when_final() -> None:
    """An end is recorded when it is final, once, and reopened when the chain takes it back."""
    for local, head, final, _, _, actions in everything():
        if local is None:
            assert Action.RECORD_END not in actions
            assert Action.REOPEN_RECORD not in actions
            continue
        assert (Action.RECORD_END in actions) == (final.status in ENDED and not local.ended)
        if Action.REOPEN_RECORD in actions:
            assert local.ended
            assert head.status not in ENDED


def test_alarms_on_a_close_that_nothing_explains() -> None:
    """A close on a channel that was never established raises an alarm."""
    for local, head, _, _, known, actions in everything():
        if local is None:
            unexplained = head.status is ChannelStatus.CLOSING and not known
            assert (Action.ALARM in actions) == unexplained
