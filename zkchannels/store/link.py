"""One PostgreSQL connection that is remade when it is lost, and cut when the server hangs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from zkchannels.store.errors import DatabaseUnavailable, StoreError

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

# Keepalives find a peer that vanished from an idle connection, tcp_user_timeout one that vanished
# under a query, which keepalives do not see. Neither matters on a Unix socket.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
}


def complete(dsn: str, *, application_name: str, password: bytes | None = None) -> str:
    """Return the connection string with our defaults for what it leaves open.

    `password` comes before one that the string holds.

    Raises StoreError when it is malformed; the message holds nothing of it, it may hold a password.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise StoreError("the connection string of the database is malformed") from None
    values = {**_DEFAULTS, "application_name": application_name, **given}
    if password is not None:
        try:
            values["password"] = password.decode()
        except UnicodeDecodeError:
            raise StoreError("the password of the database is no text in UTF-8") from None
    return make_conninfo(dsn, **values)


def is_lost(connection: AsyncConnection[Any], error: BaseException) -> bool:
    """Tell whether an error means that the connection is of no use any more."""
    if connection.closed:
        return True
    # 57P01..57P05: the server is going down or ended the session; its last word may arrive before
    # the end of the stream does.
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith("57P")


def has_something_to_say(connection: AsyncConnection[Any]) -> bool:
    """Tell whether an idle connection's server sent something unasked: mostly that it is ending."""
    poll = select.poll()
    try:
        poll.register(connection.fileno(), select.POLLIN)
    except psycopg.Error:
        return True
    return bool(poll.poll(0))


def reason(error: BaseException) -> str:
    """Return the first line of what the server or the network said (it never holds a password)."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


@contextlib.contextmanager
def deadline(connection: AsyncConnection[Any], seconds: float | None) -> Iterator[None]:
    """Cut the connection when the block takes longer: a hung server answers no cancel request.

    Cancelling the task instead would wait another 5 s for the server to cancel the query. Shutting
    down a duplicate of the socket ends libpq's wait at once, with the connection marked as lost.
    """
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: AsyncConnection[Any]) -> None:
    """End the connection below libpq, which then sees the server as gone."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


def _is_idle(connection: AsyncConnection[Any]) -> bool:
    """Whether nothing is open or under way on a connection, nor was left so by a cancelled task.

    A transaction begun inside one that was left open would be a savepoint: its COMMIT commits
    nothing.
    """
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE


class Backoff:
    """When the next attempt to connect is due; attempts before that fail at once."""

    def __init__(self) -> None:
        self._failures = 0
        self._due = 0.0
        self._reason = ""

    @property
    def failing(self) -> bool:
        """Whether the newest attempt failed."""
        return self._failures > 0

    def check(self) -> None:
        """Raise DatabaseUnavailable while it is too early for another attempt."""
        if time.monotonic() < self._due:
            raise DatabaseUnavailable(self._reason)

    def failed(self, why: str) -> None:
        """Count a failed attempt and put off the next one."""
        pause = min(FIRST_PAUSE * 1.5**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 20)
        self._due = time.monotonic() + pause * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        self._reason = why

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures = 0
        self._due = 0.0

    def give_up(self) -> None:
        """Let every further attempt fail at once: this process is on its way down."""
        self._due = math.inf
        self._reason = "the server hangs and this process is stopping"

    async def wait(self) -> None:
        """Wait until another attempt is due."""
        await asyncio.sleep(max(0.0, self._due - time.monotonic()))


class Link:
    """One connection, made on first use and remade after it was lost."""

    def __init__(
        self,
        conninfo: str,
        *,
        prepare: Callable[[AsyncConnection[Any]], Awaitable[None]],
        answer_within: float,
        backoff: Backoff,
    ) -> None:
        self._conninfo = conninfo
        self._prepare = prepare
        self._answer_within = answer_within
        self._backoff = backoff
        self._connection: AsyncConnection[Any] | None = None
        self.turn = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether there is a connection that was not found to be lost."""
        return self._connection is not None and not self._connection.closed

    async def get(self) -> AsyncConnection[Any]:
        """Return the open connection; raises DatabaseUnavailable when none can be made now."""
        if self._connection is not None and _is_idle(self._connection):
            return self._connection
        await self.discard()
        self._backoff.check()
        self._connection = await self._open()
        self._backoff.succeeded()
        return self._connection

    def cut(self) -> None:
        """End the connection under whoever waits on it; they see it as lost."""
        if self._connection is not None:
            cut(self._connection)

    async def discard(self) -> None:
        """Close the connection, if there is one; the next `get` makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open(self) -> AsyncConnection[Any]:
        try:
            connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
        except (psycopg.Error, OSError) as error:
            self._backoff.failed(reason(error))
            raise DatabaseUnavailable(reason(error)) from error
        try:
            with deadline(connection, self._answer_within):
                await self._prepare(connection)
        except (psycopg.Error, DatabaseUnavailable) as error:
            await connection.close()
            self._backoff.failed(reason(error))
            raise DatabaseUnavailable(reason(error)) from error
        except BaseException:
            await connection.close()
            raise
        return connection
