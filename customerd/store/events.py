"""Events: appended in the transaction they tell of, numbered without gaps, published after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from psycopg import AsyncConnection

from customerd.channels.escrows import escrows
from customerd.channels.record import Escrow
from customerd.store.lease import LeasedDatabase
from customerd.store.writes import Event, Occurrences, Writes

__all__ = ["Change", "Event", "EventBus", "Store"]

T = TypeVar("T")

SUBSCRIBER_BACKLOG = 10_000
"""Events a subscriber may lag behind before it has to resume from the table."""


class Change(Occurrences):
    """An open transaction: its connection, and the events that its commit publishes."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        super().__init__()
        self.connection = connection

    async def execute(self, query: str, parameters: dict[str, Any] | None = None) -> int:
        """Run one statement; return the number of rows it changed."""
        cursor = await self.connection.execute(query, parameters)
        return cursor.rowcount

    async def include(self, writes: Writes) -> None:
        """Run what could have been a transaction of its own within this one."""
        for statement, otherwise in writes.parts:
            if not await self.execute(*statement) and otherwise is not None:
                raise otherwise
        self.pending.extend(writes.pending)

    async def write_events(self) -> list[Event]:
        """Insert the recorded events and return them with their numbers."""
        if not self.pending:
            return []
        cursor = await self.connection.execute(*self.compose())
        row = await cursor.fetchone()
        assert row is not None
        return self.numbered(*row)


class EventBus:
    """Hands committed events to the subscribers of this process."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, events: Sequence[Event]) -> None:
        """Give events to every subscriber; one that lags too far is told to resume."""
        for event in events:
            for queue in self._queues:
                if queue.qsize() >= SUBSCRIBER_BACKLOG:
                    self._overflow(queue)
                elif not queue.full():
                    queue.put_nowait(event)

    @staticmethod
    def _overflow(queue: asyncio.Queue[Event | None]) -> None:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[asyncio.Queue[Event | None]]:
        """Yield a queue of events from now on; None in it means: resume from the table."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)


class Store:
    """The database together with the events that its changes publish."""

    def __init__(self, database: LeasedDatabase) -> None:
        self.database = database
        self.bus = EventBus()
        self._escrows: dict[bytes, Escrow] = {}

    async def escrow(self, address: bytes) -> Escrow:
        """Return a known escrow; its terms never change, so it is read once."""
        if address not in self._escrows:
            self._escrows = await escrows(self.database)
        return self._escrows[address]

    async def change(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run `body` in one transaction and publish its events once it is committed."""
        published: list[Event] = []

        async def transaction(connection: AsyncConnection[Any]) -> T:
            published.clear()
            change = Change(connection)
            result = await body(change)
            published.extend(await change.write_events())
            return result

        result = await self.database.run(transaction)
        self.bus.publish(published)
        return result

    async def write(self, writes: Writes) -> float:
        """Commit writes in one statement and publish their events once it is committed.

        Returns the Unix time that they carry.

        Raises what a write's `otherwise` says, LeaseLost, and what Database.run_alone raises.
        """
        last, time = await self.database.write(writes)
        self.bus.publish(writes.numbered(last, time))
        return time

    async def events(
        self,
        *,
        after: int | None = None,
        before: int | None = None,
        channels: Collection[bytes] | None = None,
        operation: bytes | None = None,
        limit: int = 100,
    ) -> list[Event]:
        """Read events, ascending when `after` is given, else newest first.

        `channels`: only what happened on one of these; None: everything.
        """
        order = "asc" if after is not None else "desc"
        return await self.database.fetch(
            f"""
            select seq, extract(epoch from time)::float8,
                   topic, kind, channel, label, operation, details
            from event
            where seq > %(after)s and seq < %(before)s
              and (%(channels)s::bytea[] is null or channel = any(%(channels)s))
              and (%(operation)s::bytea is null or operation = %(operation)s)
            order by seq {order} limit %(limit)s
            """,  # noqa: S608 - `order` is one of two literals
            {
                "after": after if after is not None else 0,
                "before": before if before is not None else 2**63 - 1,
                "channels": None if channels is None else list(channels),
                "operation": operation,
                "limit": limit,
            },
            row=Event,
        )

    async def last_seq(self) -> int:
        """Return the number of the newest event, 0 when there is none."""
        return int(
            await self.database.fetch_one_value("select coalesce(max(seq), 0) from event") or 0
        )
