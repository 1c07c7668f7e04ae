"""A merchant that signs what it should not: nothing of it is accepted, nobody loses a unit."""

from __future__ import annotations

from typing import Any

from tests.adversary import points
from tests.adversary.arena import Arena
from tests.flow.world import ETHER_UNITS
from zkchannels.escrow.record import ChannelStatus

FORGERIES: list[dict[str, Any]] = [{"do": "forge", "how": how} for how in points.FORGERIES]


def paid_out(arena: Arena, labels: list[str]) -> set[tuple[int, int]]:
    """Let the delay pass for all channels; return what the contract paid, customer first."""
    for label in labels:
        arena.until(label, chain_status="closing")
    arena.network.chain.increase_time(arena.network.delay + 1)
    for label in labels:
        arena.until(label, status="closed")
    records = [arena.on_chain(label) for label in labels]
    assert {record.status for record in records} == {ChannelStatus.CLOSED}
    return {(record.customer_balance, record.merchant_balance) for record in records}


def test_a_forged_closing_authorization_costs_nothing(arena: Arena) -> None:
    """No forged authorization brings the secret out: the channel closes on the state before."""
    forgeries = [*FORGERIES, {"do": "replay"}]
    labels = arena.channels(len(forgeries))
    for label in labels:
        arena.pay(label, 1000)
    for label, forgery in zip(labels, forgeries, strict=True):
        arena.order(pay_prove=forgery)
        outcome = arena.outcome(arena.begin("pay", label=label, amount=2000))
        assert outcome["status"] == "refused", forgery
        assert outcome["error"]["kind"] == "merchant_misbehaved", forgery
        assert "does not verify" in outcome["error"]["message"]
    arena.unhurt()
    arena.others_pay()
    arena.order()
    assert paid_out(arena, labels) == {(ETHER_UNITS - 1000, 1000)}


def test_a_forged_pay_token_costs_the_payment_in_flight_at_most(arena: Arena) -> None:
    """A forged token is not paid with: the channel closes on the state that was paid for."""
    forgeries = [*FORGERIES, {"do": "replay"}]
    labels = arena.channels(len(forgeries))
    for label in labels:
        arena.pay(label, 1000)
    for label, forgery in zip(labels, forgeries, strict=True):
        arena.order(pay_revoke=forgery)
        outcome = arena.outcome(arena.begin("pay", label=label, amount=2000))
        assert outcome["status"] == "done", forgery
        assert outcome["receipt"] is False, forgery
    arena.unhurt()
    arena.others_pay()
    arena.order()
    assert paid_out(arena, labels) == {(ETHER_UNITS - 3000, 3000)}


def test_a_forged_first_authorization_gets_no_deposit(arena: Arena) -> None:
    """No deposit is sent for a forged first authorization, and nothing of the channel is left."""
    address = arena.network.merchants["coffee"].address
    before = len(arena.network.chain.logs(arena.network.merchants["coffee"].escrow))
    for number, forgery in enumerate(FORGERIES):
        arena.order(establish_prove=forgery)
        label = f"forged-{number}"
        operation = arena.begin("establish", merchant=address, deposit="1 ETH", label=label)
        outcome = arena.outcome(operation)
        assert outcome["status"] == "refused", forgery
        assert outcome["error"]["kind"] == "merchant_misbehaved", forgery
        assert arena.refused("show", label=label)["kind"] == "not_found"
    assert len(arena.network.chain.logs(arena.network.merchants["coffee"].escrow)) == before
    arena.unhurt()


def test_a_forged_first_token_gives_the_deposit_back(arena: Arena) -> None:
    """A channel whose first token is forged is closed with all of its deposit."""
    address = arena.network.merchants["coffee"].address
    arena.order(establish_activate={"do": "forge", "how": "another h"})
    labels = ["untoken-0"]
    operation = arena.begin("establish", merchant=address, deposit="1 ETH", label=labels[0])
    outcome = arena.outcome(operation)
    assert outcome["status"] == "refused"
    assert outcome["error"]["kind"] == "merchant_misbehaved"
    assert paid_out(arena, labels) == {(ETHER_UNITS, 0)}
    arena.unhurt()
