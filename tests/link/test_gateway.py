"""The daemon's side of the link by itself, on a real socket and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from customerd.config import SignerSettings
from customerd.signing.gateway import REQUESTS, Gateway
from customerd.store.events import Store
from customerd.store.lease import LeasedDatabase
from tests.link.parts import PATIENCE, wallet
from zkchannels.chain.store import COMPONENT
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Limits, Peer
from zkchannels.jsonrpc.server import connect_unix
from zkchannels.service.sockets import bind_owner_only
from zkchannels.store.migrate import Component, migrate
from zkchannels.wire import signer as wire
from zkchannels.wire.pairing import NO_CHANNEL


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[Store]:
    """A database with its lease taken."""
    database = LeasedDatabase(database_dsn, application_name="test", holder="test", seconds=60)
    await database.connect()
    await migrate(database, (COMPONENT, Component("customerd", "customerd.store")))
    await database.take_lease()
    yield Store(database)
    await database.aclose()


async def test_a_signer_with_a_long_queue_is_no_dead_signer(store: Store, place: Path) -> None:
    """Pings find their way among more slow requests than may be in flight; then all are done."""
    began, may_answer, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    pings: asyncio.Queue[None] = asyncio.Queue()
    most = asked = 0

    async def flood(gateway: Gateway) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2 * REQUESTS):
                group.create_task(
                    gateway.request_uncompared(wire.RECORDS, wire.RecordsParams(limit=1))
                )

    def ping(_params: wire.Nothing, _peer: Peer) -> wire.Done:
        pings.put_nowait(None)
        return wire.Done()

    async def records(_params: wire.RecordsParams, _peer: Peer) -> wire.Records:
        nonlocal asked, most
        asked, most = asked + 1, max(most, asked + 1)
        began.set()
        await may_answer.wait()
        asked -= 1
        return wire.Records([])

    gateway = Gateway(
        SignerSettings(ping_interval=0.1, gone_after=1.0, request_timeout=PATIENCE),
        store,
        certificate=place / "link.pem",
        open_to_group=False,
        compare=flood,
        on_ready=ready.set,
        on_lost=lambda: None,
    )
    gateway.idle = ""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        running = group.create_task(gateway.run([bind_owner_only(place / "signer.sock")]))
        handlers = Handlers(task_group=group)
        handlers.register(wire.PING, ping)
        handlers.register(wire.RECORDS, records)
        peer = await connect_unix(
            place / "signer.sock", handlers, limits=Limits(max_outstanding=1024)
        )
        hello = wire.LinkHelloParams(wire.LINK_VERSION, wallet().identity)
        challenge = (await peer.request(wire.LINK_HELLO, hello)).challenge
        answer = wallet().answer(challenge, NO_CHANNEL)
        await peer.request(
            wire.LINK_ATTACH,
            wire.LinkAttachParams(answer, wallet().account.address, bytes(16)),
        )
        await began.wait()
        for _ in range(15):  # longer than it may be silent
            await pings.get()
        assert not ready.is_set()
        assert not peer.closed
        may_answer.set()
        await ready.wait()
        assert most == REQUESTS
        peer.abort()
        running.cancel()
