"""Statements about operations that wait for a word, go ahead of others, or are taken up again."""

from __future__ import annotations

from typing import Any

from customerd.store.events import Change
from customerd.store.writes import Statement
from zkchannels.store.database import Database

_HOLDABLE = "kind in ('establish', 'pay', 'refund') and status in ('queued', 'running')"


async def hold_queue(change: Change) -> int:
    """Hold every operation that has written no request; return how many were not held before."""
    return await change.execute(
        f"""
        update operation set held = true, updated = now()
        where {_HOLDABLE} and not held
          and not exists (select from attempt where attempt.operation = operation.operation)
        """
    )


async def release(change: Change, operation: bytes | None) -> int:
    """Let one held operation go on, or all; return how many were held."""
    return await change.execute(
        """
        update operation set held = false, updated = now()
        where held and status in ('queued', 'running')
          and (%(operation)s::bytea is null or operation = %(operation)s)
        """,
        {"operation": operation},
    )


async def held(database: Database) -> frozenset[bytes]:
    """Return the operations that wait for the user's word."""
    rows = await database.fetch(
        "select operation from operation where held and status in ('queued', 'running')",
        row=bytes,
    )
    return frozenset(rows)


async def ahead(database: Database) -> frozenset[bytes]:
    """Return the unfinished operations that must not wait behind others on their channel.

    A recovery is what a suspect channel's payments wait for; and a close of a channel that pays no
    more goes ahead of payments that rest.
    """
    rows = await database.fetch(
        """
        select operation from operation join channel using (channel)
        where operation.status in ('queued', 'running')
          and (kind = 'recover' or kind = 'close'
               and (force or channel.status in ('suspect', 'asked', 'decided')))
        """,
        row=bytes,
    )
    return frozenset(rows)


async def unfinished_recovery(database: Database, channel: bytes) -> bytes | None:
    """Return the recovery that is at work on a channel."""
    return await database.fetch_one(
        """
        select operation from operation
        where channel = %(channel)s and kind = 'recover' and status in ('queued', 'running')
        """,
        {"channel": channel},
        row=bytes,
    )


async def unfinished_attempt(change: Change, channel: bytes, index: int) -> int | None:
    """Return the attempt of an unfinished payment that leads to a state."""
    cursor = await change.connection.execute(
        """
        select attempt.attempt from attempt join operation using (operation)
        where attempt.channel = %(channel)s and index = %(index)s
          and status in ('queued', 'running')
        order by attempt.attempt desc limit 1
        """,
        {"channel": channel, "index": index},
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def was_refused(database: Database, channel: bytes, index: int, commitments: bytes) -> bool:
    """Whether a payment with these commitments (144 bytes) ended as refused: nothing was paid."""
    found = await database.fetch_one_value(
        """
        select exists (
            select from attempt join operation using (operation)
            where attempt.channel = %(channel)s and index = %(index)s and status = 'refused'
              and substring(proof from 97 for 144) = %(commitments)s)
        """,
        {"channel": channel, "index": index, "commitments": commitments},
    )
    return bool(found)


async def forget_attempt(change: Change, operation: bytes) -> None:
    """Forget the request of a payment whose state was spent by another: it is made anew."""
    await change.execute(
        "delete from attempt where operation = %(operation)s", {"operation": operation}
    )


def insertion(**values: Any) -> Statement:
    """Return the statement that records a channel found on chain, of which nothing else is known.

    Its commit raises psycopg.errors.UniqueViolation when the label is taken.
    """
    return Statement(
        """
        insert into channel (channel, label, escrow, host, port, salt, customer_deposit,
            merchant_deposit, status, customer_balance, merchant_balance, doubtful, restored)
        values (%(channel)s, %(label)s, %(escrow)s, %(host)s, %(port)s, %(salt)s,
            %(customer_deposit)s, %(merchant_deposit)s, 'new', %(customer_deposit)s,
            %(merchant_deposit)s, true, %(restored)s)
        """,
        values,
    )
