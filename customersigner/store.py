"""The signer's durable record: one SQLite file, one writer, on the disk before a write returns."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

from customersigner.decide import after, before
from customersigner.errors import StoreError, StoreUnavailable
from customersigner.record import Accepted, Channel, Closing, Escrow, Step, Terms
from customersigner.usage import DAY, Entry, Kind

VERSION: Final = 2
_APPLICATION: Final = 0x7A6B7331
"""SQLite's application id: says that the file is a signer's store ("zks1")."""

_CHANNEL_COLUMNS: Final = (
    "channel, chain_id, escrow, salt, customer_deposit, merchant_deposit, state_index,"
    " state_attempt, state_operation, state_amount, customer_balance, merchant_balance, lock,"
    " signature, guard, permit, previous_attempt, previous_operation, previous_amount, completed,"
    " closing, closing_mutual, closing_unilateral"
)
_UPDATED: Final = [name.strip() for name in _CHANNEL_COLUMNS.split(",")][1:]
_INSERT_CHANNEL: Final = (
    f"INSERT INTO channel ({_CHANNEL_COLUMNS}) VALUES ({', '.join('?' * 23)})"  # noqa: S608
    f" ON CONFLICT (channel) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _UPDATED)}"
)


class Store:
    """The records of one wallet. Use it from one thread at a time.

    Raises StoreUnavailable when SQLite cannot read or write; nothing was written then.
    """

    def __init__(self, connection: sqlite3.Connection, lock: int | None = None) -> None:
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path, identity: bytes) -> Self:
        """Open or create the store of the wallet with this identity, as its only writer.

        Raises StoreError when it is in use, belongs to another wallet or version, or when others
        than its owner may read it.
        """
        lock = _lock_file(path.with_suffix(".lock"))
        try:
            _check_mode(path)
            store = cls(_connect(f"{path.absolute().as_uri()}?mode=rw"), lock)
            store._prepare(identity)
        except BaseException:
            os.close(lock)
            raise
        return store

    @classmethod
    def read(cls, path: Path, identity: bytes) -> Self:
        """Open an existing store for reading, beside its writer. Raises StoreError."""
        if not path.exists():
            raise StoreError(f"{path} does not exist")
        store = cls(_connect(f"{path.absolute().as_uri()}?mode=ro"))
        store._check(identity)
        return store

    def close(self) -> None:
        """Close the file and let others write."""
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def escrow(self, chain_id: int, escrow: bytes) -> Escrow | None:
        """A registered escrow."""
        rows = self._escrows("chain_id = ? AND escrow = ?", chain_id, escrow)
        return rows[0] if rows else None

    def escrows_of(self, chain_id: int, token: bytes) -> list[Escrow]:
        """The registered escrows that hold a token."""
        return self._escrows("chain_id = ? AND token = ?", chain_id, token)

    def escrows(self) -> list[Escrow]:
        """All registered escrows."""
        return self._escrows("true")

    def put_escrow(self, escrow: Escrow) -> None:
        """Register an escrow for good."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO escrow (chain_id, escrow, merchant, token, unit, g1_half, escrow_key)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    escrow.chain_id,
                    escrow.escrow,
                    escrow.merchant,
                    escrow.token,
                    escrow.unit.to_bytes(32),
                    escrow.g1_half,
                    escrow.escrow_key,
                ),
            )

    def channel(self, channel: bytes) -> Channel | None:
        """The record of one channel."""
        rows = self._channels("channel = ?", channel)
        return rows[0] if rows else None

    def channels(self, after: bytes, limit: int) -> list[Channel]:
        """Records in order of channel id, after the given one."""
        return self._channels("channel > ? ORDER BY channel LIMIT ?", after, limit)

    def committed(self, chain_id: int, escrow: bytes) -> int:
        """Sum of the customer's deposits in channels with a closing authorization, in units."""
        rows = self._query(
            "SELECT customer_deposit FROM channel"
            " WHERE chain_id = ? AND escrow = ? AND state_index IS NOT NULL",
            chain_id,
            escrow,
        )
        return sum(deposit for (deposit,) in rows)

    def put(self, channel: Channel, counted: Iterable[Entry] = ()) -> None:
        """Write a record and what it spends in one transaction; on return it is on the disk."""
        terms = channel.terms
        attempts = [
            (terms.channel, step.index, step.attempt, step.operation, step.amount)
            for step in channel.attempts
        ]
        with self._transaction() as connection:
            connection.execute(_INSERT_CHANNEL, _row(channel))
            connection.execute(
                "DELETE FROM attempt WHERE channel = ? AND state < ?",
                (terms.channel, channel.next_index),
            )
            connection.executemany(
                "INSERT INTO attempt (channel, state, attempt, operation, amount)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                attempts,
            )
            for entry in counted:
                _count(connection, entry)

    def count(self, counted: Iterable[Entry]) -> None:
        """Write what was spent in one transaction; on return it is on the disk."""
        with self._transaction() as connection:
            for entry in counted:
                _count(connection, entry)

    def counted(self, kind: Kind, subject: bytes) -> Entry | None:
        """What was counted under a name within the last day or so."""
        rows = self._usage("kind = ? AND subject = ?", kind, subject)
        return rows[0] if rows else None

    def usage(self) -> list[Entry]:
        """All that is still counted, oldest first; the newest is the clock's mark."""
        return self._usage("true ORDER BY at")

    def _usage(self, condition: str, *values: object) -> list[Entry]:
        rows = self._query(
            f"SELECT kind, subject, asset, at, amount FROM usage WHERE {condition}",  # noqa: S608
            *values,
        )
        return [
            Entry(kind=kind, subject=subject, asset=asset, at=at, amount=int.from_bytes(amount))
            for kind, subject, asset, at, amount in rows
        ]

    def _escrows(self, condition: str, *values: object) -> list[Escrow]:
        rows = self._query(
            "SELECT chain_id, escrow, merchant, token, unit, g1_half, escrow_key FROM escrow"  # noqa: S608
            f" WHERE {condition}",
            *values,
        )
        return [
            Escrow(
                chain_id=row[0],
                escrow=row[1],
                merchant=row[2],
                token=row[3],
                unit=int.from_bytes(row[4]),
                g1_half=row[5],
                escrow_key=row[6],
            )
            for row in rows
        ]

    def _channels(self, condition: str, *values: object) -> list[Channel]:
        rows = self._query(
            f"SELECT {_CHANNEL_COLUMNS} FROM channel WHERE {condition}",  # noqa: S608
            *values,
        )
        return [self._channel(row) for row in rows]

    def _channel(self, row: tuple[Any, ...]) -> Channel:
        terms = Terms(*row[:6])
        completed, closing, mutual, unilateral = row[19:]
        channel = Channel(
            terms,
            accepted=_accepted(row[6:19]),
            completed=completed,
            closing=None if closing is None else Closing(closing, bool(mutual), bool(unilateral)),
        )
        attempts = self._query(
            "SELECT attempt, operation, amount FROM attempt WHERE channel = ? AND state = ?"
            " ORDER BY attempt",
            terms.channel,
            channel.next_index,
        )
        return replace(channel, attempts=tuple(_step(channel, *attempt) for attempt in attempts))

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the record cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the record cannot be written: {error}") from error

    def _prepare(self, identity: bytes) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:
                self._create(identity)
            elif self._version() == 1:
                self._upgrade()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"the signer's store cannot be opened: {error}") from error
        self._check(identity)

    def _create(self, identity: bytes) -> None:
        self._connection.executescript(
            f"BEGIN; {_sql('schema')} {_sql('usage')}"  # noqa: S608 - files and twenty bytes in hex
            f" INSERT INTO wallet (identity) VALUES (x'{identity.hex()}');"
            f" PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        )

    def _upgrade(self) -> None:
        """Add what version 1 did not have: nothing was counted then."""
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        if application == _APPLICATION:
            self._connection.executescript(
                f"BEGIN; {_sql('usage')} PRAGMA user_version = {VERSION}; COMMIT;"
            )

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _check(self, identity: bytes) -> None:
        try:
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            version = self._version()
            if application != _APPLICATION:
                raise StoreError("this database is no signer's store")
            if version != VERSION:
                raise StoreError(f"the store has version {version}, this program {VERSION}")
            (known,) = self._connection.execute("SELECT identity FROM wallet").fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"the signer's store cannot be opened: {error}") from error
        if known != identity:
            raise StoreError("this store belongs to another seed")


