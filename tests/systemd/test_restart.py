"""A restart of the service loses nothing: connections, calls and subscriptions go on."""

from __future__ import annotations

import threading
from typing import Any

from tests.flow.world import World
from tests.systemd.network import BoxedNetwork
from tests.systemd.waiting import until
from zkchannels.jsonrpc.client import BlockingClient


def test_a_payment_that_is_waited_for_is_answered_on_the_same_connection(world: World) -> None:
    """`systemctl restart` in the middle of a payment: the client sees nothing of it but time."""
    network: BoxedNetwork = world.network  # type: ignore[assignment]
    label = world.establish()
    merchant = network.merchants["coffee"].service
    merchant.kill("STOP")
    answers: list[Any] = []
    with (
        BlockingClient(str(network.socket), timeout=60) as paying,
        BlockingClient(str(network.socket), timeout=60) as following,
    ):
        following.call("subscribe", {})
        params = {"label": label, "amount": "0.25 ETH"}
        client = threading.Thread(target=lambda: answers.append(paying.call("pay", params)))
        client.start()
        until(lambda: network.rpc("getinfo")["operations"] == 1)
        before = network.daemon.pid
        network.daemon.restart()
        assert network.daemon.pid != before
        merchant.kill("CONT")
        client.join()
        assert [answer["status"] for answer in answers] == ["done"]
        of_payment = (
            event["kind"]
            for _, event in following.notifications()
            if event["operation"] == answers[0]["operation"]
        )
        assert "done" in of_payment
        assert following.call("getinfo", {})["pid"] == network.daemon.pid
    assert world.balances(label) == (750_000_000, 250_000_000)


def test_a_full_store_of_connections_is_handed_on(network: BoxedNetwork) -> None:
    """As many connections as the daemon hands over, and the unit keeps, outlive a restart."""
    kept = int(network.daemon.show("FileDescriptorStoreMax"))
    clients = [BlockingClient(str(network.socket), timeout=60) for _ in range(300)]
    try:
        for client in clients:
            client.call("getinfo", {})
        network.daemon.restart()
        after = {client.call("getinfo", {})["pid"] for client in clients}
        assert after == {network.daemon.pid}
    finally:
        for client in clients:
            client.close()
    assert kept >= 1000 + 2


def test_a_stop_ends_connections(network: BoxedNetwork) -> None:
    """Nothing is kept for a daemon that is not to come back: its clients see the end."""
    with BlockingClient(str(network.socket), timeout=60) as client:
        client.call("getinfo", {})
        network.box.shell("systemctl", "stop", "customerd.socket", "customerd.service")
        assert list(client.notifications()) == []
    assert network.daemon.show("NFileDescriptorStore") == "0"
