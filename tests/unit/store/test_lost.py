"""What happens to callers when the server, or the connection to it, is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from zkchannels.devnet.postgres import Cluster
from zkchannels.store.database import CommitOutcomeUnknown, Database, DatabaseUnavailable

Connection = AsyncConnection[Any]

SCHEMA = "create table entry (name text primary key)"


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """A database on the shared server that counts as hung after half a second."""
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
    async with Database(database_dsn, application_name="test", answer_within=0.5) as database:
        yield database


@pytest.fixture
async def mortal(own_cluster: Cluster) -> AsyncIterator[Database]:
    """A database on a server of the test's own."""
    with psycopg.connect(own_cluster.dsn(), autocommit=True) as connection:
        connection.execute(SCHEMA)
    async with Database(own_cluster.dsn(), application_name="test") as database:
        yield database


async def insert(connection: Connection, name: str) -> None:
    """Insert one row."""
    await connection.execute("insert into entry values (%s)", [name])


async def pid_of(connection: Connection) -> int:
    """Return the process id of the backend."""
    row = await (await connection.execute("select pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def names(database: Database) -> list[str]:
    """Return all committed names."""
    return await database.fetch("select name from entry order by name", row=str)


def terminate(dsn: str, pid: int) -> None:
    """End another connection's backend and wait until it is gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", [pid])


async def test_connection_lost_while_idle_is_replaced(
    database: Database, database_dsn: str
) -> None:
    """A connection that ended between two calls is replaced unnoticed: nothing was asked yet."""
    terminate(database_dsn, await database.run(pid_of))
    await database.run(lambda connection: insert(connection, "a"))
    terminate(database_dsn, await database.fetch_one_value("select pg_backend_pid()"))
    assert await names(database) == ["a"]


async def test_connection_lost_in_transaction_changes_nothing(
    database: Database, database_dsn: str
) -> None:
    """A connection lost inside a transaction is DatabaseUnavailable, and nothing was committed."""

    async def body(connection: Connection) -> None:
        await insert(connection, "a")
        terminate(database_dsn, await pid_of(connection))
        await insert(connection, "b")

    with pytest.raises(DatabaseUnavailable) as caught:
        await database.run(body)
    assert not isinstance(caught.value, CommitOutcomeUnknown)
    assert await names(database) == []
    await database.run(lambda connection: insert(connection, "c"))
    assert await names(database) == ["c"]


async def test_hung_server_is_cut(database: Database) -> None:
    """A backend that answers nothing is given up after the agreed time, not seconds later."""
    stopped: list[int] = []

    async def body(connection: Connection) -> None:
        await insert(connection, "a")
        stopped.append(await pid_of(connection))
        os.kill(stopped[0], signal.SIGSTOP)
        await insert(connection, "b")

    before = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.run(body)
        assert not isinstance(caught.value, CommitOutcomeUnknown)
        assert 0.4 < time.monotonic() - before < 2.0
        await database.run(lambda connection: insert(connection, "c"))
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    assert await names(database) == ["c"]


async def test_hung_reader_is_cut_once(database: Database) -> None:
    """A query that hangs is given up after the agreed time and not asked again."""
    pid = await database.fetch_one_value("select pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        before = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await names(database)
        assert 0.4 < time.monotonic() - before < 2.0
        assert await names(database) == []
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_lost_answer_of_commit_is_unknown(database: Database) -> None:
    """When the answer to COMMIT is lost the caller is told so, for the change may well be there."""
    stopped: list[int] = []

    async def body(connection: Connection) -> None:
        await insert(connection, "a")
        await connection.execute("set local idle_in_transaction_session_timeout = 0")
        stopped.append(await pid_of(connection))
        os.kill(stopped[0], signal.SIGSTOP)

    try:
        with pytest.raises(CommitOutcomeUnknown):
            await database.run(body)
        # Reading now would tell a lie: the server has the COMMIT and may still carry it out.
        with pytest.raises(DatabaseUnavailable, match="given up"):
            await names(database)
    finally:
        end = os.pidfd_open(stopped[0])
        os.kill(stopped[0], signal.SIGCONT)
    select.select([end], [], [], 10)
    os.close(end)
    assert await names(database) in ([], ["a"])
    outcome = await names(database)
    await database.run(lambda connection: insert(connection, "b"))
    assert await names(database) == [*outcome, "b"]


async def test_cancelled_caller_leaves_nothing(database: Database) -> None:
    """A caller that is cancelled in its transaction changes nothing and blocks nobody."""
    entered = asyncio.Event()

    async def body(connection: Connection) -> None:
        await insert(connection, "a")
        entered.set()
        await connection.execute("select pg_sleep(60)")

    task = asyncio.create_task(database.run(body))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.run(lambda connection: insert(connection, "b"))
    assert await names(database) == ["b"]


async def test_cancelled_anywhere(database: Database) -> None:
    """Wherever a caller is cancelled, COMMIT included, later transactions commit as ever."""
    for turns in range(0, 60, 2):
        task = asyncio.create_task(database.run(lambda connection: insert(connection, "x")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await database.run(lambda connection: connection.execute("delete from entry"))
        await database.run(lambda connection, name=str(turns): insert(connection, name))  # type: ignore[misc]
        assert await names(database) == [str(turns)]


async def test_read_only_server_is_left(database: Database, database_dsn: str) -> None:
    """A server that became a standby is unavailable until the primary is found again."""
    name = psycopg.conninfo.conninfo_to_dict(database_dsn)["dbname"]
    turn = f'alter database "{name}" set default_transaction_read_only = '
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute(turn + "on")
    terminate(database_dsn, await database.run(pid_of))
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await database.run(lambda connection: insert(connection, "a"))
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        connection.execute(turn + "off")
    assert not database.alive
    async with asyncio.timeout(10):
        await database.wait_available()
    await database.run(lambda connection: insert(connection, "b"))
    assert await names(database) == ["b"]


async def test_killed_server_and_its_return(mortal: Database, own_cluster: Cluster) -> None:
    """After kill -9 of the server calls fail at once; after its return they work, all kept."""
    await mortal.run(lambda connection: insert(connection, "a"))
    backend = os.pidfd_open(await mortal.run(pid_of))
    os.kill(own_cluster.pid, signal.SIGKILL)
    select.select([backend], [], [], 10)
    os.close(backend)
    with pytest.raises(DatabaseUnavailable):
        await mortal.run(lambda connection: insert(connection, "b"))
    assert not mortal.alive
    before = time.monotonic()
    for _ in range(200):
        with pytest.raises(DatabaseUnavailable):
            await mortal.run(lambda connection: insert(connection, "b"))
    assert time.monotonic() - before < 1.0
    waiting = asyncio.create_task(mortal.wait_available())
    own_cluster.restart()
    async with asyncio.timeout(10):
        await waiting
    assert mortal.alive
    await mortal.run(lambda connection: insert(connection, "c"))
    assert await names(mortal) == ["a", "c"]


async def test_killed_in_transaction(mortal: Database, own_cluster: Cluster) -> None:
    """A server killed inside a transaction is DatabaseUnavailable, and nothing was committed."""

    async def body(connection: Connection) -> None:
        await insert(connection, "a")
        os.kill(own_cluster.pid, signal.SIGKILL)
        os.kill(await pid_of(connection), signal.SIGKILL)
        await insert(connection, "b")

    with pytest.raises(DatabaseUnavailable) as caught:
        await mortal.run(body)
    assert not isinstance(caught.value, CommitOutcomeUnknown)
    own_cluster.restart()
    await mortal.wait_available()
    assert await names(mortal) == []


async def test_listener_sees_the_end_at_once(mortal: Database, own_cluster: Cluster) -> None:
    """A task that listens learns of the server's end without asking, and so does `alive`."""
    listener = await mortal.listen("anything")
    assert mortal.alive
    hearing = asyncio.create_task(anext(listener))
    os.kill(own_cluster.pid, signal.SIGKILL)
    async with asyncio.timeout(2):
        with pytest.raises(DatabaseUnavailable):
            await hearing
    assert not mortal.alive
    own_cluster.restart()
    await mortal.wait_available()
    async with await mortal.listen("anything"):
        assert mortal.alive


async def test_listener_notices_a_server_that_hangs(database: Database, database_dsn: str) -> None:
    """A server that hangs is given up for all who wait for it, long before a call would end."""
    listener = await database.listen("anything")
    entered = asyncio.Event()

    async def body(connection: Connection) -> None:
        entered.set()
        await connection.execute("select pg_sleep(60)")

    waiting = asyncio.create_task(database.run(body, answer_within=60))
    await entered.wait()
    os.kill(listener.backend.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            with pytest.raises(DatabaseUnavailable):
                await anext(listener)
            with pytest.raises(DatabaseUnavailable):
                await waiting
    finally:
        os.kill(listener.backend.pid, signal.SIGCONT)
    terminate(database_dsn, listener.backend.pid)


async def test_an_advisory_lock_lasts_as_long_as_its_listener(
    database: Database, database_dsn: str
) -> None:
    """Of two listeners one gets the lock; it is free once the server process of that one ended."""
    first, second = await database.listen("first"), await database.listen("second")
    assert await first.try_lock(7)
    assert not await second.try_lock(7)
    await database.end(first.backend)
    assert await second.try_lock(7)
    with pytest.raises(DatabaseUnavailable):
        await anext(first)


async def test_no_server_at_all(own_cluster: Cluster) -> None:
    """A program that starts before its database gets DatabaseUnavailable, then waits for it."""
    dsn = own_cluster.dsn()
    own_cluster.stop()
    database = Database(dsn, application_name="test")
    with pytest.raises(DatabaseUnavailable):
        await database.connect()
    with pytest.raises(DatabaseUnavailable):
        await database.listen("anything")
    waiting = asyncio.create_task(database.wait_available())
    own_cluster.start()
    async with asyncio.timeout(10):
        await waiting
    assert await database.fetch_one_value("select 1") == 1
    await database.aclose()
