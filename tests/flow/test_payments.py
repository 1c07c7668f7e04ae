"""Establish, pay, refund: what moves, what is refused, and what stays as it was."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.flow.world import ETHER_UNITS, World
from zkchannels.escrow.record import ChannelStatus


def test_payments_move_exact_amounts(world: World) -> None:
    """Every payment and refund moves exactly its amount, on both sides' books."""
    label = world.establish("1 ETH")
    world.pay(label, "0.25 ETH")
    world.pay(label, 1)
    done = world.rpc("refund", label=label, amount="0.05 ETH", note="too much")
    assert done["amount"] == {"units": 50_000_000, "text": "0.05 ETH"}
    assert done["receipt"] is True
    assert world.balances(label) == (800_000_000 - 1, 200_000_000 + 1)
    assert world.show(label)["index"] == 3


def test_a_payments_answer_is_what_is_recorded(world: World) -> None:
    """The answer of a payment is made without reading it back, and equals what is read."""
    label = world.establish("1 ETH")
    for method, amount in (("pay", "0.25 ETH"), ("refund", "0.05 ETH")):
        answer = world.rpc(method, label=label, amount=amount, note="two")
        assert answer["status"] == "done"
        assert [step["name"] for step in answer["steps"]] == [
            "propose",
            "prove",
            "authorize",
            "revoke",
            "complete",
        ]
        assert answer == world.rpc("operation", operation=answer["operation"])


def test_the_whole_balance_can_go_both_ways(world: World) -> None:
    """Paying everything and getting everything back are ordinary payments."""
    label = world.establish("0.5 ETH")
    world.pay(label, "0.5 ETH")
    assert world.balances(label) == (0, 500_000_000)
    world.rpc("refund", label=label, amount="0.5 ETH")
    assert world.balances(label) == (500_000_000, 0)


@pytest.mark.parametrize(
    ("amount", "kind"),
    [
        ("2 ETH", "insufficient_balance"),
        (2**63 - 1, "insufficient_balance"),
        ("0 ETH", "amount_too_small"),
        ("-1 ETH", "amount_too_small"),
        (-5, "amount_too_small"),
        ("1 TEST", "invalid_amount"),
        ("0.0000000001 ETH", "invalid_amount"),
        ("much", "invalid_amount"),
    ],
)
def test_a_refused_payment_leaves_the_channel_as_it_was(
    world: World, amount: Any, kind: str
) -> None:
    """An overdraft or a wrong amount is a typed error at once; the channel pays on."""
    label = world.establish("1 ETH")
    assert world.refused("pay", label=label, amount=amount)["kind"] == kind
    assert world.balances(label) == (ETHER_UNITS, 0)
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (900_000_000, 100_000_000)


def test_an_unknown_label_is_not_found(world: World) -> None:
    """A label that names no channel is a typed error."""
    assert world.refused("pay", label="nobody", amount="1 ETH")["kind"] == "not_found"
    assert world.refused("show", label="nobody")["kind"] == "not_found"
    assert world.refused("close", label="nobody")["kind"] == "not_found"


def test_a_taken_label_is_refused(world: World) -> None:
    """Labels are unique: a second channel of the same name is refused before anything is sent."""
    label = world.establish("0.1 ETH")
    refusal = world.refused(
        "establish",
        merchant=world.network.merchants["coffee"].address,
        deposit="0.1 ETH",
        label=label,
    )
    assert refusal["kind"] == "label_taken"
    assert len([c for c in world.rpc("list")["channels"] if c["label"] == label]) == 1


@pytest.mark.parametrize(
    ("merchant", "kind"),
    [
        ("coffee", "invalid_address"),
        ("http://localhost/", "invalid_address"),
        ("zkchannel://localhost/0x" + "00" * 20, "merchant_unreachable"),
        ("zkchannel://localhost:1/0x" + "11" * 20, "merchant_unreachable"),
    ],
)
def test_a_wrong_merchant_is_refused(world: World, merchant: str, kind: str) -> None:
    """An address that cannot be read or reached is a typed error; no channel is left behind."""
    before = len(world.rpc("list")["channels"])
    refusal = world.refused("establish", merchant=merchant, deposit="1 ETH", label="wrong")
    assert refusal["kind"] == kind
    assert len(world.rpc("list")["channels"]) == before


def test_another_escrow_at_the_merchant_is_refused(world: World) -> None:
    """A merchant does not serve an escrow that is not its own."""
    coffee = world.network.merchants["coffee"].address.rpartition("/")[0]
    bakery = world.network.merchants["bakery"].address.rpartition("/")[2]
    refusal = world.refused(
        "establish", merchant=f"{coffee}/{bakery}", deposit="1 TEST", label="mixed"
    )
    assert refusal["kind"] == "rejected_by_merchant"


