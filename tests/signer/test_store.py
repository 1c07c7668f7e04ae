"""The record on the disk: what is written comes back, nothing goes back, nobody else reads it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customersigner import decide
from customersigner.errors import StoreError, StoreUnavailable
from customersigner.record import Accepted, Channel, Closing, Escrow, Step, Terms
from customersigner.store import Store

IDENTITY = b"\x1d" * 20
ESCROW = Escrow(31337, b"\xe5" * 20, b"\x33" * 20, bytes(20), 2**128, b"\x01" * 240, b"\x02" * 1792)
LARGEST = 2**63 - 1


def terms(number: int, customer: int = 100, merchant: int = 20) -> Terms:
    """The terms of one of many channels."""
    channel = number.to_bytes(32)
    return Terms(channel, ESCROW.chain_id, ESCROW.escrow, b"\x05" * 32, customer, merchant)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "signer.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A store with one escrow."""
    store = Store.open(path, IDENTITY)
    store.put_escrow(ESCROW)
    yield store
    store.close()


operations = st.binary(min_size=16, max_size=16)


@st.composite
def channels(draw: Any) -> Channel:
    """Records as the decisions make them, up to the largest numbers."""
    total = draw(st.sampled_from([0, 120, LARGEST]))
    customer = draw(st.integers(0, total))
    channel = Channel(terms(draw(st.integers(0, 2**256 - 1)), customer, total - customer))
    index = draw(st.sampled_from([None, 0, 1, 2**62]))
    if index is None:
        return replace(
            channel, attempts=(Step(0, 0, draw(operations), 0, customer, total - customer),)
        )
    balance = draw(st.integers(0, total))
    amount = draw(st.integers(-balance, total - balance)) if index else 0
    step = Step(
        index,
        draw(st.integers(0, 2**32 - 1)) if index else 0,
        draw(operations),
        amount,
        balance,
        total - balance,
    )
    accepted = Accepted(
        step,
        decide.before(step, draw(st.integers(0, 9)), draw(operations), draw(st.integers(-9, 9)))
        if index
        else None,
        draw(st.integers(0, 2**253 - 1)),
        draw(st.binary(min_size=256, max_size=256)),
        draw(st.binary(min_size=20, max_size=20)),
        draw(st.binary(min_size=65, max_size=65)),
    )
    attempts = tuple(
        decide.after(step, number, draw(operations), draw(st.integers(-total + balance, balance)))
        for number in range(draw(st.integers(0, 3)))
    )
    closing = st.builds(
        Closing, st.integers(0, index), mutual=st.booleans(), unilateral=st.booleans()
    )
    return replace(
        channel,
        accepted=accepted,
        attempts=attempts,
        completed=draw(st.none() | st.integers(0, index)),
        closing=draw(st.none() | closing),
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(channel=channels())
def test_a_record_comes_back_as_it_was_written(path: Path, channel: Channel) -> None:
    """Every record that decisions can make survives the disk unchanged, largest numbers too."""
    for file in path.parent.iterdir():
        file.unlink()
    store = Store.open(path, IDENTITY)
    store.put_escrow(ESCROW)
    store.put(channel)
    store.close()
    again = Store.open(path, IDENTITY)
    assert again.channel(channel.terms.channel) == channel
    assert again.escrows() == [ESCROW]
    again.close()


def at(index: int, number: int = 1) -> Channel:
    """A record with an accepted authorization."""
    step = Step(index, 0, b"\x01" * 16, 0, 60, 60)
    previous = decide.before(step, 0, b"\x02" * 16, 0) if index else None
    accepted = Accepted(step, previous, 5, b"\x03" * 256, b"\x04" * 20, b"\x05" * 65)
    return Channel(terms(number), accepted=accepted, completed=index)


@pytest.mark.parametrize(
    "older",
    [
        at(1),
        replace(at(2), completed=None),
        replace(at(2), terms=terms(1, 99, 21)),
        Channel(terms(1), attempts=(Step(0, 0, b"\x01" * 16, 0, 100, 20),)),
    ],
)
def test_a_record_never_goes_back(store: Store, older: Channel) -> None:
    """The database itself refuses an older record, other terms, or a forgotten token."""
    store.put(at(2))
    with pytest.raises(sqlite3.IntegrityError):
        store.put(older)
    assert store.channel(at(2).terms.channel) == at(2)


def test_a_close_is_never_forgotten(store: Store, path: Path) -> None:
    """Neither a write without it nor a deletion by hand takes a signed close away."""
    closed = replace(at(2), closing=Closing(2, mutual=True, unilateral=False))
    store.put(closed)
    with pytest.raises(sqlite3.IntegrityError):
        store.put(at(2))
    by_hand = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        by_hand.execute("DELETE FROM channel")
    by_hand.close()
    assert store.channel(closed.terms.channel) == closed


def test_balances_must_add_up_on_the_disk_too(store: Store) -> None:
    """A record whose shares are not the deposits is refused as a whole."""
    wrong = at(1)
    assert wrong.accepted is not None
    step = replace(wrong.accepted.step, customer_balance=61)
    wrong = replace(wrong, accepted=replace(wrong.accepted, step=step))
    with pytest.raises(sqlite3.IntegrityError):
        store.put(wrong)
    assert store.channel(wrong.terms.channel) is None


def test_attempts_go_with_the_state_they_left(store: Store) -> None:
    """Accepting a state removes the attempts that led there and keeps later ones."""
    first = Step(0, 0, b"\x01" * 16, 0, 100, 20)
    channel = Channel(terms(1), attempts=(first,))
    store.put(channel)
    channel = decide.accept(
        channel, first, lock=1, signature=bytes(256), guard=bytes(20), permit=bytes(65)
    )
    channel = decide.complete(channel, 0, 0)
    for attempt in range(3):
        channel = decide.pay(
            channel, index=1, attempt=attempt, operation=bytes(16), amount=attempt
        ).channel
    store.put(channel)
    found = store.channel(channel.terms.channel)
    assert found == channel
    assert [step.amount for step in found.attempts] == [0, 1, 2]


def test_deposits_count_once_there_is_a_way_out(store: Store) -> None:
    """Only channels with a closing authorization bind money, each in its own escrow."""
    store.put(at(1, number=1))
    store.put(replace(at(0, number=2)))
    store.put(Channel(terms(3), attempts=(Step(0, 0, b"\x01" * 16, 0, 100, 20),)))
    assert store.committed(ESCROW.chain_id, ESCROW.escrow) == 200
    assert store.committed(1, ESCROW.escrow) == 0


def test_every_write_is_synced(store: Store) -> None:
    """The settings that make a write durable before it returns are in force."""
    connection = store._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_files_are_for_their_owner_alone(store: Store, path: Path) -> None:
    """Database, journal and lock have mode 0600, and a database open to others is refused."""
    store.put(at(1))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    store.close()
    path.chmod(0o660)
    with pytest.raises(StoreError, match="0600"):
        Store.open(path, IDENTITY)


def test_one_writer_many_readers(store: Store, path: Path) -> None:
    """A second writer is refused while the first is open; reading beside it works."""
    with pytest.raises(StoreError, match="another signer"):
        Store.open(path, IDENTITY)
    store.put(at(1))
    reader = Store.read(path, IDENTITY)
    assert reader.channels(b"", 10) == [at(1)]
    with pytest.raises(StoreUnavailable):
        reader.put(at(2))
    reader.close()


@pytest.mark.parametrize("damage", ["identity", "version", "application", "text"])
def test_what_is_not_this_signers_store_is_refused(store: Store, path: Path, damage: str) -> None:
    """Another wallet, version or kind of file is refused by writer and reader alike."""
    identity = IDENTITY
    if damage == "identity":
        identity = b"\x2d" * 20
    elif damage == "version":
        store._connection.execute("PRAGMA user_version = 99")
    elif damage == "application":
        store._connection.execute("PRAGMA application_id = 7")
    store.close()
    if damage == "text":
        path.write_bytes(b"this is not a database" * 100)
    for start in (Store.open, Store.read):
        with pytest.raises(StoreError):
            start(path, identity)


def test_a_missing_store_is_not_made_by_reading(tmp_path: Path) -> None:
    """Reading never creates a file."""
    with pytest.raises(StoreError, match="does not exist"):
        Store.read(tmp_path / "none.sqlite", IDENTITY)
    assert not list(tmp_path.iterdir())
