"""Taking over a closing authorization: what it reads does not grow with a channel's payments."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from customerd.channels import queries as channels
from customerd.store.writes import Writes
from zkchannels.store.database import Database
from zkchannels.store.migrate import Component, migrate
from zkchannels.wire.signer import Authorization

CHANNEL, PAYMENTS = b"\1" * 32, 5_000


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """The daemon's database with one channel that has paid often."""
    async with Database(database_dsn, application_name="test") as opened:
        await migrate(opened, [Component("customerd", "customerd.store")])
        await opened.run(_pay_often)
        yield opened


async def _pay_often(connection: AsyncConnection[Any]) -> None:
    values = {"channel": CHANNEL, "payments": PAYMENTS}
    await connection.execute(
        """
        insert into escrow values (decode(repeat('02', 20), 'hex'), 1, decode(repeat('03', 20),
            'hex'), decode(repeat('00', 20), 'hex'), 'ETH', 18, 1000000000, 3600,
            decode(repeat('04', 240), 'hex'), decode(repeat('05', 1792), 'hex'))
        """
    )
    await connection.execute(
        """
        insert into channel (channel, label, escrow, host, port, salt, customer_deposit,
            merchant_deposit, status, index, customer_balance, merchant_balance, token, authorized)
        values (%(channel)s, 'often', decode(repeat('02', 20), 'hex'), 'shop', 1, %(channel)s,
            1000000, 0, 'proved', %(payments)s, 1000000 - %(payments)s, %(payments)s,
            decode(repeat('06', 96), 'hex'), %(payments)s)
        """,
        values,
    )
    await connection.execute(
        """
        insert into state
        select %(channel)s, number, 0, sha256(number::text::bytea), 1000000 - number, number,
            case number when %(payments)s then decode(repeat('07', 256), 'hex') end,
            decode(repeat('08', 20), 'hex'),
            case number when %(payments)s then decode(repeat('09', 65), 'hex') end
        from generate_series(0, %(payments)s) as made (number)
        """,
        values,
    )


async def test_the_next_payment_reads_no_earlier_one(database: Database) -> None:
    """Of thousands of states only the one that still has its authorization is looked at."""
    row = await channels.channel_by_id(database, CHANNEL)
    assert row is not None
    number = PAYMENTS + 1
    authorization = Authorization(
        number, 0, b"\2" * 32, 1_000_000 - number, number, b"\7" * 256, b"\10" * 20, b"\11" * 65
    )
    writes = Writes()
    channels.adopt_with(writes, row, authorization)
    statement = writes.compose()

    async def explain(connection: AsyncConnection[Any]) -> list[dict[str, Any]]:
        analysed = f"explain (analyze, format json) {statement.text}"
        cursor = await connection.execute(analysed, statement.values)
        found = await cursor.fetchone()
        assert found is not None
        return list(_nodes(found[0][0]["Plan"]))

    nodes = await database.run(explain)
    assert sum(node.get("Rows Removed by Filter", 0) for node in nodes) == 0, json.dumps(nodes)
    signed = "select index from state where signature is not null"
    assert await database.fetch_one_value(signed) == number


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
