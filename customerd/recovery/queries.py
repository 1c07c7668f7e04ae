"""Statements about operations that wait for a word, go ahead of others, or are taken up again."""

from __future__ import annotations

from customerd.store.events import Change
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
        where held and (%(operation)s::bytea is null or operation = %(operation)s)
        """,
        {"operation": operation},
    )


async def held(database: Database) -> frozenset[bytes]:
    """Return the operations that wait for the user's word."""
    rows = await database.fetch("select operation from operation where held", row=bytes)
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


async def unfinished_recovery(change: Change, channel: bytes) -> bytes | None:
    """Return the recovery that is at work on a channel."""
    cursor = await change.connection.execute(
        """
        select operation from operation
        where channel = %(channel)s and kind = 'recover' and status in ('queued', 'running')
        """,
        {"channel": channel},
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


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


async def forget_attempt(change: Change, operation: bytes) -> None:
    """Forget the request of a payment whose state was spent by another: it is made anew."""
    await change.execute(
        "delete from attempt where operation = %(operation)s", {"operation": operation}
    )
