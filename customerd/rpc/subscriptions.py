"""Subscriptions: recorded events as notifications, gap-free and resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from customerd.rpc import methods, views
from customerd.store.events import Event, Store
from zkchannels.jsonrpc.errors import ConnectionLost
from zkchannels.jsonrpc.peer import Peer
from zkchannels.store.database import DatabaseUnavailable

PAGE = 500
NOTIFICATION = "event"


class Subscriptions:
    """Every subscriber has a task of its own that waits for it alone when it reads slowly."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: asyncio.Queue[tuple[Peer, frozenset[str], int]] = asyncio.Queue()

    async def subscribe(self, params: methods.SubscribeParams, peer: Peer) -> methods.Subscribed:
        """Begin to send events numbered above `after`, or from now on."""
        after = params.after if params.after is not None else await self._store.last_seq()
        self._wanted.put_nowait((peer, frozenset(params.topics), after))
        return methods.Subscribed(after=after)

    async def run(self) -> None:
        """Start a task for every new subscriber, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                peer, topics, after = await self._wanted.get()
                group.create_task(self._serve(peer, topics, after), name="subscriber")

    async def _serve(self, peer: Peer, topics: frozenset[str], after: int) -> None:
        """Send what is recorded already, then what is published, until the peer is gone."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(peer, topics, after))
            await peer.wait_closed()
            sending.cancel()

    async def _send(self, peer: Peer, topics: frozenset[str], after: int) -> None:
        try:
            async with self._store.bus.subscription() as queue:
                after = await self._catch_up(peer, topics, after)
                while True:
                    event = await queue.get()
                    if event is None:
                        after = await self._catch_up(peer, topics, after)
                    elif event.seq == after + 1:
                        after = event.seq
                        await _notify(peer, topics, [event])
                    elif event.seq > after:
                        # One in between was committed without our hearing of it.
                        after = await self._catch_up(peer, topics, after)
        except ConnectionLost:
            return

    async def _catch_up(self, peer: Peer, topics: frozenset[str], after: int) -> int:
        while True:
            try:
                events = await self._store.events(after=after, limit=PAGE)
            except DatabaseUnavailable:
                await asyncio.sleep(1.0)
                continue
            await _notify(peer, topics, events)
            if events:
                after = events[-1].seq
            if len(events) < PAGE:
                return after


async def _notify(peer: Peer, topics: frozenset[str], events: Sequence[Event]) -> None:
    for event in events:
        if not topics or event.topic in topics:
            await peer.drain()
            peer.notify(NOTIFICATION, views.event(event))
