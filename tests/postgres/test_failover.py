"""The primary dies under payments and a standby takes its place: one that lost nothing, or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.world import ETHER_UNITS, World
from tests.nursery import ForkedNetwork
from tests.postgres.conftest import LEASE
from tests.postgres.payments import check_paid_once, mined, queue, settled
from zkchannels.devnet.postgres import RESTARTABLE, Cluster


class ReplicatedNetwork(ForkedNetwork):
    """A network whose daemon knows a primary and its standby; the merchant has another server."""

    def __init__(self, directory: Path, merchants_server: Cluster, **more: Any) -> None:
        super().__init__(directory, merchants=("coffee",), postgres=RESTARTABLE, **more)
        self._merchants_server = merchants_server
        self.standby: Cluster
        self._copy: Cluster

    def start_postgres(self) -> None:
        """Start both servers; commits wait for the standby."""
        super().start_postgres()
        self.standby = self.cluster.make_standby(self.directory / "standby")
        self._stack.enter_context(self.standby)
        self.cluster.wait_for_standbys("*")

    def copy_for_later(self) -> None:
        """Copy the promoted server; what it commits from now on the copy lacks."""
        self.standby.wait_for_standbys("")
        self._copy = self.standby.make_standby(self.directory / "copy")

    def start_copy(self) -> None:
        """Make the copy the primary, at the address of the first, which is gone for good."""
        self.cluster.stop()
        self._copy.answer_at(self.cluster.sockets)
        self._stack.enter_context(self._copy)
        self._copy.promote()

    def _database(self, name: str) -> str:
        database = f"{name}_{self._databases}"
        if name != "customerd":
            self._merchants_server.create_database(database)
            return self._merchants_server.dsn(database)
        self.cluster.create_database(database)
        return self.cluster.dsn(database, standbys=[self.standby])


@pytest.fixture
def replicated(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[World]:
    """A world over a primary and a standby of the test's own."""
    directory = memory_directory / "replicated"
    with ReplicatedNetwork(directory, postgres_cluster, lease=LEASE) as network:
        world = World(network, prefix="replicated")
        world.everything_runs()
        yield world


def test_failover_without_and_with_loss(replicated: World) -> None:
    """To a synchronous standby nothing is lost; one that was behind leaves a channel to recover.

    The second half goes from the promoted server to a copy of it that is older than three payments:
    what it lacks only signer and merchant know.
    """
    world, network = replicated, replicated.network
    assert isinstance(network, ReplicatedNetwork)
    label = world.establish("1 ETH")
    operations = queue(world, label, 12)
    network.cluster.kill()
    network.standby.promote()
    network.wait_mode("ready")
    check_paid_once(world, label, operations)

    network.copy_for_later()
    paid = [settled(world, operation) for operation in queue(world, label, 3)]
    assert [row["status"] for row in paid] == ["done"] * 3
    held = world.balances(label)
    network.standby.kill()
    network.start_copy()
    network.wait_mode("ready")
    channel = network.wait_channel(
        label, lambda channel: channel["status"] in ("suspect", "idle", "closed")
    )
    if channel["status"] == "suspect":
        assert world.refused("pay", label=label, amount=1)["kind"] == "wrong_status"
    assert world.balances(label) == held
    closing = world.rpc("close", label=label, wait=False)["operation"]
    assert mined(world, closing)["status"] == "done"
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == held
    assert sum(held) == ETHER_UNITS
