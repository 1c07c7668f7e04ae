"""The merchant's records: what the watcher asks at every block does not grow with the payments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from merchantd.store.records import Records
from merchantd.store.schema import migrate_all
from zkchannels.store.database import Database

PAYMENTS = 5_000
_READ = "select coalesce(seq_tup_read + idx_tup_fetch, 0) from pg_stat_user_tables"
_FLUSH = "select pg_stat_force_next_flush()"


@pytest.fixture
async def records(database_dsn: str) -> AsyncIterator[Records]:
    """The records of a merchant who was paid often, and two of whose channels were closed."""
    async with Database(database_dsn, application_name="test") as database:
        await migrate_all(database)
        await database.run(_be_paid)
        yield Records(database)


async def _be_paid(connection: AsyncConnection[Any]) -> None:
    await connection.execute(
        f"""
        create temporary table made on commit drop as
        select number, sha256(('nonce ' || number)::bytea) as nonce,
            substr(sha256(('session ' || number)::bytea), 1, 16) as session
        from generate_series(1, {PAYMENTS}) as each (number)
        """
    )
    await connection.execute(
        """
        insert into verdict (subject, commitments, session, accepted)
        select nonce, decode(repeat('01', 144), 'hex'), session, true from made
        """
    )
    await connection.execute(
        """
        insert into payment (nonce, commitments, session, amount, note, closing_answer,
            token_answer, revoked, service_note)
        select nonce, decode(repeat('01', 144), 'hex'), session, 1, '',
            decode(repeat('02', 96), 'hex'), decode(repeat('03', 96), 'hex'), now(), '' from made
        """
    )
    await connection.execute(
        """
        insert into lock (lock, origin, nonce, secret)
        select sha256(nonce), 'revoked', nonce, nonce from made
        """
    )
    for number, secret in ((1, b"\1" * 32), (2, None)):
        channel = bytes([number]) * 32
        await connection.execute(
            "insert into verdict (subject, commitments, session, accepted)"
            " values (%s, decode(repeat('01', 96), 'hex'), %s, true)",
            (channel, channel[:16]),
        )
        await connection.execute(
            """
            insert into channel (channel, commitments, session, customer, salt, customer_deposit,
                merchant_deposit, note, closing_answer)
            values (%s, decode(repeat('01', 96), 'hex'), %s, decode(repeat('04', 20), 'hex'),
                decode(repeat('05', 32), 'hex'), 1, 0, '', decode(repeat('06', 96), 'hex'))
            """,
            (channel, channel[:16]),
        )
        await connection.execute(
            "insert into lock (lock, origin, channel, secret) values (%s, 'closing', %s, %s)",
            (bytes([number + 100]) * 32, channel, secret),
        )


async def test_looking_for_closings_reads_no_payment(records: Records) -> None:
    """Of thousands of locks only those of closed channels are looked at."""
    await records.database.run(_analyze)
    before = await _read(records)
    assert await records.secrets_of_closings() == {b"\1" * 32}
    assert not await records.agreed_to_close(b"\1" * 32, 1, 0)
    assert await _read(records) - before < 20


async def _analyze(connection: AsyncConnection[Any]) -> None:
    await connection.execute("analyze")


async def _read(records: Records) -> int:
    """Return how many rows of the locks the reader's session has read."""
    await records.database.fetch_one_value(_FLUSH)
    number = await records.database.fetch_one_value(f"{_READ} where relname = 'lock'")
    return int(number)
