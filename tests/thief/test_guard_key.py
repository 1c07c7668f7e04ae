"""What the guard's key is worth, alone and together with an old dump and the merchant."""

from __future__ import annotations

import pytest

from tests.flow.world import World
from tests.thief.support import Thief, guard_key, newest_state
from zkchannels.devnet.network import ETHER
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import parse_address
from zkchannels.escrow.record import ChannelStatus


def test_the_guards_coin_can_be_taken_and_the_signer_closes_all_the_same(
    world: World, thief: Thief
) -> None:
    """A drained guard raises an alarm; an attached signer's account closes, and all is there."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    network = world.network
    assert thief.take_coin(guard_key(world)) > 99 * ETHER
    # It looks at its balance once a minute; at its start at once.
    network.daemon.stop()
    network.daemon.start()
    info = network.wait_info(
        lambda info: any(alarm["kind"] == "guard_low" for alarm in info["alarms"])
    )
    network.wait_mode("ready")
    network.merchantctl("coffee", "expire", "--no-wait", world.show(label)["channel"])
    world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert (record.customer_balance, record.closed_by_guard) == (700_000_000, False)
    network.chain.faucet(parse_address(info["guard"]), 100 * ETHER)
    network.chain.increase_time(network.delay + 1)
    world.until(label, status="closed")


def test_a_guards_key_closes_nothing_without_an_expire(world: World, thief: Thief) -> None:
    """With the key and the newest permit an open channel stays open."""
    label = world.establish("1 ETH")
    state, guard = newest_state(world, label), guard_key(world)
    assert thief.refused(state.defend, key=guard) == "status"
    assert thief.refused(state.close, key=guard) == "sender"
    world.pay(label, "0.1 ETH")


@pytest.mark.parametrize("disputed_by", ["merchant", "customer"])
def test_a_stale_close_by_the_stolen_guard_is_void(
    world: World, thief: Thief, disputed_by: str
) -> None:
    """Key, an old dump and an expire close on a state that was left: in vain, and once only.

    Whoever disputes it, nothing is forfeited: the guard is struck off for this channel, and the
    customer's own account closes on the newest state.
    """
    label = world.establish("1 ETH")
    world.pay(label, "0.5 ETH")
    stale, network = newest_state(world, label), world.network
    # After a refund the old state is the poorer one for the customer: only it has a reason to
    # dispute. After a payment it is the merchant that would lose.
    world.pay(label, "0.2 ETH") if disputed_by == "merchant" else world.rpc(
        "refund", label=label, amount="0.3 ETH"
    )
    newest = newest_state(world, label)
    network.daemon.kill()
    network.merchantctl("coffee", "expire", "--no-wait", world_channel(stale.number))
    network.chain.mine()
    assert network.chain.send(guard_key(world), thief.escrow, stale.defend).succeeded
    if disputed_by == "customer":
        network.merchants["coffee"].service.kill()
    network.daemon.start()
    network.wait_mode("ready")
    while True:
        record = world.on_chain(label)
        if record.status is ChannelStatus.CLOSING and not record.closed_by_guard:
            break
        network.chain.mine()
    assert record.guard_struck_off
    assert (record.customer_balance, record.merchant_balance) == newest.balances
    # Struck off for good, whatever it has a permit for.
    assert thief.refused(newest.defend, key=guard_key(world)) == "status"
    network.merchants["coffee"].service.running or network.merchants["coffee"].service.start()
    network.chain.increase_time(network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == newest.balances[0]


def test_the_stolen_guard_may_close_on_the_newest_state(world: World, thief: Thief) -> None:
    """With the newest permit it does what the daemon would have done: nothing is lost."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    state, network = newest_state(world, label), world.network
    network.daemon.kill()
    network.merchantctl("coffee", "expire", "--no-wait", world_channel(state.number))
    network.chain.mine()
    assert network.chain.send(guard_key(world), thief.escrow, state.defend).succeeded
    assert thief.refused(calls.Claim(state.number).encode(), key=guard_key(world)) == "early"
    network.daemon.start()
    network.wait_mode("ready")
    network.chain.increase_time(network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == state.balances[0]


def world_channel(number: int) -> str:
    """A channel's id as commands take it."""
    return f"0x{number:064x}"
