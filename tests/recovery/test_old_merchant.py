"""A merchant whose records went back in time signs nothing new until it has them all again."""

from __future__ import annotations

from pathlib import Path

from tests.flow.world import World
from tests.recovery.support import Snapshot, merchant_dsn


def _set_back(world: World, snapshot: Snapshot) -> None:
    merchant = world.network.merchants["coffee"].service
    merchant.kill()
    snapshot.restore()
    merchant.start()
    world.network.chain.mine()


def _witness(world: World) -> Path:
    return world.network.merchants["coffee"].config.parent / "merchant.witness"


def _await_witness(world: World) -> None:
    """The file is at most a second behind: wait for what was just recorded to be in it."""
    before = _witness(world).read_bytes()
    while _witness(world).read_bytes() == before:
        world.network.chain.mine()


def test_the_witness_beside_the_key_betrays_old_records(own_world: World) -> None:
    """Old records: nothing new is signed, old answers are given; with the newest all is well."""
    world = own_world
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    old = Snapshot(merchant_dsn(world))
    world.pay(label, "0.1 ETH")
    _await_witness(world)
    newest = Snapshot(merchant_dsn(world))
    _set_back(world, old)
    refusal = world.refused("pay", label=label, amount="0.1 ETH")
    assert "incomplete" in refusal["message"]
    assert "records_went_back" in world.network.merchants["coffee"].service.log.read_text()
    assert world.balances(label) == (800_000_000, 200_000_000)
    _set_back(world, newest)
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (700_000_000, 300_000_000)


def test_the_chain_betrays_records_without_a_witness(own_world: World) -> None:
    """A close of a channel that nobody recorded shows that records are missing."""
    world = own_world
    label = world.establish("1 ETH")
    old = Snapshot(merchant_dsn(world))
    forgotten = world.establish("1 ETH")
    closing = world.rpc("close", label=forgotten, force=True, wait=False)["operation"]
    assert world.settle(closing)["status"] == "done"
    world.network.merchants["coffee"].service.kill()
    _witness(world).unlink()
    _set_back(world, old)
    log = world.network.merchants["coffee"].service.log
    while "records_went_back" not in log.read_text():
        world.network.chain.mine()
    assert "incomplete" in world.refused("pay", label=label, amount="0.1 ETH")["message"]
