"""A database that went back in time is caught up from the signer, and then pays on."""

from __future__ import annotations

from tests.flow.world import World
from tests.recovery.support import SignerCopy, Snapshot, dsn_of, recovered, rows, set_back


def test_an_old_database_is_caught_up_and_pays_on(own_world: World) -> None:
    """Three payments that the restored dump does not know are found again by themselves."""
    world = own_world
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    snapshot = Snapshot(dsn_of(world))
    paid = [world.pay(label, "0.1 ETH", note=str(number))["operation"] for number in range(3)]
    set_back(world, snapshot)
    channel = recovered(world, label)
    assert (channel["customer_balance"]["units"], channel["index"]) == (600_000_000, 4)
    for operation in paid[-2:]:  # as many as the signer remembers
        assert world.rpc("operation", operation=operation)["status"] == "done"
    assert rows(world, "select doubtful from channel") == [(False,)]
    world.pay(label, "0.2 ETH")
    assert world.balances(label) == (400_000_000, 600_000_000)


def test_both_old_unflagged(own_world: World) -> None:
    """Database and signer set back together: the first payment finds out, and nothing is lost."""
    world = own_world
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    signer, snapshot = SignerCopy(world), Snapshot(dsn_of(world))
    world.pay(label, "0.1 ETH")
    world.pay(label, "0.15 ETH")
    set_back(world, snapshot, signer)
    assert world.balances(label) == (900_000_000, 100_000_000)
    world.pay(label, "0.2 ETH")
    assert world.balances(label) == (450_000_000, 550_000_000)
