"""A transaction of writes alone: one statement, all or nothing, with its events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from customerd.store.events import Store
from customerd.store.lease import LeasedDatabase, LeaseLost
from customerd.store.writes import Statement, Writes
from zkchannels.store.migrate import Component, migrate


class Missing(Exception):
    """A write of the test changed nothing."""


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[LeasedDatabase]:
    """The daemon's database, with the lease taken and a table to write to."""
    async with LeasedDatabase(
        database_dsn, application_name="test", holder="me", seconds=60
    ) as leased:
        await migrate(leased, [Component("customerd", "customerd.store")])
        await leased.run(_prepare)
        await leased.take_lease()
        yield leased


async def _prepare(connection: AsyncConnection[Any]) -> None:
    await connection.execute("create table thing (name text primary key, value int)")
    await connection.execute("insert into thing values ('there', 1)")


def _set(name: str, value: int) -> Statement:
    return Statement(
        "update thing set value = %(value)s where name = %(name)s", {"name": name, "value": value}
    )


async def test_writes_and_events_are_one_commit(database: LeasedDatabase) -> None:
    """Several writes with parameters of the same names, and two events, numbered without a gap."""
    store = Store(database)
    writes = Writes()
    writes.add(_set("there", 2), otherwise=Missing)
    writes.add(
        Statement("insert into thing values (%(name)s, %(value)s)", {"name": "new", "value": 3})
    )
    writes.event("log", "first", channel=b"\1" * 32, label="a%(b)s", step=None)
    writes.event("log", "second", operation=b"\2" * 16)
    async with store.bus.subscription() as queue:
        await store.write(writes)
        published = [queue.get_nowait(), queue.get_nowait()]
    assert published == await store.events(after=0)
    assert [event.seq for event in published if event] == [1, 2]
    rows = await database.fetch("select name, value from thing order by name", row=lambda *row: row)
    assert rows == [("new", 3), ("there", 2)]


async def test_a_write_that_must_change_a_row_undoes_all_when_it_does_not(
    database: LeasedDatabase,
) -> None:
    """The exception that the write names is raised, and neither row nor event is there."""
    store = Store(database)
    writes = Writes()
    writes.add(_set("there", 2), otherwise=Missing)
    writes.add(_set("absent", 2), otherwise=Missing)
    writes.event("log", "never")
    with pytest.raises(Missing):
        await store.write(writes)
    assert await database.fetch_one_value("select value from thing") == 1
    assert await store.events(after=0) == []
    permitted = Writes()
    permitted.add(_set("absent", 2))
    await store.write(permitted)


async def test_nothing_is_written_without_the_lease(
    database: LeasedDatabase, database_dsn: str
) -> None:
    """A daemon whose lease was taken over writes nothing."""
    await database.release_lease()
    async with LeasedDatabase(
        database_dsn, application_name="test", holder="other", seconds=60
    ) as other:
        await other.take_lease()
        writes = Writes()
        writes.add(_set("there", 2), otherwise=Missing)
        with pytest.raises(LeaseLost):
            await Store(database).write(writes)
        assert await other.fetch_one_value("select value from thing") == 1


async def test_a_connection_lost_while_idle_is_remade(database: LeasedDatabase) -> None:
    """A server that ended the idle connection costs nothing: the statement was not sent on it."""
    store = Store(database)
    await database.fetch_one_value(
        "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity "
        "where application_name = 'test' and pid <> pg_backend_pid()"
    )
    writes = Writes()
    writes.add(_set("there", 2), otherwise=Missing)
    await store.write(writes)
    assert await database.fetch_one_value("select value from thing") == 2
