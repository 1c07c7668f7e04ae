"""Payments interrupted anywhere complete by themselves after a restart, once."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.flow.world import ETHER_UNITS, World
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError


def _service(world: World, name: str) -> Service:
    network = world.network
    return {
        "customerd": network.daemon,
        "customersigner": network.signer,
        "merchantd": network.merchants["coffee"].service,
    }[name]


def _wait_step(world: World, operation: str, step: str) -> None:
    """Return at the event that this step of the operation was written, or that it ended."""
    with BlockingClient(str(world.network.socket), timeout=10) as client:
        client.call("subscribe", {"topics": ["operation"], "after": 0})
        for _, event in client.notifications():
            if event["operation"] == operation and (
                event["details"].get("step") == step or event["kind"] in ("done", "refused")
            ):
                return


def _settled_payment(world: World, operation: str) -> Any:
    """Return the operation's outcome, over restarts of the daemon."""
    while True:
        with contextlib.suppress(ConnectionLost, RpcError):
            return world.rpc("wait", operation=operation, timeout=1.0)


def _merchant_total(world: World, label: str) -> int:
    """Return what the merchant's own books say it was paid on all channels, seen on chain."""
    return int(world.show(label)["merchant_balance"]["units"])


@pytest.mark.parametrize("victim", ["customerd", "customersigner", "merchantd"])
@pytest.mark.parametrize("step", ["prove", "authorize", "complete"])
def test_a_killed_process_never_loses_or_repeats_a_payment(
    world: World, victim: str, step: str
) -> None:
    """SIGKILL of any process at any step: after its restart the payment is done, exactly once."""
    label = world.establish("1 ETH")
    operation = world.rpc("pay", label=label, amount="0.1 ETH", wait=False)["operation"]
    _wait_step(world, operation, step)
    service = _service(world, victim)
    service.kill()
    service.start()
    world.network.wait_mode("ready")
    outcome = _settled_payment(world, operation)
    assert outcome["status"] == "done", outcome
    assert world.balances(label) == (900_000_000, 100_000_000)
    world.pay(label, "0.2 ETH")
    assert world.balances(label) == (700_000_000, 300_000_000)


def test_a_stream_of_payments_survives_kills_of_everything(world: World) -> None:
    """Twenty queued payments while all three processes are killed in turn: each is paid once."""
    label = world.establish("1 ETH")
    operations = [
        world.rpc("pay", label=label, amount=1000 + number, wait=False)["operation"]
        for number in range(20)
    ]
    for victim in ("customersigner", "merchantd", "customerd", "customersigner", "customerd"):
        service = _service(world, victim)
        service.kill()
        service.start()
    world.network.wait_mode("ready")
    outcomes = [_settled_payment(world, operation) for operation in operations]
    paid = sum(outcome["amount"]["units"] for outcome in outcomes if outcome["status"] == "done")
    # While the merchant was away a payment that had bound nothing may have been refused.
    for outcome in outcomes:
        assert outcome["status"] == "done" or outcome["error"]["kind"] == "merchant_unreachable"
    assert world.balances(label) == (ETHER_UNITS - paid, paid)
    world.pay(label, "0.5 ETH")
    closing = world.rpc("close", label=label, wait=False)["operation"]
    assert world.settle(closing)["status"] == "done"
    record = world.on_chain(label)
    assert record.customer_balance == ETHER_UNITS - paid - 500_000_000
    assert record.merchant_balance == paid + 500_000_000


def test_a_merchant_that_is_down_is_unreachable_and_nothing_is_bound(world: World) -> None:
    """With the merchant down a payment is refused at once; with it back the channel pays on."""
    label = world.establish("1 ETH")
    merchant = world.network.merchants["coffee"].service
    merchant.kill()
    refusal = world.refused("pay", label=label, amount="0.1 ETH")
    assert refusal["kind"] == "merchant_unreachable"
    assert world.rpc("operation", operation=refusal["operation"])["status"] == "refused"
    assert world.balances(label) == (ETHER_UNITS, 0)
    merchant.start()
    world.pay(label, "0.1 ETH")


def test_a_refusing_merchant_leaves_the_channel_as_it_was(world: World) -> None:
    """A payment that the merchant does not approve is refused with its reason."""
    label = world.establish("1 ETH")
    refusal = world.refused("refund", label=label, amount="0.1 ETH")
    assert refusal["kind"] == "insufficient_balance"
    refusal = world.refused(
        "establish",
        merchant=world.network.merchants["coffee"].address,
        deposit="1 ETH",
        merchant_deposit="9000000000 ETH",
        label="greedy",
    )
    assert refusal["kind"] in ("rejected_by_merchant", "invalid_amount")
    assert world.refused("show", label="greedy")["kind"] == "not_found"
    world.pay(label, "0.1 ETH")


def test_without_the_signer_nothing_is_spent_and_everything_is_shown(world: World) -> None:
    """Safe mode: spending is refused, monitoring answers, merchant connections are gone."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    world.network.signer.kill()
    info = world.network.wait_info(lambda info: info["mode"] == "safe")
    assert info["missing"] == ["safe_mode"]
    for method, params in (
        ("pay", {"label": label, "amount": "0.1 ETH"}),
        ("refund", {"label": label, "amount": "0.1 ETH"}),
        ("close", {"label": label}),
        ("establish", {"merchant": "zkchannel://localhost/0x" + "00" * 20, "deposit": "1 ETH"}),
    ):
        assert world.refused(method, **params)["kind"] == "safe_mode"
    for method in ("balance", "list", "operations", "history", "signer-status", "help"):
        world.rpc(method)
    metrics = world.rpc("metrics")["text"]
    assert "customerd_merchant_connections 0\n" in metrics
    world.network.signer.start()
    world.network.wait_mode("ready")
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (800_000_000, 200_000_000)


def test_a_merchant_that_expires_during_an_outage_is_met_after_the_restart(world: World) -> None:
    """Everything of the customer's is dead during the expire; after the start it is answered."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    channel = world.show(label)["channel"]
    world.network.signer.kill()
    world.network.daemon.kill()
    world.network.merchantctl("coffee", "expire", "--no-wait", channel)
    escrow = world.network.merchants["coffee"].escrow
    while not world.network.chain.logs(escrow):
        world.network.chain.mine()
    world.network.daemon.start()
    world.network.signer.start()
    world.network.wait_mode("ready")
    world.until(label, chain_status="closing")
    assert world.on_chain(label).customer_balance == 700_000_000
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
