"""Two daemons on one database: one acts, the other takes over when the first does not act."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.flow.world import World
from tests.postgres.conftest import LEASE
from tests.postgres.network import ProxiedNetwork, Second, events
from tests.postgres.payments import AT_ONCE, check_paid_once, execute, merchant_books, queue, until
from zkchannels.jsonrpc.errors import RpcError


@contextmanager
def standby(network: ProxiedNetwork, *, direct: bool = False) -> Iterator[Second]:
    """Run a second daemon that stands by; at the end the first one acts again."""
    second = Second(network, dsn=network.direct("customerd") if direct else None)
    second.service.start(timeout=60)
    try:
        yield second
    finally:
        second.signer.stop()
        second.roaming.stop()
        second.service.stop()


def _takeover(second: Second, since: float) -> float:
    """Return how many seconds after `since` the second daemon began to act."""
    until(lambda: second.rpc("getinfo")["mode"] != "standby")
    seconds = time.monotonic() - since
    print(f"\ntakeover after {seconds:.2f} s with a lease of {LEASE} s")  # noqa: T201
    return seconds


def _moved(network: ProxiedNetwork) -> object:
    """Return all that the first daemon could move: its operations, the merchant's books."""
    with psycopg.connect(network.direct("customerd"), autocommit=True) as connection:
        rows = connection.execute(
            "select operation, status, step, updated from operation order by number"
        ).fetchall()
    with psycopg.connect(network.direct("coffee"), autocommit=True) as connection:
        sessions = connection.execute("select count(*) from payment").fetchall()
    return rows, sessions, merchant_books(network), network.chain.call("txpool_status")


def test_the_second_daemon_stands_by_and_says_so(world: World, network: ProxiedNetwork) -> None:
    """A standby is ready for systemd, says whom it waits for, and refuses what acts or reads."""
    with standby(network) as second:
        told = "".join(second.service.told)
        assert "READY=1\nSTATUS=standing by: another daemon holds the lease" in told
        assert str(network.socket) in told
        assert second.rpc("getinfo")["mode"] == "standby"
        with pytest.raises(RpcError) as caught:
            second.rpc("list")
        assert isinstance(caught.value.data, dict)
        assert caught.value.data["kind"] == "not_ready"
        world.pay(world.establish("1 ETH"), 1)
        # A lease that is given up is taken at once, not at its end.
        network.daemon.stop()
        assert _takeover(second, time.monotonic()) < AT_ONCE


@pytest.mark.parametrize("delay", [0.0, 0.02], ids=["fast", "slow"])
def test_kill_and_takeover(world: World, network: ProxiedNetwork, delay: float) -> None:
    """After kill -9 the other acts within the lease time; with a signer it pays what is left."""
    label = world.establish("1 ETH")
    with standby(network) as second:
        network.proxies["customerd"].delay = delay
        try:
            operations = queue(world, label, 8)
            network.daemon.kill()
            assert _takeover(second, time.monotonic()) < LEASE + AT_ONCE
            network.signer.stop()
            second.signer.start(timeout=60)
            for operation in operations:
                assert second.rpc("wait", operation=operation, timeout=60)["status"] == "done"
        finally:
            network.proxies["customerd"].delay = 0.0
        second.signer.stop()
        second.service.stop()
        world.everything_runs()
        check_paid_once(world, label, operations)


def test_the_signer_finds_the_daemon_that_acts(world: World, network: ProxiedNetwork) -> None:
    """Told of both daemons, it goes to the one that took over by itself; payments go on there."""
    label = world.establish("1 ETH")
    network.signer.stop()
    with standby(network) as second:
        second.roaming.start()
        network.wait_mode("ready")
        operations = queue(world, label, 8)
        network.daemon.kill()
        killed = time.monotonic()
        for operation in operations:
            until(lambda: second.rpc("getinfo")["mode"] == "ready")
            assert second.rpc("wait", operation=operation, timeout=60)["status"] == "done"
        last = second.rpc("pay", label=label, amount=5)
        assert last["status"] == "done"
        print(f"\npaid {time.monotonic() - killed:.2f} s after the kill")  # noqa: T201
        assert any(line["event"] == "daemon_stands_by" for line in events(second.roaming.log))
        # Back again: the first daemon stands by, then acts, and is found as well.
        network.daemon.start()
        second.service.stop()
        network.wait_mode("ready")
        second.roaming.stop()
        world.everything_runs()
        check_paid_once(world, label, [*operations, last["operation"]])


def _outlived(
    world: World, network: ProxiedNetwork, second: Second, wake: Callable[[], None]
) -> None:
    """Wake the first daemon after the other took over: it moves nothing, says so, and ends."""
    before = _moved(network)
    wake()
    assert network.daemon.wait(60) == 1
    assert any(line["event"] == "lease_lost" for line in events(network.daemon.log))
    assert _moved(network) == before
    network.signer.stop()
    second.signer.stop()
    second.service.stop()
    world.everything_runs()


def test_a_daemon_that_slept_moves_nothing(world: World, network: ProxiedNetwork) -> None:
    """Stopped past its lease and continued, the first daemon neither writes nor sends: it ends."""
    label = world.establish("1 ETH")
    with standby(network) as second:
        operations = queue(world, label, 8)
        os.kill(network.daemon.pid, signal.SIGSTOP)
        assert _takeover(second, time.monotonic()) < 2 * LEASE + AT_ONCE
        wake = network.daemon.pid
        _outlived(world, network, second, lambda: os.kill(wake, signal.SIGCONT))
        check_paid_once(world, label, operations)


def test_a_lease_lost_inside_a_commit(world: World, network: ProxiedNetwork) -> None:
    """A COMMIT that arrives after the other took over commits nothing; its daemon ends."""
    label = world.establish("1 ETH")
    proxy = network.proxies["customerd"]
    with standby(network, direct=True) as second:
        proxy.hold()
        try:
            assert _takeover(second, time.monotonic()) < 2 * LEASE + AT_ONCE
            _outlived(world, network, second, proxy.release)
        finally:
            proxy.release()
        check_paid_once(world, label, queue(world, label, 1))


def test_a_clock_that_was_set_back(world: World, network: ProxiedNetwork) -> None:
    """A lease that seems to end tomorrow is taken all the same when nobody renews it."""
    with standby(network) as second:
        network.daemon.kill()
        killed = time.monotonic()
        execute(network.direct("customerd"), "update lease set expires = now() + interval '1 day'")
        assert _takeover(second, killed) < 3 * LEASE + AT_ONCE
    world.everything_runs()


def test_a_clock_that_jumped_ahead(world: World, network: ProxiedNetwork) -> None:
    """A lease that is over by the server's clock, and that nobody took, is simply renewed."""
    label = world.establish("1 ETH")
    execute(network.direct("customerd"), "update lease set expires = now() - interval '1 day'")
    world.pay(label, 1000)
    assert network.daemon.running
