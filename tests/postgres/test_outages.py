"""The server is killed, restarted, paused, and its sessions ended, at any time."""

from __future__ import annotations

import itertools
import signal
import time

import pytest

from tests.flow.world import World
from tests.postgres.network import ProxiedNetwork, events
from tests.postgres.payments import (
    check_paid_once,
    merchant_books,
    queue,
    refused_at_once,
    settled,
    terminate,
)
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient

HUNG_WITHIN = 20.0
"""Seconds after which nobody waits for a server that hangs."""


def _after_payments(network: ProxiedNetwork, count: int) -> None:
    """Return once so many more payments are done."""
    with BlockingClient(str(network.socket), timeout=60) as client:
        client.call("subscribe", {"topics": ["operation"]})
        done = (event for _, event in client.notifications() if event["kind"] == "done")
        list(itertools.islice(done, count))


@pytest.mark.parametrize(
    "order", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT], ids=lambda order: order.name
)
def test_killed_or_restarted_during_payments(
    world: World, network: ProxiedNetwork, order: signal.Signals
) -> None:
    """The server goes under a stream of payments: all done once it is back, each paid once."""
    label = world.establish("1 ETH")
    before = merchant_books(network)
    operations = queue(world, label, 12)
    _after_payments(network, 2)
    network.cluster.restart(order)
    check_paid_once(world, label, operations)
    done = [settled(world, operation) for operation in operations]
    paid = [row["amount"]["units"] for row in done if row["status"] == "done"]
    count, total = merchant_books(network)
    assert (count - before[0], total - before[1]) == (len(paid) + 1, sum(paid) + 7)


def test_away_at_idle(world: World, network: ProxiedNetwork) -> None:
    """Without the server every call is answered at once, refused if it needs the server."""
    label = world.establish("1 ETH")
    network.cluster.kill()
    network.wait_info(lambda info: not info["database"])
    refused_at_once(world, label)
    assert world.refused("list")["kind"] == "database_unavailable"
    network.cluster.restart()
    network.wait_mode("ready")
    world.pay(label, "0.1 ETH")


def test_hanging_during_payments(world: World, network: ProxiedNetwork) -> None:
    """A server that answers nothing is given up in seconds; when it goes on, so does everything."""
    label = world.establish("1 ETH")
    operations = queue(world, label, 12)
    _after_payments(network, 2)
    network.cluster.pause()
    try:
        before = time.monotonic()
        kind = world.refused("show", label=label)["kind"]
        assert kind == "database_unavailable"
        assert time.monotonic() - before < HUNG_WITHIN
        refused_at_once(world, label)
    finally:
        network.cluster.resume()
    check_paid_once(world, label, operations)


def test_gone_and_hanging_while_the_daemons_stop(world: World, network: ProxiedNetwork) -> None:
    """Neither daemon waits for a server that is gone or hangs when it is told to stop."""
    services: list[Service] = [network.daemon, network.merchants["coffee"].service]
    network.cluster.pause()
    try:
        for service in services:
            assert service.stop(timeout=60) == 0
    finally:
        network.cluster.resume()
    for service in services:
        service.start()
    network.cluster.kill()
    for service in services:
        assert service.stop(timeout=60) == 0
    network.cluster.restart()
    world.everything_runs()


def test_away_while_the_daemons_start(world: World, network: ProxiedNetwork) -> None:
    """Started without a server both daemons wait, ask systemd for patience, and then serve."""
    label = world.establish("1 ETH")
    services: list[Service] = [network.daemon, network.merchants["coffee"].service]
    for service in services:
        service.kill()
    network.cluster.kill()
    for service in services:
        service.launch()
    for service in services:
        service.wait_told("EXTEND_TIMEOUT_USEC=")
        assert any("STATUS=waiting for PostgreSQL" in text for text in service.told)
    info = network.rpc("getinfo")
    assert (info["mode"], info["database"]) == ("starting", False)
    assert world.refused("pay", label=label, amount=1)["kind"] == "not_ready"
    network.cluster.restart()
    for service in services:
        service.wait_told("READY=1")
    network.wait_mode("ready")
    world.pay(label, "0.1 ETH")


def test_sessions_ended_at_random(world: World, network: ProxiedNetwork) -> None:
    """All sessions of both daemons are ended again and again: each payment is made, once."""
    label = world.establish("1 ETH")
    operations = queue(world, label, 20)
    for _ in range(6):
        for name in ("customerd", "coffee"):
            terminate(network.cluster.dsn(), network.database(name))
        network.rpc("getinfo")
    check_paid_once(world, label, operations)
    for service in (network.daemon, network.merchants["coffee"].service):
        assert service.running
        assert not [line for line in events(service.log) if line["event"] == "failed"]
