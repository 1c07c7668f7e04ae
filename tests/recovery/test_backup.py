"""Backups: one file, or one per channel behind every commit; restored on another machine."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.flow.world import World
from tests.recovery.support import Machine, dsn_of, rows


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Iterator[Machine]:
    """Another machine of the same customer, with nothing on it but the words."""
    with Machine(world, tmp_path) as machine:
        yield machine


def test_a_backup_and_the_words_restore_every_channel(
    world: World, machine: Machine, tmp_path: Path
) -> None:
    """A stale backup on a new machine: flagged, told, recovered with the merchant, paid on."""
    label, other = world.establish("1 ETH"), world.establish("1 ETH")
    world.pay(label, "0.1 ETH", idempotency_key="one")
    file = tmp_path / "wallet.zkbackup"
    done = world.network.ctl("backup", str(file))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    world.pay(label, "0.2 ETH")
    late = world.show(world.establish("1 ETH"))["channel"]
    machine.take_over()
    new = machine.world
    told = new.rpc("restore", file=str(file))
    assert {each["label"]: each["status"] for each in told["channels"]}[label] == "suspect"
    assert late in told["missing"]
    machine.network.wait_mode("ready")
    assert new.refused("pay", label=label, amount="0.1 ETH")["kind"] == "wrong_status"
    assert new.refused("restore", file=str(file))["kind"] == "not_empty"
    recoveries = {each["channel"]: each for each in new.rpc("recover")["recoveries"]}
    assert {each["status"] for each in recoveries.values()} == {"recovered"}, recoveries
    assert late in recoveries
    assert new.balances(label) == (700_000_000, 300_000_000)
    assert new.show(other)["status"] == "idle"
    new.pay(label, "0.1 ETH")
    again = new.rpc("pay", label=label, amount="0.1 ETH", idempotency_key="one")
    assert again["status"] == "done"
    assert new.balances(label) == (600_000_000, 400_000_000)


def test_a_restored_channel_is_not_closed_alone_while_it_is_open(
    world: World, machine: Machine, tmp_path: Path
) -> None:
    """With the merchant silent a restored channel waits; nothing is closed on the old state."""
    label = world.establish("1 ETH")
    file = tmp_path / "wallet.zkbackup"
    world.rpc("backup", file=str(file))
    world.pay(label, "0.9 ETH")
    merchant = world.network.merchants["coffee"].service
    machine.take_over()
    merchant.kill()
    new = machine.world
    new.rpc("restore", file=str(file))
    machine.network.wait_mode("ready")
    told = new.rpc("recover", label=label, timeout=2)["recoveries"]
    assert [each["status"] for each in told] == ["waiting"]
    assert "close --force" in told[0]["message"]
    closing = new.rpc("close", label=label, wait=False)["operation"]
    for _ in range(5):
        machine.network.chain.mine()
    assert new.show(label)["chain_status"] == "open"
    merchant.start()
    assert new.settle(closing)["status"] == "done"
    assert new.on_chain(label).customer_balance == 100_000_000


def test_a_close_by_force_in_a_backup_is_by_agreement_once_restored(
    world: World, machine: Machine, tmp_path: Path
) -> None:
    """Queued and not decided when the backup was made: a restored state is not closed on for it."""
    label = world.establish("1 ETH")
    file, number = tmp_path / "wallet.zkbackup", bytes(15) + b"\1"
    with psycopg.connect(dsn_of(world)) as connection:
        connection.execute(
            "insert into operation (operation, kind, channel, label, force, parameters)"
            " select %s, 'close', channel, label, true, %s from channel where label = %s",
            [number, bytes(32), label],
        )
        connection.commit()
        world.rpc("backup", file=str(file))
        connection.execute("delete from operation where operation = %s", [number])
    world.pay(label, "0.9 ETH")
    merchant = world.network.merchants["coffee"].service
    merchant.kill()
    machine.take_over()
    new = machine.world
    new.rpc("restore", file=str(file))
    machine.network.wait_mode("ready")
    machine.network.wait_channel(label, lambda channel: channel["status"] == "asked")
    for _ in range(5):
        machine.network.chain.mine()
    assert new.show(label)["chain_status"] == "open"
    merchant.start()


def test_what_is_no_backup_is_refused(world: World, machine: Machine, tmp_path: Path) -> None:
    """Truncated, changed, empty, of another wallet, or not there: each with its own error."""
    world.establish("1 ETH")
    file = tmp_path / "wallet.zkbackup"
    world.rpc("backup", file=str(file))
    data = file.read_bytes()
    machine.take_over()
    new, bad = machine.world, tmp_path / "bad"
    for wrong in (b"", data[:40], data[:-1], data[:-20] + bytes(20), b"PK" + data):
        bad.write_bytes(wrong)
        assert new.refused("restore", file=str(bad))["kind"] == "backup_unusable"
    foreign = data[:12] + bytes([data[12] ^ 1]) + data[13:]
    bad.write_bytes(foreign)
    assert new.refused("restore", file=str(bad))["kind"] == "wrong_wallet"
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty", Path("relative")):
        assert new.refused("restore", file=str(path))["kind"] == "backup_unusable"
    assert new.rpc("list")["channels"] == []
    assert new.refused("backup", file="/nowhere/at/all")["kind"] == "backup_unusable"
    assert b"coffee" not in data
    assert world.network.words.encode() not in data


def test_the_continuous_backup_has_the_newest_state(
    world: World, machine: Machine, tmp_path: Path
) -> None:
    """Every change is in the second place soon; restoring from it yields the newest state."""
    journal = tmp_path / "second"
    network = world.network
    text = network.config.read_text()
    network.config.write_text(text + f'[backup]\ndirectory = "{journal}"\n')
    try:
        network.daemon.stop()
        network.daemon.start()
        network.wait_mode("ready")
        label = world.establish("1 ETH")
        for _ in range(3):
            world.pay(label, "0.1 ETH")
        info = network.wait_info(lambda info: info["backup"]["pending"] == 0)
        assert info["backup"]["trouble"] == ""
        machine.take_over()
    finally:
        network.config.write_text(text)
    new = machine.world
    told = new.rpc("restore", file=str(journal))
    ours = next(each for each in told["channels"] if each["label"] == label)
    assert (ours["index"], ours["stale"]) == (3, False)
    machine.network.wait_mode("ready")
    assert new.rpc("recover", label=label)["recoveries"][0]["status"] == "recovered"
    assert new.balances(label) == (700_000_000, 300_000_000)
    assert rows(new, "select restored, doubtful from channel where label = %s", label) == [
        (True, True)
    ]
    new.pay(label, "0.1 ETH")


def test_a_second_place_that_fails_is_told_and_stops_nothing(world: World, tmp_path: Path) -> None:
    """A directory that cannot be written shows in getinfo; payments go on, and it is caught up."""
    place = tmp_path / "second"
    place.write_text("a file where a directory should be")
    network = world.network
    text = network.config.read_text()
    network.config.write_text(text + f'[backup]\ndirectory = "{place}"\n')
    try:
        network.daemon.stop()
        network.daemon.start()
        network.wait_mode("ready")
        label = world.establish("1 ETH")
        world.pay(label, "0.1 ETH")
        told = network.wait_info(lambda info: info["backup"]["trouble"])
        assert told["backup"]["pending"] > 0
        assert "backup" in network.ctl("getinfo").stdout
        place.unlink()
        network.wait_info(lambda info: info["backup"]["pending"] == 0)
        assert list(place.glob("*.zkbackup"))
    finally:
        network.config.write_text(text)
        network.daemon.stop()


def test_a_stale_backup_is_recognised_by_the_signer(own_world: World, tmp_path: Path) -> None:
    """Only the database is lost: the signer knows more than the backup, which is told and used."""
    world, network = own_world, own_world.network
    label = world.establish("1 ETH")
    file = tmp_path / "wallet.zkbackup"
    world.rpc("backup", file=str(file))
    world.pay(label, "0.1 ETH")
    world.pay(label, "0.1 ETH")
    network.daemon.stop()
    old = dsn_of(world)
    network.cluster.create_database("fresh")
    fresh = network.cluster.dsn("fresh")
    network.config.write_text(network.config.read_text().replace(old, fresh))
    network.daemon.start()
    network.wait_mode("ready")
    assert "channel_missing" in {alarm["kind"] for alarm in world.rpc("getinfo")["alarms"]}
    (told,) = world.rpc("restore", file=str(file))["channels"]
    assert (told["label"], told["index"], told["stale"]) == (label, 0, True)
    network.wait_info(lambda info: info["signer"]["generation"] == 2 and info["mode"] == "ready")
    assert world.balances(label) == (800_000_000, 200_000_000)
    (found,) = world.rpc("recover")["recoveries"]
    assert (found["status"], found["index"]) == ("recovered", 2)
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (700_000_000, 300_000_000)
