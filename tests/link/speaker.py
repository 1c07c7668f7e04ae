"""A signer that the test plays itself, over real TLS: to be slow, to hang, to say what it likes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from customersigner.pairing import read_paired
from tests.link.parts import PATIENCE, Signer, wallet
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_tls
from zkchannels.service.tls import fingerprint_of, own_certificate, pinning_client_context
from zkchannels.wire import signer as wire
from zkchannels.wire.pairing import read_address


class Speaker:
    """One link with the files of a paired signer; what it answers the test decides."""

    def __init__(self, signer: Signer) -> None:
        (paired,) = read_paired(signer.state / "daemon.json")
        assert paired.certificate is not None
        self.address = paired.address
        self.own = signer.state / "link.pem"
        self.certificate = paired.certificate
        self.channel = fingerprint_of(paired.certificate) + fingerprint_of(
            own_certificate(self.own)
        )
        self.instance = secrets.token_bytes(16)
        self.pings = 0
        self.answers_pings = asyncio.Event()
        self.answers_pings.set()
        self.answers_records = asyncio.Event()
        self.answers_records.set()
        self.asked = asyncio.Event()

    def register(self, handlers: Handlers) -> None:
        """Answer pings and requests for records."""
        handlers.register(wire.PING, self._ping)
        handlers.register(wire.RECORDS, self._records)

    async def connect(self, handlers: Handlers | None = None) -> Peer:
        """Connect, with the certificates pinned."""
        host, port = read_address(self.address)
        context = pinning_client_context(self.own, pinned=self.certificate)
        return await connect_tls(host, port, context, handlers)

    async def hello(self, peer: Peer) -> bytes:
        """Introduce the wallet; return the challenge."""
        params = wire.LinkHelloParams(wire.LINK_VERSION, wallet().identity)
        return (await peer.request(wire.LINK_HELLO, params, timeout=PATIENCE)).challenge

    async def attach(
        self, peer: Peer, answer: Callable[[bytes], bytes] | None = None
    ) -> wire.Attached:
        """Introduce and attach; `answer` signs the challenge, by default rightly."""
        challenge = await self.hello(peer)
        signed = wallet().answer(challenge, self.channel) if answer is None else answer(challenge)
        params = wire.LinkAttachParams(signed, wallet().account.address, self.instance)
        return await peer.request(wire.LINK_ATTACH, params, timeout=PATIENCE)

    async def _ping(self, _params: wire.Nothing, _peer: Peer) -> wire.Done:
        self.pings += 1
        await self.answers_pings.wait()
        return wire.Done()

    async def _records(self, _params: wire.RecordsParams, _peer: Peer) -> wire.Records:
        self.asked.set()
        await self.answers_records.wait()
        return wire.Records([])


@asynccontextmanager
async def speaking(speaker: Speaker) -> AsyncIterator[Peer]:
    """An attached link for as long as the body runs."""
    async with asyncio.TaskGroup() as group:
        handlers = Handlers(task_group=group)
        speaker.register(handlers)
        peer = await speaker.connect(handlers)
        try:
            await speaker.attach(peer)
            yield peer
        finally:
            peer.abort()
            speaker.answers_pings.set()
            speaker.answers_records.set()