def _sql(name: str) -> str:
    return resources.files("customersigner").joinpath(f"{name}.sql").read_text("utf-8")


def _connect(uri: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise StoreError(f"the signer's store cannot be opened: {error}") from error


def _lock_file(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError("another signer is running on this store") from None
    return lock


def _check_mode(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StoreError(f"{path} must belong to this user and have mode 0600")


def _count(connection: sqlite3.Connection, entry: Entry) -> None:
    """Count, in the place of an earlier entry of this name; forget what no window holds."""
    connection.execute(
        "INSERT INTO usage (kind, subject, asset, at, amount) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET at = excluded.at, amount = excluded.amount",
        (entry.kind, entry.subject, entry.asset, entry.at, entry.amount.to_bytes(64)),
    )
    connection.execute("DELETE FROM usage WHERE at < ?", (entry.at - DAY,))


def _row(channel: Channel) -> tuple[object, ...]:
    terms, accepted, closing = channel.terms, channel.accepted, channel.closing
    state: tuple[object, ...] = (None,) * 10
    previous: tuple[object, ...] = (None,) * 3
    if accepted is not None:
        step = accepted.step
        state = (
            step.index,
            step.attempt,
            step.operation,
            step.amount,
            step.customer_balance,
            step.merchant_balance,
            accepted.lock.to_bytes(32),
            accepted.signature,
            accepted.guard,
            accepted.permit,
        )
        if accepted.previous is not None:
            before = accepted.previous
            previous = (before.attempt, before.operation, before.amount)
    return (
        terms.channel,
        terms.chain_id,
        terms.escrow,
        terms.salt,
        terms.customer_deposit,
        terms.merchant_deposit,
        *state,
        *previous,
        channel.completed,
        None if closing is None else closing.index,
        closing is not None and closing.mutual,
        closing is not None and closing.unilateral,
    )


def _accepted(row: tuple[Any, ...]) -> Accepted | None:
    step, (lock, signature, guard, permit), previous = Step(*row[:6]), row[6:10], row[10:]
    if row[0] is None:
        return None
    return Accepted(
        step,
        None if previous[0] is None else before(step, *previous),
        int.from_bytes(lock),
        signature,
        guard,
        permit,
    )


def _step(channel: Channel, attempt: int, operation: bytes, amount: int) -> Step:
    if channel.accepted is not None:
        return after(channel.accepted.step, attempt, operation, amount)
    terms = channel.terms
    return Step(0, attempt, operation, amount, terms.customer_deposit, terms.merchant_deposit)
