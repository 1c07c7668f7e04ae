"""The signer and the daemon disagree about a channel, or the signer is there and cannot sign."""

from __future__ import annotations

import sqlite3

import psycopg

from tests.flow.world import World
from zkchannels.escrow.record import ChannelStatus

_WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"


def _daemon_database(world: World) -> psycopg.Connection[tuple[int]]:
    (dsn,) = (
        line.split('"')[1]
        for line in world.network.config.read_text().splitlines()
        if line.startswith("dsn")
    )
    return psycopg.connect(dsn)


def test_a_signer_one_authorization_ahead_is_followed(world: World) -> None:
    """Killed after the signer accepted the new authorization, the daemon closes on the new state.

    The state before it may never be closed on again: its secret was given to the daemon.
    """
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    with _daemon_database(world) as blocking:
        blocking.execute("lock table state in share mode")
        operation = world.rpc("pay", label=label, amount="0.2 ETH", wait=False)["operation"]
        with psycopg.connect(world.network.cluster.dsn(), autocommit=True) as looking:
            while looking.execute(_WAITS, [blocking.info.dbname]).fetchone() == (0,):
                continue
        world.network.daemon.kill()
        blocking.rollback()
    channel = _channel(world, label)
    escrow = world.network.merchants["coffee"].escrow
    events = len(world.network.chain.logs(escrow))
    world.network.merchantctl("coffee", "expire", "--no-wait", channel)
    while len(world.network.chain.logs(escrow)) == events:
        world.network.chain.mine()
    world.network.daemon.start()
    world.network.wait_mode("ready")
    world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == (700_000_000, 300_000_000)
    assert world.settle(operation)["status"] == "done"
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == 700_000_000


def _channel(world: World, label: str) -> str:
    with _daemon_database(world) as connection:
        row = connection.execute("select channel from channel where label = %s", [label]).fetchone()
    assert row is not None
    return "0x" + bytes(row[0]).hex()  # type: ignore[arg-type]


def test_the_guard_acts_when_an_attached_signer_cannot(world: World) -> None:
    """A signer whose disk refuses to write is attached all the same; the guard closes in time."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    channel = world.show(label)["channel"]
    store = sqlite3.connect(world.network.signer_directory / "signer.sqlite", timeout=20)
    store.execute("begin immediate")
    try:
        world.network.merchantctl("coffee", "expire", "--no-wait", channel)
        world.until(label, chain_status="expiring")
        world.network.chain.increase_time(world.network.delay // 2 + 1)
        world.until(label, chain_status="closing")
    finally:
        store.rollback()
        store.close()
    record = world.on_chain(label)
    assert record.status is ChannelStatus.CLOSING
    assert record.customer_balance == 900_000_000
    world.everything_runs()
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == 900_000_000


def test_an_escrow_the_signer_refuses_leaves_everything_as_it_was(world: World) -> None:
    """A merchant whose word differs from its escrow is refused, and others are paid as before."""
    label = world.establish("1 ETH")
    bakery = world.network.merchants["bakery"].address.rpartition("/")[2]
    host = world.network.merchants["coffee"].address.rpartition("/")[0]
    world.refused("establish", merchant=f"{host}/{bakery}", deposit="1 TEST", label="other")
    world.network.signer.kill()
    world.everything_runs()
    world.pay(label, "0.1 ETH")
