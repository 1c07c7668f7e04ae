"""The ways out of a channel, each to its end on chain."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.flow.world import ETHER_UNITS, World
from zkchannels.escrow.record import ChannelStatus


def test_a_close_by_agreement_pays_both_at_once(world: World) -> None:
    """A mutual close ends the channel without a delay, with the newest balances."""
    label = world.establish("1 ETH")
    world.pay(label, "0.4 ETH")
    before = world.network.chain.balance(world.network.merchants["coffee"].account)
    operation = world.rpc("close", label=label, wait=False)["operation"]
    assert world.settle(operation)["status"] == "done"
    world.until(label, status="closed")
    record = world.on_chain(label)
    assert record.status is ChannelStatus.CLOSED
    assert (record.customer_balance, record.merchant_balance) == (600_000_000, 400_000_000)
    after = world.network.chain.balance(world.network.merchants["coffee"].account)
    assert after - before == 400_000_000 * 10**9
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "wrong_status"


def test_a_forced_close_pays_after_the_delay(world: World) -> None:
    """A unilateral close posts the newest state and is claimed once the delay is over."""
    label = world.establish("1 ETH")
    world.pay(label, "0.4 ETH")
    operation = world.rpc("close", label=label, force=True, wait=False)["operation"]
    assert world.settle(operation)["status"] == "done"
    record = world.on_chain(label)
    assert record.status is ChannelStatus.CLOSING
    assert not record.closed_by_guard
    assert (record.customer_balance, record.merchant_balance) == (600_000_000, 400_000_000)
    assert world.show(label)["deadline"] == record.deadline
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).status is ChannelStatus.CLOSED


def test_an_expire_is_answered_with_the_signers_key(world: World) -> None:
    """A merchant's expire is met by a close on the newest state while the signer is attached."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    channel = world.show(label)["channel"]
    world.network.merchantctl("coffee", "expire", "--no-wait", channel)
    world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert not record.closed_by_guard
    assert record.customer_balance == 700_000_000
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")


def test_the_guard_answers_an_expire_without_the_signer(world: World) -> None:
    """With the signer away the guard closes on the newest state; its return brings the claim."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    channel = world.show(label)["channel"]
    world.network.signer.kill()
    world.network.wait_info(lambda info: info["mode"] == "safe")
    world.network.merchantctl("coffee", "expire", "--no-wait", channel)
    world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert record.closed_by_guard
    assert (record.customer_balance, record.merchant_balance) == (700_000_000, 300_000_000)
    world.network.signer.start()
    world.network.wait_mode("ready")
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == 700_000_000


def test_the_guard_defends_after_a_restart_in_the_second_half(world: World) -> None:
    """A daemon that was not compared with a signer since its start defends in the second half."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    channel = world.show(label)["channel"]
    world.network.signer.kill()
    world.network.daemon.kill()
    world.network.daemon.start()
    world.network.merchantctl("coffee", "expire", "--no-wait", channel)
    world.until(label, chain_status="expiring")
    for _ in range(5):
        world.network.chain.mine()
    assert world.show(label)["chain_status"] == "expiring"
    world.network.wait_info(
        lambda info: "wait-for-signer" in [alarm["kind"] for alarm in info["alarms"]]
    )
    world.network.chain.increase_time(world.network.delay // 2 + 1)
    world.until(label, chain_status="closing")
    assert world.on_chain(label).closed_by_guard
    world.everything_runs()
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")


def test_a_mutual_close_without_the_merchant_can_be_forced(world: World) -> None:
    """While the merchant does not answer, a forced close goes ahead of the waiting agreement."""
    label = world.establish("1 ETH")
    world.pay(label, "0.2 ETH")
    world.network.merchants["coffee"].service.kill()
    asked = world.rpc("close", label=label, wait=False)["operation"]
    forced = world.rpc("close", label=label, force=True, wait=False)["operation"]
    assert world.settle(forced)["status"] == "done"
    assert world.on_chain(label).customer_balance == ETHER_UNITS - 200_000_000
    world.network.merchants["coffee"].service.start()
    assert world.settle(asked)["status"] == "done"
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")


def test_a_merchant_that_ends_while_it_is_asked_to_agree_is_asked_again(world: World) -> None:
    """A merchant's restart in the middle of its answer is no refusal: the close stays mutual."""
    label = world.establish("1 ETH")
    world.pay(label, "0.2 ETH")
    merchant = world.network.merchants["coffee"]
    os.kill(merchant.service.pid, signal.SIGSTOP)
    operation = world.rpc("close", label=label, wait=False)["operation"]
    _until_unread(int(merchant.address.partition("//")[2].partition("/")[0].rpartition(":")[2]))
    os.kill(merchant.service.pid, signal.SIGTERM)
    os.kill(merchant.service.pid, signal.SIGCONT)
    merchant.service.wait(60)
    merchant.service.stop()
    merchant.service.start()
    assert world.settle(operation)["status"] == "done"
    assert world.on_chain(label).status is ChannelStatus.CLOSED


def _until_unread(port: int) -> None:
    """Return once a connection to a port has bytes that the server has not read."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        for table in ("tcp", "tcp6"):
            for row in Path("/proc/net", table).read_text().splitlines()[1:]:
                local, state, queues = (row.split()[number] for number in (1, 3, 4))
                unread = int(queues.partition(":")[2], 16)
                if int(local.rpartition(":")[2], 16) == port and state == "01" and unread:
                    return
    raise AssertionError("nothing was sent")


def test_a_closed_channel_cannot_be_closed_again(world: World) -> None:
    """A second close of an ended channel is refused as such."""
    label = world.establish("0.1 ETH")
    world.settle(world.rpc("close", label=label, wait=False)["operation"])
    world.until(label, status="closed")
    assert world.refused("close", label=label)["kind"] == "wrong_status"
