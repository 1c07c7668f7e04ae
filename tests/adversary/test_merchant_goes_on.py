"""A merchant that never stops misbehaving: the payment in flight is the most that it gets."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from tests.adversary.arena import WITHIN, Arena
from tests.flow.world import ETHER_UNITS
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.escrow.record import ChannelStatus

PAID, IN_FLIGHT = 1000, 2000
BEFORE = (ETHER_UNITS - PAID, PAID)
AFTER = (ETHER_UNITS - PAID - IN_FLIGHT, PAID + IN_FLIGHT)

STUBBORN: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
    ("pay.prove", {"do": "never answer"}, BEFORE),
    ("pay.prove", {"do": "refuse", "kind": "later"}, BEFORE),
    ("pay.prove", {"do": "refuse", "kind": "session_unknown", "after": False}, BEFORE),
    ("pay.prove", {"do": "fail", "message": "no"}, BEFORE),
    ("pay.revoke", {"do": "never answer"}, AFTER),
    ("pay.revoke", {"do": "refuse", "kind": "later"}, AFTER),
    ("pay.revoke", {"do": "refuse", "kind": "nonce_unknown"}, AFTER),
    ("pay.revoke", {"do": "hang up"}, AFTER),
    ("pay.revoke", {"do": "fail", "message": "no"}, AFTER),
]
"""What the merchant does to every such message, and what a forced close pays out after it."""


def test_a_stubborn_merchant_gets_the_payment_in_flight_at_most(arena: Arena) -> None:
    """A merchant that never goes on is told to the owner, who closes on what was agreed last."""
    labels = arena.channels(len(STUBBORN))
    for label in labels:
        arena.pay(label, PAID)
    payments, closes = [], []
    for label, (method, order, _) in zip(labels, STUBBORN, strict=True):
        arena.order(**{method.replace(".", "_"): order})
        payments.append(arena.begin("pay", label=label, amount=IN_FLIGHT))
        arena.reached(method, 2 if order["do"] != "never answer" else 1)
        warning = arena.warned("operation_rests", label)
        assert "customerctl close --force" in warning["message"]
        closes.append(arena.begin("close", label=label, force=True))
        arena.network.wait_channel(label, lambda channel: channel["status"] == "decided")
    arena.unhurt()
    arena.others_pay()
    for operation in closes:
        assert arena.outcome(operation)["status"] == "done"
    for label in labels:
        arena.until(label, chain_status="closing")
    arena.network.chain.increase_time(arena.network.delay + 1)
    arena.order()
    for label, payment, (method, order, payout) in zip(labels, payments, STUBBORN, strict=True):
        arena.until(label, status="closed")
        record = arena.on_chain(label)
        assert (record.customer_balance, record.merchant_balance) == payout, (method, order)
        assert arena.outcome(payment)["status"] == ("done" if payout == AFTER else "refused")
    assert not {alert["label"] for alert in arena.rpc("getinfo")["alarms"]} & set(labels)


REFUSALS: list[tuple[str, str, str, tuple[int, int] | None]] = [
    ("pay.propose", "rejected", "rejected_by_merchant", None),
    ("pay.propose", "later", "merchant_unreachable", None),
    ("pay.prove", "bad_proof", "rejected_by_merchant", None),
    ("pay.revoke", "lock_used", "", AFTER),
    ("pay.revoke", "bad_opening", "", AFTER),
]


def test_a_refusal_after_the_secret_costs_that_payment_alone(arena: Arena) -> None:
    """Refused before the secret left: nothing is paid. After it: the channel closes on the new."""
    labels = arena.channels(len(REFUSALS))
    for label, (method, kind, told, payout) in zip(labels, REFUSALS, strict=True):
        arena.order()
        arena.pay(label, PAID)
        order = {"do": "refuse", "kind": kind, "after": payout is not None}
        arena.order(**{method.replace(".", "_"): order})
        outcome = arena.outcome(arena.begin("pay", label=label, amount=IN_FLIGHT))
        if payout is None:
            assert outcome["status"] == "refused"
            assert outcome["error"]["kind"] == told
            assert arena.balances(label) == BEFORE
        else:
            assert outcome["status"] == "done"
            assert outcome["receipt"] is False
            assert arena.balances(label) == payout
    arena.order()
    for label, (_, _, _, payout) in zip(labels, REFUSALS, strict=True):
        if payout is None:
            arena.pay(label, IN_FLIGHT)
        else:
            arena.until(label, chain_status="closing")
    arena.unhurt()


def test_a_proof_that_is_refused_after_it_was_taken(arena: Arena) -> None:
    """A payment said to be refused is never paid, though the merchant signed and shows it later."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    arena.order(pay_prove=[{"do": "refuse", "kind": "bad_proof"}])
    for kind in ("rejected_by_merchant", "wrong_status"):
        outcome = arena.outcome(arena.begin("pay", label=label, amount=IN_FLIGHT))
        assert outcome["error"]["kind"] == kind
    record = arena.closed(label)
    assert (record.customer_balance, record.merchant_balance) == BEFORE


