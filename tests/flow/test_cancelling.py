"""Cancelling: possible until something is bound, never afterwards."""

from __future__ import annotations

from tests.flow.world import World


def test_what_ended_cannot_be_cancelled(world: World) -> None:
    """A payment that is done stays done; one that bound nothing leaves the channel paying."""
    merchant = world.network.merchants["coffee"]
    label = world.establish("0.1 ETH")
    operation = world.rpc("pay", label=label, amount="0.01 ETH")["operation"]
    refusal = world.refused("cancel", operation=operation)
    assert refusal["kind"] == "channel_busy"
    assert world.balances(label) == (90_000_000, 10_000_000)
    merchant.service.kill()
    first = world.rpc("pay", label=label, amount="0.01 ETH", wait=False)["operation"]
    ended = world.rpc("wait", operation=first)
    assert ended["status"] in ("refused", "cancelled")
    merchant.service.start()
    world.pay(label, "0.01 ETH")
    assert world.balances(label) == (80_000_000, 20_000_000)


def test_a_queued_payment_is_cancelled_before_its_turn(world: World) -> None:
    """What waits behind another payment is cancelled at once; the ones around it are paid."""
    label = world.establish("1 ETH")
    amounts = (1000, 2000, 4000)
    first, second, third = (
        world.rpc("pay", label=label, amount=amount, wait=False)["operation"] for amount in amounts
    )
    cancelled = world.network.ctl("--json", "cancel", third)
    ended = [world.rpc("wait", operation=operation) for operation in (first, second, third)]
    assert [operation["status"] for operation in ended[:2]] == ["done", "done"]
    paid = 3000
    if cancelled.returncode == 0:
        assert ended[2]["status"] == "cancelled"
    else:  # it was too late: then it is paid, and the command said so
        assert ended[2]["status"] == "done"
        paid = 7000
    assert world.balances(label) == (10**9 - paid, paid)
