"""PostgreSQL and the chain node go away: typed errors at once, and no harm once they are back."""

from __future__ import annotations

import os
import signal

from tests.flow.world import World
from zkchannels.devnet.anvil import Anvil


def test_postgresql_killed_and_restarted(own_world: World) -> None:
    """Without PostgreSQL calls are refused as such; with it back operations go on."""
    world = own_world
    world.everything_runs()
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    os.kill(world.network.cluster.pid, signal.SIGKILL)
    # A session may outlive the killed server for a moment, and write what it is asked to.
    world.network.wait_info(lambda info: not info["database"])
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "database_unavailable"
    assert world.refused("list")["kind"] == "database_unavailable"
    info = world.rpc("getinfo")
    assert info["database"] is False
    assert info["mode"] == "safe"
    world.network.cluster.restart()
    world.network.wait_mode("ready")
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (800_000_000, 200_000_000)


def test_the_chain_node_goes_away_and_comes_back(own_world: World) -> None:
    """Without the node nothing new is bound: channels are refused until it is followed again."""
    world = own_world
    world.everything_runs()
    label = world.establish("1 ETH")
    chain = world.network.chain
    assert isinstance(chain, Anvil)
    chain.stop()
    world.network.wait_info(lambda info: not info["chain"]["following"])
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "chain_unavailable"
    refusal = world.refused(
        "establish",
        merchant=world.network.merchants["coffee"].address,
        deposit="1 ETH",
        label="other",
    )
    assert refusal["kind"] == "chain_unavailable"
    assert world.rpc("list")["channels"][0]["label"] == label
    chain.restart()
    chain.mine()
    world.network.wait_mode("ready")
    world.pay(label, "0.1 ETH")
