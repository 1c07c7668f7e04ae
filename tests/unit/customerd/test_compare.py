"""The verdict on one channel: who of signer and database is behind, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from customerd.channels.record import Channel
from customerd.recovery.ledger import forgotten_operation
from customerd.signing.compare import Local, Verdict, compare
from zkchannels.wire import signer as wire

CHANNEL = bytes(range(32))
ASKED_FOR = b"asked for by you"


def channel(**values: Any) -> Channel:
    """A channel at state 4 that is in recovery."""
    plain = {
        "channel": CHANNEL,
        "label": "coffee",
        "escrow": bytes(20),
        "host": "merchant",
        "port": 1,
        "salt": bytes(32),
        "customer_deposit": 100,
        "merchant_deposit": 0,
        "status": "suspect",
        "index": 4,
        "attempt": 0,
        "customer_balance": 90,
        "merchant_balance": 10,
        "token": None,
        "authorized": 4,
        "closing": None,
        "mutual_signature": None,
        "doubtful": True,
        "restored": False,
        "created": 0.0,
    }
    return Channel(**{**plain, **values})  # type: ignore[arg-type]


def record(newest: wire.Proved, **values: Any) -> wire.Record:
    """The signer's record of a channel whose newest state was reached like this."""
    authorization = wire.Authorization(
        index=newest.index,
        attempt=newest.attempt,
        lock=bytes(32),
        customer_balance=80,
        merchant_balance=20,
        signature=bytes(256),
        guard=bytes(20),
        permit=bytes(65),
    )
    plain = wire.Record(
        channel=CHANNEL,
        chain_id=1,
        escrow=bytes(20),
        salt=bytes(32),
        customer_deposit=100,
        merchant_deposit=0,
        proved=newest,
        reached=newest,
        previous=None,
        authorization=authorization,
        released=None,
        completed=None,
        closing=None,
    )
    return msgspec.structs.replace(plain, **values)


def walked(index: int) -> wire.Proved:
    """How a recovery enters the payment to a state."""
    return wire.Proved(
        index=index, attempt=0, operation=forgotten_operation(CHANNEL, index), amount=10
    )


PAID = wire.Proved(index=5, attempt=0, operation=ASKED_FOR, amount=10)


@pytest.mark.parametrize(
    ("local", "newest", "values"),
    [
        (channel(), walked(5), {}),
        (channel(status="new", index=None, authorized=None), walked(0), {}),
        (channel(status="decided", closing=4), walked(5), {"closing": 4}),
    ],
)
def test_the_step_of_a_recovery_whose_answer_was_lost(
    local: Channel, newest: wire.Proved, values: dict[str, Any]
) -> None:
    """The signer is one state ahead by the walk itself: no old database, nothing is held."""
    assert compare(Local(local, None), record(newest, **values)) is Verdict.WALKED


@pytest.mark.parametrize(
    ("local", "newest", "values"),
    [
        (channel(status="idle", doubtful=False), walked(5), {}),
        (channel(), walked(6), {}),
        (channel(), PAID, {}),
        (channel(), walked(5), {"proved": wire.Proved(6, 0, ASKED_FOR, 10)}),
        (channel(), walked(5), {"closing": 5}),
        (channel(), walked(5), {"reached": None}),
    ],
)
def test_what_a_recovery_cannot_have_done_tells_of_an_old_database(
    local: Channel, newest: wire.Proved, values: dict[str, Any]
) -> None:
    """A channel that nobody doubted, more than one step, or something asked for since."""
    assert compare(Local(local, None), record(newest, **values)) is Verdict.DATABASE_OLDER
