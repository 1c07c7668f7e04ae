"""The one way to the database: a writer whose transactions run in order, a reader, and listeners.

A lost connection surfaces as DatabaseUnavailable and is remade by the next call; calls that come
too soon after a failed attempt fail at once, so that nobody waits for a server that is not there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, Notify, errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import args_row

from zkchannels.service.logging import get_logger
from zkchannels.store import link
from zkchannels.store.errors import (
    CommitOutcomeUnknown,
    DatabaseUnavailable,
    NothingWritten,
    StoreError,
    TransactionFailed,
)

__all__ = [
    "CommitOutcomeUnknown",
    "Database",
    "DatabaseUnavailable",
    "Listener",
    "NothingWritten",
    "Notification",
    "StoreError",
    "TransactionFailed",
]

T = TypeVar("T")
Connection = AsyncConnection[Any]
Parameters = Sequence[Any] | dict[str, Any]

ANSWER_WITHIN = 15.0
MOST_ATTEMPTS = 10
BEAT = 2.0
"""Seconds of silence after which a listening connection asks whether the server is still there."""

# What says that the server cannot work for us now, not that a statement is wrong: connection,
# authorization, no such database or its tables (it is being restored), rolled back, out of
# resources, locked by another, shutting down, and its files. Each may pass without a change of
# the program.
_CANNOT_NOW = (
    *("08", "28", "3D", "40", "53", "57", "58"),
    *("25P03", "25P04", "42501", "42P01", "55P03"),
)

_SESSION = """
select
    set_config('statement_timeout', case current_setting('statement_timeout')
        when '0' then %(statement)s else current_setting('statement_timeout') end, false),
    set_config('lock_timeout', case current_setting('lock_timeout')
        when '0' then %(lock)s else current_setting('lock_timeout') end, false),
    set_config('idle_in_transaction_session_timeout', %(idle)s, false),
    current_setting('synchronous_commit'),
    current_setting('fsync'),
    current_setting('full_page_writes'),
    coalesce(current_setting('customerd.throwaway', true), '')
"""
_WHO = """
select current_setting('transaction_read_only') = 'on', pid, backend_start
from pg_stat_activity where pid = pg_backend_pid()
"""
_END = """
select pg_terminate_backend(pid, %s) from pg_stat_activity
where pid = %s and backend_start = %s and pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Notification:
    """One NOTIFY of another connection."""

    channel: str
    payload: str


class Backend(NamedTuple):
    """A server process: numbers of processes are used again."""

    pid: int
    start: datetime