def test_too_large_a_deposit_is_refused_before_anything_moves(world: World) -> None:
    """A deposit that the account does not hold is refused with what it holds."""
    refusal = world.refused(
        "establish",
        merchant=world.network.merchants["coffee"].address,
        deposit="5000000 ETH",
        label="rich",
    )
    assert refusal["kind"] == "insufficient_balance"
    assert "ETH" in refusal["message"]


def test_an_idempotency_key_pays_once(world: World) -> None:
    """The same key with the same parameters is one payment; with others it is refused."""
    label, key = world.establish("1 ETH"), secrets.token_hex(8)
    first = world.pay(label, "0.1 ETH", idempotency_key=key)
    second = world.pay(label, "0.1 ETH", idempotency_key=key)
    assert first["operation"] == second["operation"]
    assert world.balances(label) == (900_000_000, 100_000_000)
    refusal = world.refused("pay", label=label, amount="0.2 ETH", idempotency_key=key)
    assert refusal["kind"] == "idempotency_mismatch"
    world.network.daemon.kill()
    world.everything_runs()
    third = world.pay(label, "0.1 ETH", idempotency_key=key)
    assert first["operation"] == third["operation"]
    assert world.balances(label) == (900_000_000, 100_000_000)


def test_payments_on_one_channel_are_in_order(world: World) -> None:
    """Many payments queued at once are each paid, in the order of their requests."""
    label = world.establish("1 ETH")
    ids = [
        world.rpc("pay", label=label, amount=number, wait=False)["operation"]
        for number in range(1, 21)
    ]
    ended = [world.rpc("wait", operation=operation) for operation in ids]
    assert all(operation["status"] == "done" for operation in ended)
    assert [operation["updated"] for operation in ended] == sorted(
        operation["updated"] for operation in ended
    )
    assert world.balances(label) == (ETHER_UNITS - 210, 210)


def test_a_queued_overdraft_is_refused_and_the_next_goes_on(world: World) -> None:
    """What an earlier queued payment spent is gone for a later one, which ends refused."""
    label = world.establish("1 ETH")
    amounts = ["0.7 ETH", "0.7 ETH", "0.3 ETH"]
    ids = [
        world.rpc("pay", label=label, amount=amount, wait=False)["operation"] for amount in amounts
    ]
    ended = [world.rpc("wait", operation=operation) for operation in ids]
    assert [operation["status"] for operation in ended] == ["done", "refused", "done"]
    assert ended[1]["error"]["kind"] == "insufficient_balance"
    assert world.balances(label) == (0, ETHER_UNITS)


def test_a_token_channel_with_the_merchants_deposit(world: World) -> None:
    """A channel in an ERC-20 token, funded by both, pays and is refunded from both shares."""
    label = world.establish("50 TEST", merchant="bakery", merchant_deposit="20 TEST")
    assert world.balances(label) == (50_000_000, 20_000_000)
    world.rpc("refund", label=label, amount="5 TEST")
    world.pay(label, "55 TEST")
    assert world.balances(label) == (0, 70_000_000)
    record = world.on_chain(label, merchant="bakery")
    assert record.status is ChannelStatus.OPEN
    assert (record.customer_deposit, record.merchant_deposit) == (50_000_000, 20_000_000)


def test_a_token_channel_where_the_chain_is_weeks_ahead(world: World) -> None:
    """A permit's end is by the chain's time: contracts know no other clock."""
    world.network.chain.increase_time(30 * 24 * 3600)
    label = world.establish("50 TEST", merchant="bakery")
    world.pay(label, "5 TEST")
    assert world.balances(label) == (45_000_000, 5_000_000)


def test_history_and_operations_tell_what_happened(world: World) -> None:
    """Every payment is found again among operations and events, with its steps."""
    label = world.establish("1 ETH")
    done = world.pay(label, "0.1 ETH", note="one espresso")
    shown = world.rpc("operation", operation=done["operation"])
    assert [step["name"] for step in shown["steps"]] == [
        "propose",
        "prove",
        "authorize",
        "revoke",
        "complete",
    ]
    assert all(step["finished"] is not None for step in shown["steps"])
    kinds = [e["kind"] for e in world.rpc("history", operation=done["operation"])["events"]]
    assert kinds[0] == "done"
    assert kinds[-1] == "queued"
    newest = world.rpc("operations", label=label, limit=1)["operations"]
    assert newest[0]["operation"] == done["operation"]


def test_a_renamed_channel_pays_under_its_new_label(world: World) -> None:
    """A rename moves the label alone; the old one is free again."""
    label = world.establish("1 ETH")
    world.rpc("rename", label=label, new_label=f"{label}-new")
    world.pay(f"{label}-new", "0.1 ETH")
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "not_found"
    other = world.establish("0.1 ETH")
    refusal = world.refused("rename", label=other, new_label=f"{label}-new")
    assert refusal["kind"] == "label_taken"
