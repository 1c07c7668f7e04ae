"""Disks fill up: PostgreSQL's, the signer's, the log's. Nothing is lost, and room is enough."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.flow.world import World
from tests.postgres.conftest import LEASE
from tests.postgres.network import ProxiedNetwork
from tests.postgres.payments import check_paid_once, execute, queue, until
from zkchannels.devnet.postgres import RESTARTABLE
from zkchannels.devnet.service import Service

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


class Disk:
    """A small disk that can be filled and freed."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", str(place)]
        subprocess.run(command, check=True)

    def unmount(self) -> None:
        """Take the disk away."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the disk to its last byte; free it at the end."""
        ballast = self.place / "ballast"
        with ballast.open("wb", buffering=0) as file:
            block = bytes(1 << 20)
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]
        try:
            yield
        finally:
            ballast.unlink()


class SmallNetwork(ProxiedNetwork):
    """A network whose PostgreSQL and whose signer have a small disk each."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, postgres=RESTARTABLE, lease=LEASE)
        self.server_disk = Disk(directory / "postgres", 160)
        self.signer_disk = Disk(directory / "signer", 4)


@pytest.fixture
def network(memory_directory: Path) -> Iterator[SmallNetwork]:
    """A network on small disks."""
    network = SmallNetwork(memory_directory / "small")
    try:
        with network:
            yield network
    finally:
        network.server_disk.unmount()
        network.signer_disk.unmount()


def test_full_disks(network: SmallNetwork) -> None:
    """Full disks of server, signer and log: what needs room waits or is refused, then goes on."""
    world = World(network, prefix="full")
    world.everything_runs()
    label = world.establish("1 ETH")
    _logs_to_a_full_disk(world, network, label)
    _signer_without_room(world, network, label)
    _server_without_room(world, network, label)


def _logs_to_a_full_disk(world: World, network: SmallNetwork, label: str) -> None:
    """A daemon whose standard error takes nothing works as ever."""
    merchant = network.merchants["coffee"].service
    for service in (network.daemon, network.signer, merchant):
        service.stop()
    mute = [
        Service(service.name, service.command, log=Path("/dev/full"))
        for service in (merchant, network.daemon, network.signer)
    ]
    try:
        for service in mute:
            service.start(timeout=60)
        network.wait_mode("ready")
        check_paid_once(world, label, queue(world, label, 3))
        assert all(service.running for service in mute)
    finally:
        for service in mute:
            service.stop()
    world.everything_runs()


def _signer_without_room(world: World, network: SmallNetwork, label: str) -> None:
    """A signer that cannot write signs nothing; the payment waits and is made with room again."""
    before = world.balances(label)
    with network.signer_disk.full():
        operations = queue(world, label, 1)
        until(lambda: "operation_rests" in network.daemon.last_lines(5))
        assert world.rpc("operation", operation=operations[0])["status"] in ("queued", "running")
        assert world.balances(label) == before
    assert world.rpc("wait", operation=operations[0], timeout=60)["status"] == "done"
    assert world.balances(label) == (before[0] - 1000, before[1] + 1000)


def _server_without_room(world: World, network: SmallNetwork, label: str) -> None:
    """A server that panics for want of room loses nothing: freed and started, all goes on."""
    before = world.balances(label)
    with network.server_disk.full():
        # The next segment of the write-ahead log does not fit: the server panics, and again at
        # each recovery.
        until(lambda: not _written(network))
        network.wait_info(lambda info: not info["database"])
        assert world.refused("pay", label=label, amount=1)["kind"] == "database_unavailable"
    network.cluster.restart()
    network.wait_mode("ready")
    assert world.balances(label) == before
    world.pay(label, 5)
    assert world.balances(label) == (before[0] - 5, before[1] + 5)


def _written(network: SmallNetwork) -> bool:
    """Write a megabyte to the server's log; tell whether there was a server and room for it."""
    try:
        execute(
            network.cluster.dsn(), "select pg_logical_emit_message(false, '', repeat('x', 1000000))"
        )
    except psycopg.OperationalError:
        return False
    return True