class Database:
    """A PostgreSQL database as one process uses it; every method raises DatabaseUnavailable.

    `answer_within` is how many seconds a transaction or a query may take before the server counts
    as hung and the connection is cut; single statements are cancelled by the server after two
    thirds of that, and after a fifth when they wait for a lock that another session holds. While
    somebody listens, a server that hangs is noticed sooner (see `listen`). The server ends a
    session that says nothing for `idle_within` seconds inside a transaction. `warn` is told once of
    every server setting that risks committed data; they are logged when it is not given.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        password: bytes | None = None,
        answer_within: float = ANSWER_WITHIN,
        idle_within: float | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._conninfo = link.complete(dsn, application_name=application_name, password=password)
        self._answer_within = answer_within
        self._idle_within = min(answer_within, idle_within or answer_within)
        self._warn = warn or _log_warning
        self._warned: set[str] = set()
        self._backoff = link.Backoff()
        self._writer = self._new_link(self._prepare_writer)
        self._reader = self._new_link(self._prepare)
        self._listeners: set[Listener] = set()
        self._writing: asyncio.Task[Any] | None = None
        self._outcome: Any = None
        self.mark = b""
        """What the transaction at work leaves behind, if it does, for `was_committed` to find."""
        # The server process of the writer connection, and one that may still be about to commit.
        self._backend: Backend | None = None
        self._doubtful: Backend | None = None

    def __repr__(self) -> str:
        return f"<Database {'alive' if self.alive else 'not connected'}>"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def alive(self) -> bool:
        """Whether the server is there, as far as the last call or a listener could see."""
        return self._writer.alive and not self._backoff.failing

    async def connect(self) -> None:
        """Open the writer and the reader now, not on first use."""
        await self._writer.get()
        try:
            await self._reader.get()
        except BaseException:
            await self._writer.discard()
            raise

    async def wait_available(self) -> None:
        """Return as soon as the database answers, trying with growing pauses; never raises.

        A server that refuses one more connection while it answers on others gets its pause, too.
        """
        if self._backoff.failing:
            await self._backoff.wait()
        while True:
            try:
                await self.fetch_one_value("select 1")
                async with self._writer.turn:
                    await self._writer.get()
                return
            except DatabaseUnavailable:
                await self._backoff.wait()

    async def settle_down(self, seconds: float) -> None:
        """Give what is under way so long to end, then cut it; before tasks are cancelled.

        A cancelled query first asks the server to cancel it, and one that hangs takes its time.
        """
        limit = time.monotonic() + seconds
        for used in (self._writer, self._reader):
            try:
                async with asyncio.timeout(max(0.0, limit - time.monotonic())), used.turn:
                    continue
            except TimeoutError:
                self._backoff.give_up()
                used.cut()
        for listener in self._listeners:
            listener.cut_if_asking()

    async def aclose(self) -> None:
        """Close all connections; what was not committed is rolled back by the server."""
        for listener in list(self._listeners):
            await listener.aclose()
        await self._writer.discard()
        await self._reader.discard()

    async def run(
        self, body: Callable[[Connection], Awaitable[T]], *, answer_within: float | None = None
    ) -> T:
        """Run `body` in one transaction on the writer connection and commit it.

        Transactions run one after the other, in the order of the calls. `body` is called again from
        its start when the server could not serialise it or broke a deadlock, so it must have no
        effect outside its connection, and wait for nothing else. Its own exceptions roll back and
        pass through, psycopg's errors among them.

        Raises DatabaseUnavailable (nothing was changed), CommitOutcomeUnknown (it may have been,
        and `was_committed` could not tell: what any later call reads decides), or TransactionFailed
        when `body` hid an error that made the transaction void. A caller that is cancelled while
        the server commits does not learn the outcome.
        """
        task = asyncio.current_task()
        if self._writing is not None and self._writing is task:
            raise StoreError("run() was called inside run()")
        async with self._writer.turn:
            self._writing = task
            self.mark = b""
            try:
                return await self._retry(
                    lambda limit: self._transaction(body, limit),
                    answer_within or self._answer_within,
                )
            finally:
                self._writing = None

    async def run_alone(
        self,
        statement: str,
        parameters: Parameters,
        *,
        mark: bytes = b"",
        recall: str | None = None,
    ) -> tuple[Any, ...]:
        """Run one statement that is a transaction of its own; return its first row.

        It costs one round trip where `run` takes four or more. Raises as `run` does; the end of the
        statement is its commit, so a connection that is lost under it leaves the outcome unknown.
        Raises NothingWritten when there is no row. `mark` is what the statement leaves behind for
        `was_committed` to find, and `recall` a query for the row of one that was committed.
        """
        async with self._writer.turn:
            self.mark = mark
            return await self._retry(
                lambda limit: self._alone(statement, parameters, limit), self._answer_within, recall
            )

    async def was_committed(self, connection: Connection) -> bool | None:  # noqa: ARG002
        """Tell whether the newest transaction whose COMMIT got no answer was committed.

        Asked on a new connection, after the server has ended the old one. None: nothing tells.
        """
        return None

    def require_lease(self) -> None:
        """Raise DatabaseUnavailable unless this process may act on what the database says.

        A database without a lease lets everybody act. Call it right before an effect outside.
        """

    async def fetch(
        self, statement: str, parameters: Parameters = (), *, row: Callable[..., T]
    ) -> list[T]:
        """Return all rows of a query on the reader connection, each as `row(*columns)`.

        The reader sees what is committed. A query whose connection was lost is asked once more.
        """
        async with self._reader.turn:
            try:
                return await self._query(statement, parameters, row)
            except _LostWhileIdle:
                return await self._query(statement, parameters, row)

    async def fetch_one(
        self, statement: str, parameters: Parameters = (), *, row: Callable[..., T]
    ) -> T | None:
        """Return the first row of a query as `row(*columns)`, or None when there is none."""
        rows = await self.fetch(statement, parameters, row=row)
        return rows[0] if rows else None

    async def fetch_one_value(self, statement: str, parameters: Parameters = ()) -> Any:
        """Return the only column of the first row of a query, or None when there is no row."""
        return await self.fetch_one(statement, parameters, row=_only_column)

    async def listen(self, *channels: str) -> Listener:
        """Return an iterator of notifications on a connection of its own; LISTEN is in force.

        It also is the quickest witness of the server's end: iterating raises DatabaseUnavailable
        within milliseconds, and `alive` turns false. A server that hangs is given up after some
        seconds, for all who wait for it.
        """
        connection = await self._new_link(self._prepare).get()
        try:
            with link.deadline(connection, self._answer_within):
                who = await (await connection.execute(_WHO)).fetchone()
                for channel in channels:
                    await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        except psycopg.Error as error:
            await connection.close()
            raise DatabaseUnavailable(link.reason(error)) from error
        except BaseException:
            await connection.close()
            raise
        assert who is not None
        listener = Listener(self, connection, Backend(*who[1:]))
        self._listeners.add(listener)
        return listener

    def _new_link(self, prepare: Callable[[Connection], Awaitable[None]]) -> link.Link:
        return link.Link(
            self._conninfo,
            prepare=prepare,
            answer_within=self._answer_within,
            backoff=self._backoff,
        )

    async def _prepare_writer(self, connection: Connection) -> None:
        await self._prepare(connection)
        row = await (await connection.execute(_WHO)).fetchone()
        assert row is not None
        if row[0]:
            raise DatabaseUnavailable("the server is read-only: a standby, or set so")
        self._backend = Backend(*row[1:])

    async def _prepare(self, connection: Connection) -> None:
        """Set the session's time limits and check that what is committed will stay."""
        limits = {
            "statement": f"{self._answer_within * 2 / 3 * 1000:.0f}ms",
            "lock": f"{self._answer_within / 5 * 1000:.0f}ms",
            "idle": f"{self._idle_within * 1000:.0f}ms",
        }
        row = await (await connection.execute(_SESSION, limits)).fetchone()
        assert row is not None
        synchronous_commit, fsync, full_page_writes, throwaway = row[3:]
        if throwaway == "on":
            return
        if synchronous_commit == "off":
            await connection.execute("set synchronous_commit = on")
            self._warn_once("the server has synchronous_commit off; it is on for our connections")
        if fsync == "off" or full_page_writes == "off":
            self._warn_once("the server has fsync or full_page_writes off: a crash loses money")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    async def _retry(
        self,
        transaction: Callable[[float], Awaitable[T]],
        answer_within: float,
        recall: str | None = None,
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await transaction(answer_within)
            except (errors.SerializationFailure, errors.DeadlockDetected) as error:
                if attempt == MOST_ATTEMPTS:
                    raise DatabaseUnavailable(link.reason(error)) from error
                await asyncio.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 - jitter
            except _LostWhileIdle:
                # Nothing was asked of the server yet; the next attempt has a fresh connection.
                continue
            except CommitOutcomeUnknown:
                committed = None if attempt == MOST_ATTEMPTS else await self._ask_outcome(recall)
                if committed is None:
                    raise
                if committed:
                    result: T = self._outcome
                    return result

    async def _ask_outcome(self, recall: str | None) -> bool | None:
        """Ask again and again, for a few seconds, whether a commit without an answer took place."""
        limit = time.monotonic() + self._answer_within / 3
        while time.monotonic() < limit:
            try:
                use = await _Use.begin(self._writer, self._answer_within)
                await self._settle(use)
                with link.deadline(use.connection, self._answer_within):
                    committed = await self.was_committed(use.connection)
                    if committed and recall is not None:
                        self._outcome = await (await use.connection.execute(recall)).fetchone()
                    return committed
            except (DatabaseUnavailable, _LostWhileIdle):
                await self._backoff.wait()
            except psycopg.Error:
                await self._writer.discard()
        return None

    async def _transaction(
        self, body: Callable[[Connection], Awaitable[T]], answer_within: float
    ) -> T:
        use = await _Use.begin(self._writer, answer_within)
        await self._settle(use)
        begun = committing = False
        try:
            with link.deadline(use.connection, answer_within):
                async with use.connection.transaction():
                    begun = True
                    result = await body(use.connection)
                    if use.connection.info.transaction_status is not TransactionStatus.INTRANS:
                        _refuse_void(use.connection)
                    committing = True
                return result
        except psycopg.Error as error:
            if not committing or not link.is_lost(use.connection, error):
                await use.translate(error, untouched=not begun)
                raise
            self._doubtful, self._outcome = self._backend, result
            await self._writer.discard()
            raise CommitOutcomeUnknown(link.reason(error)) from error

    async def _alone(
        self, statement: str, parameters: Parameters, answer_within: float
    ) -> tuple[Any, ...]:
        use = await _Use.begin(self._writer, answer_within)
        if not use.fresh and link.has_something_to_say(use.connection):
            # The server ended the idle connection: known before anything is asked of it.
            await self._writer.discard()
            use = await _Use.begin(self._writer, answer_within)
        await self._settle(use)
        try:
            with link.deadline(use.connection, answer_within):
                cursor = await use.connection.execute(statement, parameters)
                row: tuple[Any, ...] | None = await cursor.fetchone()
        except psycopg.Error as error:
            if not link.is_lost(use.connection, error):
                await use.translate(error, untouched=False)
                raise
            self._doubtful = self._backend
            await self._writer.discard()
            raise CommitOutcomeUnknown(link.reason(error)) from error
        if row is None:
            raise NothingWritten("the statement returned no row")
        return row

    async def _query(
        self, statement: str, parameters: Parameters, row: Callable[..., T]
    ) -> list[T]:
        use = await _Use.begin(self._reader, self._answer_within)
        await self._settle(use)
        try:
            with link.deadline(use.connection, self._answer_within):
                async with use.connection.cursor(row_factory=args_row(row)) as cursor:
                    await cursor.execute(statement, parameters or None)
                    return await cursor.fetchall()
        except psycopg.Error as error:
            await use.translate(error, untouched=True)
            raise

    async def end(self, backend: Backend) -> None:
        """End a server process of a connection of ours that was lost, if it is still there.

        The server may not know yet that the connection is gone. Raises DatabaseUnavailable.
        """
        patience = round(self._answer_within / 3 * 1000)
        await self.fetch(_END, [patience, *backend], row=_only_column)

    async def _settle(self, use: _Use) -> None:
        """After a commit without an answer: nothing is read or written before its server ended.

        A backend that hung may commit long after it was given up, behind the back of a caller who
        read that nothing is there.
        """
        if self._doubtful is None:
            return
        patience = round(self._answer_within / 3 * 1000)
        try:
            with link.deadline(use.connection, self._answer_within):
                ended = await use.connection.execute(_END, [patience, *self._doubtful])
                row = await ended.fetchone()
        except psycopg.Error as error:
            await use.translate(error, untouched=True)
            raise
        if row is not None and not row[0]:
            raise DatabaseUnavailable("the server still works on a commit that was given up")
        self._doubtful = None

    async def _listener_lost(self, *, hung: bool) -> None:
        """One connection ended by itself: doubt the idle ones too, they are remade on use.

        When the server hangs, nobody need wait for it on the others either.
        """
        for other in (self._writer, self._reader):
            if not other.turn.locked():
                await other.discard()
            elif hung:
                other.cut()


class Listener:
    """Iterates over the notifications that arrive on one connection; close it when done."""

    def __init__(self, database: Database, connection: Connection, backend: Backend) -> None:
        self.backend = backend
        self._database = database
        self._connection = connection
        self._notifications: AsyncGenerator[Notify, None] = connection.notifies(timeout=BEAT)
        self._waiting = False
        self._closing = False

    def __aiter__(self) -> Self:
        return self

    async def try_lock(self, number: int) -> bool:
        """Take an advisory lock for as long as this connection lasts; False: another has it.

        To be called before the first notification is waited for. Raises DatabaseUnavailable.
        """
        try:
            with link.deadline(self._connection, self._database._answer_within):
                cursor = await self._connection.execute("select pg_try_advisory_lock(%s)", [number])
                row = await cursor.fetchone()
        except psycopg.Error as error:
            await self.aclose()
            raise DatabaseUnavailable(link.reason(error)) from error
        return row is not None and bool(row[0])

    async def __anext__(self) -> Notification:
        self._waiting = True
        hung = False
        try:
            while True:
                try:
                    notify = await anext(self._notifications)
                    return Notification(notify.channel, notify.payload)
                except StopAsyncIteration:
                    pass
                hung = True
                await self._beat()
                hung = False
                self._notifications = self._connection.notifies(timeout=BEAT)
        except asyncio.CancelledError:
            # Cancelling ends a generator; the next call goes on where this one was interrupted.
            self._notifications = self._connection.notifies(timeout=BEAT)
            raise
        except psycopg.Error as error:
            self._waiting = False
            closing = self._closing
            await self.aclose()
            if closing:
                raise StopAsyncIteration from None
            await self._database._listener_lost(hung=hung)
            raise DatabaseUnavailable(link.reason(error)) from error
        finally:
            self._waiting = False

    def cut_if_asking(self) -> None:
        """End the connection if it waits for an answer; one that only listens is cancelled fast."""
        if self._connection.info.transaction_status is TransactionStatus.ACTIVE:
            link.cut(self._connection)

    async def _beat(self) -> None:
        """See that the server still answers; psycopg keeps what is notified meanwhile."""
        with link.deadline(self._connection, self._database._answer_within / 3):
            await self._connection.execute("select 1")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; a task that waits for a notification sees the iteration end."""
        self._closing = True
        if self._waiting:
            link.cut(self._connection)
            return
        self._database._listeners.discard(self)
        await self._notifications.aclose()
        await self._connection.close()


class _LostWhileIdle(Exception):
    """The connection had been lost before this call; a new one may well work."""


@dataclass(frozen=True)
class _Use:
    """One transaction or query on a link's connection, and what its errors mean."""

    source: link.Link
    connection: Connection
    fresh: bool
    limit: float

    @classmethod
    async def begin(cls, used: link.Link, answer_within: float) -> _Use:
        fresh = not used.alive
        connection = await used.get()
        return cls(used, connection, fresh, time.monotonic() + answer_within)

    async def translate(self, error: psycopg.Error, *, untouched: bool) -> None:
        """Raise what an error means for the caller, or return when it is the statement's own.

        `untouched` says that asking again on another connection changes nothing. A fresh connection
        is not replaced again, and a server that hung would hang for as long again.
        """
        if link.is_lost(self.connection, error):
            await self.source.discard()
            if untouched and not self.fresh and time.monotonic() < self.limit:
                raise _LostWhileIdle from error
        elif isinstance(error, errors.ReadOnlySqlTransaction):
            # The primary moved: the next connection finds it, by target_session_attrs.
            await self.source.discard()
        elif isinstance(error, errors.SerializationFailure | errors.DeadlockDetected):
            if not untouched:
                return  # worth another attempt
        elif not (error.sqlstate or "").startswith(_CANNOT_NOW):
            return
        raise DatabaseUnavailable(link.reason(error)) from error


def _refuse_void(connection: Connection) -> None:
    """Say what was swallowed: COMMIT would answer ROLLBACK and look like success."""
    if connection.closed:
        raise errors.OperationalError("the connection was lost")
    raise TransactionFailed("a statement of the transaction had failed")


def _only_column(value: Any) -> Any:
    return value


def _log_warning(text: str) -> None:
    get_logger("zkchannels.store").warning("database_not_durable", reason=text)
