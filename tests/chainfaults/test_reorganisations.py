"""Reorganisations of depth 1 to 8 at each phase of a channel's life, and across finality."""

from __future__ import annotations

import time

import pytest

from tests.chainfaults.network import FINALITY, PATIENCE, FaultyWorld
from zkchannels.escrow.record import ChannelStatus

HOW = ("drop", "late", "mixed")


@pytest.mark.parametrize("depth", range(1, 9))
def test_a_life_with_reorganisations(world: FaultyWorld, depth: int) -> None:
    """Open, expire, close and claim are each reorganised away, or come again in other blocks.

    What was dropped is sent again, by us and by the merchant; everybody gets what is theirs.
    """
    how = HOW[depth % 3]
    anvil = world.anvil
    label = f"deep-{depth}"
    operation = world.rpc(
        "establish",
        merchant=world.network.merchants["coffee"].address,
        deposit="1 ETH",
        label=label,
        wait=False,
    )["operation"]
    world.until(label, chain_status="open")
    anvil.mine(depth - 1)
    world.reorganise(depth, how)
    assert world.settle(operation)["status"] == "done"
    world.pay(label, "0.3 ETH")
    world.expire(label)
    world.until_on_chain(label, "expiring", "closing")
    anvil.mine(depth - 1)
    world.reorganise(depth, how)
    world.until_on_chain(label, "closing")
    anvil.mine(depth - 1)
    world.reorganise(depth, how)
    world.until_on_chain(label, "closing")
    world.pass_time(world.network.delay + 1)
    world.until_on_chain(label, "closed")
    world.reorganise(depth, how)
    world.until_ended(label)
    record = world.on_chain(label)
    assert record.status is ChannelStatus.CLOSED
    assert (record.customer_balance, record.merchant_balance) == (700_000_000, 300_000_000)
    assert not world.rpc("list")["channels"][-1]["operation"]


def test_a_final_end_is_taken_back(world: FaultyWorld) -> None:
    """A recorded end that was final and is replaced: an alarm, the record reopens, and it ends."""
    label = world.establish("1 ETH")
    world.pay(label, "0.4 ETH")
    before = world.anvil.head()
    world.rpc("close", label=label, wait=False)
    world.until(label, status="closed")
    world.reorganise(world.anvil.head() - before, "drop")
    alarm = world.until_alarm("finality_broken")
    assert alarm["level"] == "critical"
    world.network.wait_channel(label, lambda channel: channel["status"] == "decided")
    world.until_ended(label)
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == (600_000_000, 400_000_000)
    world.anvil.mine(2 * FINALITY)
    world.until_no_alarm("finality_broken")
    assert world.logged("final_blocks_reorganised")


def test_a_final_deposit_is_taken_back(world: FaultyWorld) -> None:
    """A deposit that was final and is replaced is paid in again; the channel goes on."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    opened = world.on_chain(label)
    depth = world.anvil.head() - _block_of_opening(world, label) + 1
    assert depth > FINALITY
    world.reorganise(depth, "drop")
    world.until_alarm("finality_broken")
    until = time.monotonic() + PATIENCE
    while world.on_chain(label) != opened:
        assert time.monotonic() < until, world.on_chain(label)
        world.block()
    world.until(label, chain_status="open", status="idle")
    world.anvil.mine(2 * FINALITY)
    world.until_no_alarm("finality_broken")
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (800_000_000, 200_000_000)


def _block_of_opening(world: FaultyWorld, label: str) -> int:
    """The number of the block with the deposit."""
    channel = world.show(label)["channel"]
    found = world.anvil.call(
        "eth_getLogs",
        {"fromBlock": "0x0", "toBlock": "latest", "topics": [None, channel]},
    )
    return int(found[0]["blockNumber"], 16)
