"""The database as one process uses it, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection, errors

from tests.fix_log import Log
from zkchannels.store.database import Database, StoreError, TransactionFailed

Connection = AsyncConnection[Any]


class Pair(msgspec.Struct, frozen=True):
    """A row of the test's table."""

    name: str
    value: int


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """A connected database with one table."""
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("create table pair (name text primary key, value bigint not null)")
    async with Database(database_dsn, application_name="test") as database:
        yield database


async def put(connection: Connection, name: str, value: int) -> None:
    """Insert one row."""
    await connection.execute("insert into pair values (%s, %s)", [name, value])


async def names(database: Database) -> list[str]:
    """Return all names in the table."""
    return [pair.name for pair in await pairs(database)]


async def pairs(database: Database) -> list[Pair]:
    """Return all rows of the table."""
    return await database.fetch("select name, value from pair order by name", row=Pair)


async def test_run_commits_and_returns(database: Database) -> None:
    """A body's result is returned and its changes are committed for the reader to see."""

    async def body(connection: Connection) -> str:
        await put(connection, "a", 1)
        return "done"

    assert await database.run(body) == "done"
    assert await pairs(database) == [Pair("a", 1)]
    one = await database.fetch_one("select name, value from pair where value = %s", [1], row=Pair)
    assert one == Pair("a", 1)
    none = await database.fetch_one("select name, value from pair where value = 2", row=Pair)
    assert none is None
    assert await database.fetch_one_value("select count(*) from pair") == 1
    assert await database.fetch_one_value("select name from pair where value = 2") is None


async def test_error_in_body_rolls_back(database: Database) -> None:
    """An exception of the body passes through and undoes everything the body did."""

    async def body(connection: Connection) -> None:
        await put(connection, "a", 1)
        raise LookupError("changed my mind")

    with pytest.raises(LookupError):
        await database.run(body)
    assert await names(database) == []


async def test_constraint_passes_through(database: Database) -> None:
    """A violated constraint reaches the caller as psycopg's own error, on a usable connection."""

    async def body(connection: Connection) -> None:
        await put(connection, "a", 1)
        await put(connection, "a", 2)

    with pytest.raises(errors.UniqueViolation):
        await database.run(body)
    assert await names(database) == []
    await database.run(lambda connection: put(connection, "b", 1))
    assert await names(database) == ["b"]


async def test_swallowed_error_is_no_success(database: Database) -> None:
    """A body that hides a failed statement does not look committed: the server rolled it back."""

    async def body(connection: Connection) -> None:
        await put(connection, "a", 1)
        try:
            await put(connection, "a", 1)
        except errors.UniqueViolation:
            return

    with pytest.raises(TransactionFailed):
        await database.run(body)
    assert await names(database) == []


async def test_savepoint_may_fail(database: Database) -> None:
    """A nested transaction may fail and be caught without harm to the outer one."""

    async def body(connection: Connection) -> None:
        await put(connection, "a", 1)
        with pytest.raises(errors.UniqueViolation):
            async with connection.transaction():
                await put(connection, "a", 1)

    await database.run(body)
    assert await names(database) == ["a"]


