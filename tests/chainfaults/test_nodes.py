"""Nodes that lie, stall, refuse, stand still, fall silent and contradict each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chainfaults.network import FaultyWorld
from tests.chainfaults.proxy import (
    HONEST,
    AnotherBranch,
    Behind,
    DeadWebSocket,
    Fault,
    Flapping,
    Refusing,
    Stalled,
    Status,
)
from zkchannels.chain.opinions import FORK

FAULTS: dict[str, Callable[[int], Fault]] = {
    "500": lambda _: Status(500),
    "-32000": lambda _: Refusing(-32000, "header not found"),
    "stalled": lambda _: Stalled(),
    "hours behind": Behind,
    "flapping head": lambda _: Flapping(),
    "another branch": AnotherBranch,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_expire_is_answered_through_the_honest_node(
    world: FaultyWorld, fault: Callable[[int], Fault]
) -> None:
    """Whatever the preferred node does, the close gets to the chain by way of the other one."""
    label = world.establish("1 ETH")
    world.anvil.mine(2 * FORK)
    world.network.faults(fault(world.anvil.head() - FORK))
    world.expire(label)
    world.until_on_chain(label, "closing")
    world.network.mend()
    world.until(label, chain_status="closing")
    world.until_ended(label)


def test_dead_websockets(world: FaultyWorld) -> None:
    """WebSockets that accept and never speak: heads are seen by looking."""
    label = world.establish("1 ETH")
    world.network.faults(DeadWebSocket(), DeadWebSocket())
    world.expire(label)
    world.until_on_chain(label, "closing")


def test_nothing_is_paid_while_nodes_contradict_each_other(world: FaultyWorld) -> None:
    """No secret leaves on the word of one of two: payments are refused, and it is said why.

    The daemon is ready and lacks the chain alone; getinfo says so. When the nodes agree it pays.
    """
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    world.anvil.mine(2 * FORK)
    world.network.faults(AnotherBranch(world.anvil.head() - FORK - 2))
    alarm = world.until_alarm("nodes_disagree")
    assert "different blocks" in alarm["message"]
    info = world.rpc("getinfo")
    assert (info["mode"], info["missing"]) == ("ready", ["chain_unavailable"])
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "chain_unavailable"
    assert world.balances(label) == (900_000_000, 100_000_000)
    world.network.mend()
    world.anvil.mine()
    world.network.wait_mode("ready")
    world.until_no_alarm("nodes_disagree")
    world.pay(label, "0.1 ETH")
    told = [("raised", "nodes_disagree"), ("cleared", "nodes_disagree")]
    # The event is written a moment after the alarm is gone.
    world.network.wait_info(lambda _: world.alarm_events(None, ["nodes_disagree"])[-2:] == told)


def test_a_lie_hides_an_end_from_nobody(world: FaultyWorld) -> None:
    """An end that one of two nodes denies is not recorded before they agree."""
    label = world.establish("1 ETH")
    world.anvil.mine(2 * FORK)
    world.network.faults(AnotherBranch(world.anvil.head() - FORK - 2))
    world.until_alarm("nodes_disagree")
    world.expire(label)
    world.until_on_chain(label, "closing")
    world.pass_time(world.network.delay + 1)
    world.until_on_chain(label, "closed")
    world.anvil.mine(2 * FORK)
    world.until_alarm("nodes_disagree")
    assert world.show(label)["status"] == "decided"
    world.network.mend()
    world.until_ended(label)
    assert world.on_chain(label).customer_balance == 1_000_000_000


def test_all_nodes_stand_still(world: FaultyWorld) -> None:
    """What nodes that stopped show is not taken for now; with one of them back all goes on."""
    label = world.establish("1 ETH")
    stood = Behind(world.anvil.head())
    world.network.faults(stood, stood)
    world.expire(label)
    world.pass_time(60)
    assert world.show(label)["chain_status"] == "open"
    world.network.faults(stood, HONEST)
    world.until_on_chain(label, "closing")


def test_a_node_that_restarts(own_world: FaultyWorld) -> None:
    """The chain's node ends while a close is awaited, and comes back with its state."""
    world = own_world
    world.everything_runs()
    label = world.establish("1 ETH")
    world.expire(label)
    world.until_on_chain(label, "expiring", "closing")
    world.anvil.stop()
    world.network.wait_info(lambda info: info["missing"] == ["chain_unavailable"])
    world.until_alarm("chain_not_followed")
    assert world.rpc("getinfo")["mode"] == "ready"
    world.anvil.restart()
    world.until_on_chain(label, "closing")
    world.until_no_alarm("chain_not_followed")
    world.network.wait_mode("ready")
    world.until_ended(label)
