"""Subscriptions: recorded events as notifications, gap-free and resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from customerd.rpc import methods, views
from customerd.store.events import Event, Store
from customerd.tokens.grant import Scope
from zkchannels.jsonrpc.errors import ConnectionLost
from zkchannels.jsonrpc.peer import Peer
from zkchannels.store.database import DatabaseUnavailable

PAGE = 500
NOTIFICATION = "event"


class _Choice(NamedTuple):
    """Which events a subscriber is sent: those asked for among those that may be seen."""

    topics: frozenset[str]
    scope: Scope

    def takes(self, event: Event) -> bool:
        return (not self.topics or event.topic in self.topics) and self.scope.sees(event.channel)


class Subscriptions:
    """Every subscriber has a task of its own that waits for it alone when it reads slowly."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: asyncio.Queue[tuple[Peer, _Choice, int]] = asyncio.Queue()

    async def subscribe(
        self, params: methods.SubscribeParams, peer: Peer, scope: Scope
    ) -> methods.Subscribed:
        """Begin to send events numbered above `after`, or from now on."""
        after = params.after if params.after is not None else await self._store.last_seq()
        self._wanted.put_nowait((peer, _Choice(frozenset(params.topics), scope), after))
        return methods.Subscribed(after=after)

    async def run(self) -> None:
        """Start a task for every new subscriber, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                peer, choice, after = await self._wanted.get()
                group.create_task(self._serve(peer, choice, after), name="subscriber")

    async def _serve(self, peer: Peer, choice: _Choice, after: int) -> None:
        """Send what is recorded already, then what is published, until the peer is gone."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(peer, choice, after))
            await peer.wait_closed()
            sending.cancel()

    async def _send(self, peer: Peer, choice: _Choice, after: int) -> None:
        try:
            async with self._store.bus.subscription() as queue:
                after = await self._catch_up(peer, choice, after)
                while True:
                    event = await queue.get()
                    if event is None:
                        after = await self._catch_up(peer, choice, after)
                    elif event.seq == after + 1:
                        after = event.seq
                        await _notify(peer, choice, [event])
                    elif event.seq > after:
                        # One in between was committed without our hearing of it.
                        after = await self._catch_up(peer, choice, after)
        except ConnectionLost:
            return

    async def _catch_up(self, peer: Peer, choice: _Choice, after: int) -> int:
        while True:
            try:
                events = await self._store.events(after=after, limit=PAGE)
            except DatabaseUnavailable:
                await asyncio.sleep(1.0)
                continue
            await _notify(peer, choice, events)
            if events:
                after = events[-1].seq
            if len(events) < PAGE:
                return after


async def _notify(peer: Peer, choice: _Choice, events: Sequence[Event]) -> None:
    for event in events:
        if choice.takes(event):
            await peer.drain()
            peer.notify(NOTIFICATION, views.event(event))
