"""A database that went back in time is caught up from the signer, and then pays on."""

from __future__ import annotations

import os

import psycopg

from tests.flow.world import World
from tests.recovery.support import SignerCopy, Snapshot, dsn_of, recovered, rows, set_back


def test_an_old_database_is_caught_up_and_pays_on(own_world: World) -> None:
    """Three payments that the restored dump does not know are found again by themselves."""
    world = own_world
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    snapshot = Snapshot(dsn_of(world))
    lost = world.show(world.establish("1 ETH"))["channel"]
    paid = [world.pay(label, "0.1 ETH", note=str(number))["operation"] for number in range(3)]
    set_back(world, snapshot)
    channel = recovered(world, label)
    assert (channel["customer_balance"]["units"], channel["index"]) == (600_000_000, 4)
    for operation in paid[-2:]:  # as many as the signer remembers
        assert world.rpc("operation", operation=operation)["status"] == "done"
    assert rows(world, "select doubtful from channel") == [(False,)]
    world.pay(label, "0.2 ETH")
    assert world.balances(label) == (400_000_000, 600_000_000)
    assert any(lost in alarm["message"] for alarm in world.rpc("getinfo")["alarms"])
    (found,) = world.rpc("recover")["recoveries"]
    assert (found["channel"], found["status"], found["message"]) == (lost, "recovered", "")
    world.pay(found["label"], "0.1 ETH")


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


def test_what_was_queued_waits_for_a_word(own_world: World) -> None:
    """An operation that an old dump brings back is held until it is resumed, or cancelled."""
    world = own_world
    label = world.establish("1 ETH")
    snapshot = Snapshot(dsn_of(world))
    world.pay(label, "0.1 ETH")
    world.network.daemon.kill()
    snapshot.restore()
    first, second = os.urandom(16), os.urandom(16)
    with psycopg.connect(dsn_of(world)) as connection:
        for operation, amount in ((first, 1000), (second, 2000)):
            connection.execute(
                "insert into operation (operation, kind, channel, label, amount, parameters)"
                " select %s, 'pay', channel, label, %s, %s from channel",
                (operation, amount, bytes(32)),
            )
    world.network.daemon.start()
    world.network.wait_mode("ready")
    recovered(world, label)
    for operation in (first, second):
        shown = world.rpc("operation", operation=operation.hex())
        assert (shown["status"], shown["held"]) == ("queued", True)
    world.pay(label, "0.1 ETH")
    assert world.rpc("cancel", operation=second.hex())["status"] == "cancelled"
    assert world.refused("resume", operation=second.hex())["kind"] == "not_found"
    assert world.rpc("resume") == {"operations": [first.hex()]}
    assert world.rpc("wait", operation=first.hex())["status"] == "done"
    assert world.balances(label) == (799_999_000, 200_001_000)
