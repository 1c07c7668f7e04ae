"""Subscriptions: recorded events as notifications, gap-free and resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from customerd.rpc import methods, views
from customerd.store.events import Event, Store
from customerd.tokens.grant import OWNER, Scope
from zkchannels.jsonrpc.errors import ConnectionLost
from zkchannels.jsonrpc.peer import Peer, current_call
from zkchannels.store.database import DatabaseUnavailable

PAGE = 500
NOTIFICATION = "event"


class _Subscriber:
    """Which events a connection is sent: those asked for among those that may be seen.

    `after`: number of the newest event that was sent, or passed over.
    """

    __slots__ = ("after", "peer", "scope", "topics")

    def __init__(self, peer: Peer, topics: Collection[str], scope: Scope, after: int) -> None:
        self.peer = peer
        self.topics = frozenset(topics)
        self.scope = scope
        self.after = after

    def takes(self, event: Event) -> bool:
        return (not self.topics or event.topic in self.topics) and self.scope.sees(event.channel)

    async def send(self, events: Sequence[Event]) -> None:
        for event in events:
            if self.takes(event):
                await self.peer.drain()
                self.peer.notify(NOTIFICATION, views.event(event))
            self.after = event.seq


class Subscriptions:
    """Every subscriber has a task of its own that waits for it alone when it reads slowly."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: asyncio.Queue[_Subscriber] = asyncio.Queue()
        self._at_work: dict[_Subscriber, asyncio.Task[None] | None] = {}

    async def subscribe(
        self, params: methods.SubscribeParams, peer: Peer, scope: Scope
    ) -> methods.Subscribed:
        """Begin to send events numbered above `after`, or from now on."""
        after = params.after if params.after is not None else await self._store.last_seq()
        self._add(_Subscriber(peer, params.topics, scope, after))
        call = current_call()
        if call is not None:
            call.note = str(after).encode()
        return methods.Subscribed(after=after)

    def go_on(self, peer: Peer, topics: Collection[str], after: int) -> None:
        """Go on with a subscription of the owner that another process had begun."""
        self._add(_Subscriber(peer, topics, OWNER, after))

    def _add(self, subscriber: _Subscriber) -> None:
        self._at_work[subscriber] = None
        self._wanted.put_nowait(subscriber)

    async def end(self) -> dict[Peer, list[tuple[list[str], int]]]:
        """Send nothing more; return by connection the topics of its subscriptions, and how far."""
        tasks = [task for task in self._at_work.values() if task is not None]
        for task in tasks:
            task.cancel()
        cursors: dict[Peer, list[tuple[list[str], int]]] = {}
        subscribers = list(self._at_work)
        if tasks:
            await asyncio.wait(tasks)
        while not self._wanted.empty():
            self._wanted.get_nowait()
        for each in subscribers:
            cursors.setdefault(each.peer, []).append((sorted(each.topics), each.after))
        return cursors

    async def run(self) -> None:
        """Start a task for every new subscriber, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                subscriber = await self._wanted.get()
                task = group.create_task(self._serve(subscriber), name="subscriber")
                self._at_work[subscriber] = task

    async def _serve(self, subscriber: _Subscriber) -> None:
        """Send what is recorded already, then what is published, until the peer is gone."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(subscriber))
            await subscriber.peer.wait_closed()
            sending.cancel()
        del self._at_work[subscriber]

    async def _send(self, subscriber: _Subscriber) -> None:
        try:
            async with self._store.bus.subscription() as queue:
                await self._catch_up(subscriber)
                while True:
                    event = await queue.get()
                    if event is None:
                        await self._catch_up(subscriber)
                    elif event.seq == subscriber.after + 1:
                        await subscriber.send([event])
                    elif event.seq > subscriber.after:
                        # One in between was committed without our hearing of it.
                        await self._catch_up(subscriber)
        except ConnectionLost:
            return

    async def _catch_up(self, subscriber: _Subscriber) -> None:
        while True:
            try:
                events = await self._store.events(after=subscriber.after, limit=PAGE)
            except DatabaseUnavailable:
                await asyncio.sleep(1.0)
                continue
            await subscriber.send(events)
            if len(events) < PAGE:
                return