def test_nothing_is_said_to_be_refused_that_the_signer_accepted(arena: Arena) -> None:
    """While the commit of an authorization fails, the merchant denies the payment: it is made.

    The signer accepted the new state, so it is the only one to close on.
    """
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    with psycopg.connect(_daemon_dsn(arena)) as blocking:
        blocking.execute("lock table state in share mode")
        payment = arena.begin("pay", label=label, amount=IN_FLIGHT)
        with psycopg.connect(arena.network.cluster.dsn(), autocommit=True) as looking:
            deadline = time.monotonic() + WITHIN
            while looking.execute(_WAITS, [blocking.info.dbname]).fetchone() == (0,):
                assert time.monotonic() < deadline, arena.rpc("operation", operation=payment)
        arena.order(pay_prove={"do": "refuse", "kind": "bad_proof"})
        arena.reached("pay.prove")
        blocking.rollback()
    outcome = arena.outcome(payment)
    assert (outcome["status"], outcome["receipt"]) == ("done", False)
    record = arena.closed(label)
    assert (record.customer_balance, record.merchant_balance) == AFTER


_WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"


def _daemon_dsn(arena: Arena) -> str:
    lines = arena.network.config.read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("dsn"))


def test_a_nonce_that_is_said_to_be_bound_stops_payments_only(arena: Arena) -> None:
    """A merchant that denies what it recorded, and shows nothing, gets no payment any more."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    arena.order(
        pay_prove={"do": "refuse", "kind": "nonce_bound"},
        pay_recover={"do": "refuse", "kind": "later"},
    )
    arena.begin("pay", label=label, amount=IN_FLIGHT)
    channel = arena.until(label, status="suspect")
    arena.warned("ask-merchant", label)
    arena.network.merchantctl("coffee", "expire", "--no-wait", channel["channel"])
    arena.until(label, chain_status="expiring")
    arena.network.chain.increase_time(arena.network.delay // 2 + 1)
    record = arena.closed(label)
    assert (record.customer_balance, record.merchant_balance) == BEFORE


def test_a_payment_that_is_denied_and_then_shown_is_made_once(arena: Arena) -> None:
    """A nonce said to be bound to another payment, which is this one: it is found, and done."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    arena.order(pay_prove=[{"do": "refuse", "kind": "nonce_bound"}])
    payment = arena.begin("pay", label=label, amount=IN_FLIGHT)
    assert arena.outcome(payment)["status"] == "done"
    arena.until(label, status="idle")
    assert arena.balances(label) == AFTER
    assert arena.rpc("operation", operation=payment)["receipt"] is True
    arena.pay(label, 1)


def test_no_secret_that_a_merchant_ever_got_disputes_the_newest_state(arena: Arena) -> None:
    """Every secret of every payment is tried against a unilateral close: none of them fits."""
    (label,) = arena.channels(1)
    for amount in (PAID, 500, -700, IN_FLIGHT):
        if amount < 0:
            arena.outcome(arena.begin("refund", label=label, amount=-amount))
        else:
            arena.pay(label, amount)
    expected = arena.balances(label)
    assert arena.outcome(arena.begin("close", label=label, force=True))["status"] == "done"
    arena.until(label, chain_status="closing")
    merchant = arena.network.merchants["coffee"]
    text = merchant.config.read_text()
    dsn = next(line.split('"')[1] for line in text.splitlines() if line.startswith("database"))
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT secret FROM lock WHERE secret IS NOT NULL").fetchall()
    assert len(rows) >= 4
    account = PrivateKey(bytes.fromhex((merchant.config.parent / "account.key").read_text()))
    number = int(arena.show(label)["channel"], 16)
    for (secret,) in rows[-50:]:
        data = calls.dispute(number, bytes(secret))
        assert not arena.network.chain.send(account, merchant.escrow, data).succeeded
    record = arena.closed(label)
    assert (record.customer_balance, record.merchant_balance) == expected
    assert record.status is ChannelStatus.CLOSED