async def test_transactions_run_in_order(database: Database) -> None:
    """Transactions asked for at once run one after the other, in the order they were asked for."""
    order: list[int] = []
    running = 0

    async def body(connection: Connection, number: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await put(connection, f"{number:02}", number)
        order.append(number)
        running -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(
                database.run(lambda connection, number=number: body(connection, number))  # type: ignore[misc]
            )
    assert order == list(range(20))
    assert len(await names(database)) == 20


async def test_nested_run_is_refused(database: Database) -> None:
    """A body that calls run() again gets an error, not a deadlock."""

    async def body(_connection: Connection) -> None:
        await database.run(lambda connection: put(connection, "a", 1))

    with pytest.raises(StoreError, match="inside run"):
        await database.run(body)


async def test_serialization_failures_are_retried(database: Database, database_dsn: str) -> None:
    """A body the server could not serialise is run again from its start until it commits."""
    await database.run(lambda connection: put(connection, "a", 0))
    attempts = 0

    async def body(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("set transaction isolation level repeatable read")
        await connection.execute("select value from pair")
        if attempts <= 2:
            async with await psycopg.AsyncConnection.connect(database_dsn) as other:
                await other.execute("update pair set value = value + 10")
        await connection.execute("update pair set value = value + 1")

    await database.run(body)
    assert attempts == 3
    assert await pairs(database) == [Pair("a", 21)]


async def test_deadlocks_are_retried(database: Database, database_dsn: str) -> None:
    """Two programs that lock the same rows in opposite order both finish."""
    await database.run(lambda connection: put(connection, "a", 0))
    await database.run(lambda connection: put(connection, "b", 0))
    add = "update pair set value = value + 1 where name = %s"
    both = asyncio.Barrier(2)
    attempts: list[str] = []
    dsn = psycopg.conninfo.make_conninfo(database_dsn, options="-c deadlock_timeout=20ms")

    async def body(connection: Connection, order: str) -> None:
        attempts.append(order)
        await connection.execute(add, [order[0]])
        if attempts.count(order) == 1:
            await both.wait()
        await connection.execute(add, [order[1]])

    async with (
        Database(dsn, application_name="other") as other,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(database.run(lambda connection: body(connection, "ab")))
        group.create_task(other.run(lambda connection: body(connection, "ba")))
    assert len(attempts) == 3
    assert await pairs(database) == [Pair("a", 2), Pair("b", 2)]


async def test_slow_statement_is_cancelled(database_dsn: str) -> None:
    """A statement beyond its time is cancelled by the server, and its connection stays usable."""
    async with Database(database_dsn, application_name="test", answer_within=0.3) as database:

        async def pid(connection: Connection) -> Any:
            cursor = await connection.execute("select pg_backend_pid()")
            return await cursor.fetchone()

        async def slow(connection: Connection) -> None:
            await connection.execute("select pg_sleep(60)")

        before = await database.run(pid)
        with pytest.raises(StoreError, match="statement timeout"):
            await database.run(slow)
        with pytest.raises(StoreError, match="statement timeout"):
            await database.fetch_one_value("select pg_sleep(60)")
        assert await database.run(pid) == before


async def test_listen_is_in_force_when_it_returns(database: Database) -> None:
    """Nothing notified after listen() returned is missed, across several channels."""
    async with await database.listen("one", "Two words") as listener:
        await database.run(lambda connection: notify(connection, "one", "1"))
        await database.run(lambda connection: notify(connection, "Two words", "2"))
        await database.run(lambda connection: notify(connection, "other", "3"))
        await database.run(lambda connection: notify(connection, "one", "4"))
        received = [await anext(listener) for _ in range(3)]
    assert [(one.channel, one.payload) for one in received] == [
        ("one", "1"),
        ("Two words", "2"),
        ("one", "4"),
    ]


async def notify(connection: Connection, channel: str, payload: str) -> None:
    """Send a notification."""
    await connection.execute("select pg_notify(%s, %s)", [channel, payload])


async def test_listener_survives_cancelled_wait(database: Database) -> None:
    """Giving up a wait for a notification does not end the listener nor lose what comes next."""
    async with await database.listen("one") as listener:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(listener)
        await database.run(lambda connection: notify(connection, "one", "later"))
        assert (await anext(listener)).payload == "later"


async def test_close_ends_listeners(database: Database) -> None:
    """A task that waits for notifications sees the iteration end when the database is closed."""
    listener = await database.listen("one")
    heard: list[str] = []

    async def listen() -> None:
        async for notification in listener:
            heard.append(notification.payload)
            if notification.payload == "first":
                started.set()

    started = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(listen())
        await database.run(lambda connection: notify(connection, "one", "first"))
        await started.wait()
        await database.aclose()
    assert heard == ["first"]


async def test_throwaway_cluster_gives_no_warning(database: Database, log: Log) -> None:
    """A cluster that says it is throwaway may have fsync off without a warning."""
    assert await database.fetch_one_value("show fsync") == "off"
    assert log.events("database_not_durable") == []


async def test_undurable_server_is_told(database_dsn: str) -> None:
    """A server that may lose commits is told of once, and synchronous_commit is turned on."""
    told: list[str] = []
    dsn = psycopg.conninfo.make_conninfo(database_dsn, options="-c customerd.throwaway=off")
    async with Database(dsn, application_name="test", warn=told.append) as database:
        assert await database.fetch_one_value("show synchronous_commit") == "on"
    assert len(told) == 2
    assert any("synchronous_commit" in text for text in told)
    assert any("fsync" in text for text in told)


async def test_password_is_nowhere(database_dsn: str) -> None:
    """Neither the repr nor the error of a failed login holds the password."""
    dsn = psycopg.conninfo.make_conninfo(database_dsn, password="hunter2", user="nobody-here")
    database = Database(dsn, application_name="test")
    with pytest.raises(StoreError) as caught:
        await database.connect()
    assert "hunter2" not in repr(database)
    assert "hunter2" not in str(caught.value)
    assert "nobody-here" in str(caught.value)
    with pytest.raises(StoreError) as caught:
        Database("host=x hunter2", application_name="test")
    assert "hunter2" not in str(caught.value)
