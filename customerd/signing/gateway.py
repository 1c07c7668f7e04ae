"""The signer's link: accepts it, checks who it is, compares records, and tells when it is gone.

One signer is attached at a time; a newer authenticated link takes over from an older one, which
may be half dead. Requests belong to one link: they fail with SignerAway when it ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from customerd.config import SignerSettings
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.signing.wallet import WalletMismatch, bind_wallet
from customerd.store.events import Store
from zkchannels.escrow.ethereum import checksum, keccak256, recover
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import serve
from zkchannels.service.logging import get_logger
from zkchannels.service.sockets import peer_credentials
from zkchannels.store.database import DatabaseUnavailable
from zkchannels.wire import signer as wire

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

log = get_logger("customerd.signing")


class Link:
    """One authenticated connection of a signer."""

    def __init__(
        self, peer: Peer, generation: int, identity: bytes, account: bytes, policies: list[str]
    ) -> None:
        self.peer = peer
        self.generation = generation
        self.identity = identity
        self.account = account
        self.policies = policies


class Gateway:
    """The daemon's side of the link; `ready` when a signer is attached and compared."""

    def __init__(
        self,
        settings: SignerSettings,
        store: Store,
        *,
        compare: Callable[[Gateway], Awaitable[None]],
        on_ready: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._compare = compare
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._introductions: dict[Peer, tuple[bytes, bytes]] = {}
        self._arrived: asyncio.Queue[Link] = asyncio.Queue()
        self._link: Link | None = None
        self._ready = asyncio.Event()
        self.generation = 0
        self.compared = False
        """Whether a signer was compared with the database since this daemon started."""
        self.identity: bytes | None = None
        self.account: bytes | None = None
        self.since: float | None = None
        self.unknown_channels: frozenset[bytes] = frozenset()
        """Channels that the signer has records of and the database does not."""
        self.completed_states: dict[bytes, int] = {}
        """By channel the newest state whose pay token the signer had checked when compared."""

    @property
    def ready(self) -> bool:
        """Whether requests that spend may be made."""
        return self._ready.is_set()

    @property
    def attached(self) -> bool:
        """Whether an authenticated signer is connected, compared or not."""
        return self._link is not None

    @property
    def policies(self) -> list[str]:
        """Names of the policies that the attached signer enforces."""
        return [] if self._link is None else self._link.policies

    def completed(self, channel: bytes, known: int | None) -> int | None:
        """Return the newest state with a pay token that signer or database (`known`) have seen."""
        signers = self.completed_states.get(channel)
        if known is None or signers is None:
            return signers if known is None else known
        return max(known, signers)

    def compare_again(self) -> None:
        """Let go of the signer: it dials again, and is compared with what the database is now."""
        self.compared = False
        if self._link is not None:
            self._link.peer.abort()

    async def wait_ready(self) -> None:
        """Return once a signer is attached and compared."""
        await self._ready.wait()

    async def request(self, method: Method[P, R], params: P) -> R:
        """Ask the attached signer; raises SignerAway, SignerSlow, or its RpcError."""
        if not self.ready:
            raise SignerAway
        return await self.request_uncompared(method, params)

    async def request_uncompared(self, method: Method[P, R], params: P) -> R:
        """Ask a signer that is still being compared; for the comparison alone."""
        self._store.database.require_lease()
        link = self._link
        if link is None:
            raise SignerAway
        try:
            return await link.peer.request(method, params, timeout=self._settings.request_timeout)
        except ConnectionLost:
            raise SignerAway from None
        except RequestTimeout:
            raise SignerSlow from None

    async def run(self, listening: socket.socket) -> None:
        """Serve the signer's socket and look after the attached link, until cancelled."""
        async with asyncio.TaskGroup() as group:
            handlers = Handlers(task_group=group)
            handlers.register(wire.LINK_HELLO, self._hello)
            handlers.register(wire.LINK_ATTACH, self._attach)
            async with serve(
                listening,
                lambda: Peer(handlers, name="signer", on_closed=self._closed, log=log.warning),
                accept=_same_owner,
            ):
                while True:
                    await self._attend(await self._arrived.get())

    def _hello(self, params: wire.LinkHelloParams, peer: Peer) -> wire.LinkChallenge:
        if params.version != wire.LINK_VERSION:
            raise wire.LINK_ERRORS.error(
                "version_unsupported", f"this daemon speaks version {wire.LINK_VERSION}"
            )
        if self.identity is not None and params.identity != self.identity:
            raise _wrong_wallet()
        challenge = secrets.token_bytes(32)
        self._introductions[peer] = (params.identity, challenge)
        return wire.LinkChallenge(challenge)

    async def _attach(self, params: wire.LinkAttachParams, peer: Peer) -> wire.Attached:
        introduction = self._introductions.pop(peer, None)
        if introduction is None:
            raise wire.LINK_ERRORS.error("not_introduced", "call link.hello first")
        identity, challenge = introduction
        digest = keccak256(wire.CHALLENGE_TAG + challenge + identity)
        try:
            signed_by = recover(digest, params.signature)
        except ValueError:
            signed_by = b""
        if signed_by != identity:
            log.warning("signer_refused", reason="bad signature", identity=checksum(identity))
            raise wire.LINK_ERRORS.error("bad_signature", "the challenge is not signed by it")
        try:
            await bind_wallet(self._store, identity=identity, account=params.account)
        except WalletMismatch:
            log.warning("signer_refused", reason="wrong wallet", identity=checksum(identity))
            raise _wrong_wallet() from None
        self.generation += 1
        link = Link(peer, self.generation, identity, params.account, params.policies)
        self.identity, self.account = identity, params.account
        if self._link is not None:
            log.info("signer_taken_over", generation=self.generation)
            self._link.peer.abort()
        self._arrived.put_nowait(link)
        return wire.Attached(
            self.generation, self._settings.ping_interval, self._settings.gone_after
        )

    def _closed(self, peer: Peer) -> None:
        self._introductions.pop(peer, None)

    async def _attend(self, link: Link) -> None:
        """Compare with a newly attached signer, then watch over its link until it ends."""
        if link.peer.closed or not self._arrived.empty():
            return
        self._link = link
        self.since = time.time()
        log.info("signer_attached", generation=link.generation, identity=checksum(link.identity))
        try:
            await self._compare(self)
            self.compared = True
            self._ready.set()
            self._on_ready()
            async with asyncio.TaskGroup() as group:
                # Beside it, not before it: a slow database must not hide that the signer left.
                recording = group.create_task(self._record("ready", link))
                await self._keep_alive(link)
                recording.cancel()
        except (SignerAway, SignerSlow, DatabaseUnavailable, RpcError) as error:
            log.warning("signer_not_compared", reason=str(error) or type(error).__name__)
        except Exception:
            # A record that cannot be compared must not end the daemon that defends the others.
            log.exception("signer_not_compared")
        finally:
            self._link = None
            self._ready.clear()
            self.since = time.time()
            link.peer.abort()
            self._on_lost()
            log.warning("signer_lost", generation=link.generation, message="safe mode")
        await self._record("lost", link)

    async def _keep_alive(self, link: Link) -> None:
        while not link.peer.closed:
            try:
                async with asyncio.timeout(self._settings.ping_interval):
                    await link.peer.wait_closed()
            except TimeoutError:
                pass
            else:
                return
            try:
                await link.peer.request(
                    wire.PING, wire.Nothing(), timeout=self._settings.gone_after
                )
            except (ConnectionLost, RequestTimeout):
                return

    async def _record(self, kind: str, link: Link) -> None:
        async def body(change: Any) -> None:
            change.event("signer", kind, generation=link.generation)

        try:
            await self._store.change(body)
        except DatabaseUnavailable:
            log.warning("signer_event_lost", kind=kind)


def _wrong_wallet() -> Exception:
    return wire.LINK_ERRORS.error("wrong_wallet", "this daemon belongs to another wallet")


def _same_owner(transport: asyncio.Transport) -> bool:
    """Accept the daemon's own user and root; the signer authenticates itself besides."""
    _, uid, _ = peer_credentials(transport.get_extra_info("socket"))
    return uid in (os.geteuid(), 0)
