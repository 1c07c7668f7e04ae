"""A merchant that expires channels at the worst instant: what it gets is what it was paid."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.adversary.arena import Arena
from tests.flow.world import ETHER_UNITS
from zkchannels.escrow.record import ChannelStatus

PAID, IN_FLIGHT = 1000, 2000
BEFORE = (ETHER_UNITS - PAID, PAID)
AFTER = (ETHER_UNITS - PAID - IN_FLIGHT, PAID + IN_FLIGHT)
Instant = tuple[str, bool, tuple[int, int]]
INSTANTS: list[Instant] = [
    ("pay.propose", False, BEFORE),
    ("pay.prove", False, BEFORE),
    ("pay.prove", True, BEFORE),
    ("pay.revoke", False, AFTER),
    ("pay.revoke", True, AFTER),
]
"""At which message, before or after the merchant has taken it, and what is paid out then."""


def expire(arena: Arena, label: str) -> None:
    """Have the merchant demand a close."""
    channel = arena.show(label)["channel"]
    arena.network.merchantctl("coffee", "expire", "--no-wait", channel)


def held_payments(arena: Arena, instants: list[Instant]) -> tuple[list[str], list[str]]:
    """Bring one payment to each instant and hold it there; return labels and operations."""
    labels = arena.channels(len(instants))
    for label in labels:
        arena.pay(label, PAID)
    arena.order(
        **{
            method.replace(".", "_"): [
                {"do": "hold", "after": after} for name, after, _ in instants if name == method
            ]
            for method, _, _ in instants
        }
    )
    operations = []
    passed = Counter[str]()
    for label, (method, _, _) in zip(labels, instants, strict=True):
        operations.append(arena.begin("pay", label=label, amount=IN_FLIGHT))
        passed[method] += 1
        arena.reached(method, passed[method])
    return labels, operations


def paid_out(arena: Arena, labels: list[str]) -> list[tuple[int, int]]:
    """Return what the contract paid for each channel, once all delays are over."""
    for label in labels:
        arena.until(label, chain_status="closing")
    arena.network.chain.increase_time(arena.network.delay + 1)
    for label in labels:
        arena.until(label, status="closed")
    records = [arena.on_chain(label) for label in labels]
    return [(record.customer_balance, record.merchant_balance) for record in records]


def test_an_expire_between_any_two_steps_of_a_payment(arena: Arena) -> None:
    """Expired while a payment is under way, each channel closes on the state that was agreed."""
    labels, operations = held_payments(arena, INSTANTS)
    for label in labels:
        expire(arena, label)
    for label in labels:
        arena.until(label, chain_status="closing")
    arena.order()
    for operation, (method, _, payout) in zip(operations, INSTANTS, strict=True):
        outcome = arena.outcome(operation)
        assert outcome["status"] == ("done" if payout == AFTER else "refused"), method
    assert paid_out(arena, labels) == [payout for _, _, payout in INSTANTS]
    arena.unhurt()


@pytest.mark.parametrize("away", ["customersigner", "customerd"])
@pytest.mark.parametrize("half", [1, 2])
def test_an_expire_within_a_payment_while_a_process_is_dead(
    arena: Arena, away: str, half: int
) -> None:
    """Signer or daemon dead in either half of the delay: the close is the one that was agreed."""
    instants = [instant for instant in INSTANTS if instant[1]]
    labels, operations = held_payments(arena, instants)
    channels = [arena.show(label)["channel"] for label in labels]
    daemon, signer = arena.network.daemon, arena.network.signer
    (signer if away == "customersigner" else daemon).kill()
    arena.network.merchantctl("coffee", "expire", "--no-wait", *channels)
    if away == "customerd":
        numbers = [int(channel, 16) for channel in channels]
        arena.on_chain_status(numbers, ChannelStatus.EXPIRING)
    arena.order()
    if half == 2:
        arena.network.chain.increase_time(arena.network.delay // 2 + 1)
    if away == "customerd":
        daemon.start()
    for label in labels:
        arena.until(label, chain_status="closing")
        # In the second half the guard need not wait for the signer, but it may come in time.
        assert arena.on_chain(label).closed_by_guard or away == "customerd"
    if away == "customersigner":
        signer.start()
    arena.network.wait_mode("ready")
    assert paid_out(arena, labels) == [payout for _, _, payout in instants]
    for operation, (method, _, payout) in zip(operations, instants, strict=True):
        outcome = arena.outcome(operation)
        assert outcome["status"] == ("done" if payout == AFTER else "refused"), method
