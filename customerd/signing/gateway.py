"""The signer's link: accepts it, checks who it is, compares records, and tells when it is gone.

One signer is attached at a time; a newer authenticated link takes over from an older one, which
may be half dead. Two signers that are both well do not take it from each other for ever: the one
that came later keeps it. Requests belong to one link: they fail with SignerAway when it ends.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from customerd.config import SignerSettings
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.signing.handshake import Handshake, Rules, readable, wrong_wallet
from customerd.signing.listening import Caller, Newcomers, SignerDoor, watch_silence
from customerd.signing.pairing import PairedSigner, Pairing
from customerd.signing.wallet import WalletMismatch, bind_wallet
from customerd.store.events import Store
from customerd.store.writes import Writes
from customerd.watch.alarms import Alarm, Level
from zkchannels.escrow.ethereum import checksum
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Limits, Peer
from zkchannels.jsonrpc.server import serve, serve_tls
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError
from zkchannels.service.tls import fingerprint_of, own_certificate, pinning_server_context
from zkchannels.store.database import DatabaseUnavailable
from zkchannels.wire import signer as wire

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

REQUESTS = 256
"""Requests in flight at a time; the others wait their turn."""
LIMITS = Limits(max_outstanding=2 * REQUESTS)
"""Room for a ping among them: a signer that is busy is not taken for a dead one."""
REMEMBERED: Final = 64
"""Signers that are told apart; an older one counts as new when it comes back."""
RIVAL_FOR: Final = 120.0
"""Seconds for which a second signer is an alarm after it was turned away: it comes every 30."""

log = get_logger("customerd.signing")


@dataclass(frozen=True, slots=True)
class Link:
    """One authenticated connection of a signer."""

    peer: Peer
    caller: Caller
    generation: int
    identity: bytes
    account: bytes
    instance: bytes
    policies: list[str]


class Gateway:
    """The daemon's side of the link; `ready` when a signer is attached and compared."""

    def __init__(
        self,
        settings: SignerSettings,
        store: Store,
        *,
        certificate: Path,
        open_to_group: bool,
        compare: Callable[[Gateway], Awaitable[None]],
        on_ready: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._compare = compare
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._certificate = certificate
        self._open_to_group = open_to_group
        self._fingerprint: bytes | None = None
        self._context: tuple[tuple[bytes | None, bool], ssl.SSLContext] | None = None
        self.pairing = Pairing(store)
        self._handshake = Handshake(
            self.pairing,
            Rules(
                wallet=lambda: self.identity,
                fingerprint=lambda: self.fingerprint,
                is_readable=lambda der: readable(self._pinning, der),
                idle=self._why_idle,
                attach=self._attach,
                paired=self._cut_unpaired,
            ),
        )
        self._newcomers = (Newcomers(), Newcomers())
        self._arrived: asyncio.Queue[Link] = asyncio.Queue()
        self._slots = asyncio.Semaphore(REQUESTS)
        self._link: Link | None = None
        self._newest: Link | None = None
        self._came: dict[bytes, int] = {}
        self._rival = -math.inf
        self.idle = "this daemon is starting"
        """Why no signer is to attach now; empty from when this daemon acts."""
        self._ready = asyncio.Event()
        self.address = ""
        """Where a signer finds this daemon: "host:port", or the path of the Unix socket."""
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

    def use(self, settings: SignerSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings

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

    @property
    def alarms(self) -> list[Alarm]:
        """What the owner should know about the signers that dial."""
        if time.monotonic() - self._rival > RIVAL_FOR:
            return []
        message = "a second signer of this wallet keeps dialling and is turned away: run one"
        return [Alarm("two_signers", message, level=Level.WARNING)]

    def _why_idle(self) -> str:
        """Return why this daemon does not act now, for a signer that might find another."""
        if self.idle:
            return self.idle
        try:
            self._store.database.require_lease()
        except DatabaseUnavailable as error:
            return str(error)
        return ""

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the daemon's certificate, which is made on first use.

        Raises SecretFileError.
        """
        if self._fingerprint is None:
            from zkchannels.service.certificate import ensure_pair  # noqa: PLC0415 - seldom needed

            ensure_pair(self._certificate, "customerd", "server")
            self._fingerprint = fingerprint_of(own_certificate(self._certificate))
        return self._fingerprint

    async def load_pairing(self) -> None:
        """Read which signer is paired; raises DatabaseUnavailable."""
        await self.pairing.load()
        self._cut_unpaired()

    async def forget_signer(self) -> PairedSigner | None:
        """End the pairing and cut the link that lives by it; return what was paired."""
        forgotten = await self.pairing.forget()
        self._cut_unpaired()
        return forgotten

    def _cut_unpaired(self) -> None:
        """Cut the link of a signer that is not the paired one any more."""
        link = self._link
        if link is not None and not self._handshake.may_attach(link.caller):
            log.warning("signer_cut", generation=link.generation, message="it is not paired")
            link.peer.abort()

    def completed(self, channel: bytes, known: int | None) -> int | None:
        """Return the newest state with a pay token that signer or database (`known`) have seen."""
        signers = self.completed_states.get(channel)
        if known is None or signers is None:
            return signers if known is None else known
        return max(known, signers)

    def compare_again(self) -> None:
        """Let go of the signer: it dials again, and is compared with what the database is now."""
        self.compared = False
        self._ready.clear()
        if self._link is not None:
            self._link.peer.abort()

    async def wait_ready(self) -> None:
        """Return once a signer is attached and compared."""
        await self._ready.wait()

    async def request(self, method: Method[P, R], params: P, *, timeout: float | None = None) -> R:
        """Ask the attached signer; raises SignerAway, SignerSlow, or its RpcError.

        `timeout`: seconds, where they are others than those of every request.
        """
        async with self._slots:
            if not self.ready:
                raise SignerAway
            return await self._ask(method, params, timeout or self._settings.request_timeout)

    async def request_uncompared(self, method: Method[P, R], params: P) -> R:
        """Ask a signer that is still being compared; for the comparison alone."""
        async with self._slots:
            return await self._ask(method, params, self._settings.request_timeout)

    async def _ask(self, method: Method[P, R], params: P, timeout: float) -> R:
        self._store.database.require_lease()
        link = self._link
        if link is None:
            raise SignerAway
        try:
            return await link.peer.request(method, params, timeout=timeout)
        except ConnectionLost:
            raise SignerAway from None
        except RequestTimeout:
            raise SignerSlow from None

    async def run(self, listening: Sequence[socket.socket]) -> None:
        """Serve the signer's sockets and look after the attached link, until cancelled.

        Raises SecretFileError when there is a TCP socket and no usable certificate.
        """
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            handlers = Handlers(task_group=group)
            self._handshake.register(handlers)

            def newcomer() -> Peer:
                return Peer(
                    handlers, limits=LIMITS, name="signer", on_closed=self._closed, log=log.warning
                )

            for each in listening:
                if each.family == socket.AF_UNIX:
                    serving = serve(each, newcomer, accept=self._accept)
                else:
                    log.info("link_certificate", sha256=self.fingerprint.hex())
                    self._pinning(None)  # a key that does not fit is told now, not to a signer
                    door = SignerDoor(self.pairing, self._is_attached)
                    serving = serve_tls(
                        each, newcomer, self._server_context, group, accept=self._accept, door=door
                    )
                await stack.enter_async_context(serving)
            while True:
                await self._attend(await self._arrived.get())

    def _server_context(self) -> ssl.SSLContext:
        """Return the TLS settings for what is paired and awaited now; raises OSError."""
        paired = self.pairing.paired
        wanted = (None if paired is None else paired.certificate, self.pairing.awaited)
        if self._context is None or self._context[0] != wanted:
            try:
                self._context = wanted, self._pinning(*wanted)
            except SecretFileError as error:  # it was changed meanwhile
                log.error("link_certificate_not_usable", reason=str(error))
                raise OSError(str(error)) from None
        return self._context[1]

    def _pinning(self, certificate: bytes | None, anonymous: bool = False) -> ssl.SSLContext:
        return pinning_server_context(self._certificate, pinned=certificate, anonymous=anonymous)

    def _accept(self, transport: asyncio.Transport) -> bool:
        peer = transport.get_protocol()
        assert isinstance(peer, Peer)
        caller = Caller(peer)
        if not (caller.secured or caller.trusted or self._open_to_group):
            log.warning("connection_refused", source=caller.source)
            return False
        watch_silence(transport, self._settings.gone_after)
        self._newcomers[caller.secured].add(peer)
        return True

    def _is_attached(self, peer: Peer) -> bool:
        return peer not in self._newcomers[True]

    async def _attach(
        self, peer: Peer, caller: Caller, identity: bytes, params: wire.LinkAttachParams
    ) -> wire.Attached:
        """Make an authenticated connection the link, instead of an older one."""
        try:
            await bind_wallet(self._store, identity=identity, account=params.account)
        except WalletMismatch:
            log.warning("signer_refused", reason="wrong wallet", identity=checksum(identity))
            raise wrong_wallet() from None
        if peer.closed or not self._handshake.may_attach(caller):
            raise wire.LINK_ERRORS.error("not_paired", "this signer was just forgotten")
        self._refuse_rival(params.instance)
        self._newcomers[caller.secured].remove(peer)
        self.generation += 1
        link = Link(
            peer,
            caller,
            self.generation,
            identity,
            params.account,
            params.instance,
            params.policies,
        )
        self.identity, self.account = identity, params.account
        if self._link is not None:
            log.info("signer_taken_over", generation=self.generation)
            self._link.peer.abort()
        self._newest = link
        self._arrived.put_nowait(link)
        return wire.Attached(
            self.generation,
            self._settings.ping_interval,
            self._settings.gone_after,
            self._settings.request_timeout,
        )

    def _refuse_rival(self, instance: bytes) -> None:
        """Raise for a signer that came before the attached one; remember one that is new.

        The order in which they first came decides, so that of any number one keeps the link. Who
        is half dead keeps it until its silence is noticed, and from a new one not even so long.
        """
        newest = self._newest
        came = self._came.get(instance)
        if came is None:
            while len(self._came) >= REMEMBERED:
                self._came.pop(next(iter(self._came)))
            self._came[instance] = self.generation + 1
        elif newest is not None and not newest.peer.closed and came < self._came[newest.instance]:
            self._rival = time.monotonic()
            log.warning("signer_refused", reason="superseded", generation=newest.generation)
            raise wire.LINK_ERRORS.error(
                "superseded",
                "another signer of this wallet came later and is attached: run one at a time",
            )

    def _closed(self, peer: Peer) -> None:
        self._handshake.forget(peer)
        for newcomers in self._newcomers:
            newcomers.remove(peer)

    async def _attend(self, link: Link) -> None:
        """Compare with a newly attached signer, then watch over its link until it ends."""
        if link.peer.closed or not self._arrived.empty():
            link.peer.abort()
            return
        self._link = link
        self.since = time.time()
        log.info("signer_attached", generation=link.generation, identity=checksum(link.identity))
        try:
            async with asyncio.TaskGroup() as group:
                # Beside all else: neither a comparison nor a slow database may hide that it left.
                watching = group.create_task(self._keep_alive(link))
                if await self._brought_together():
                    self._ready.set()
                    self._on_ready()
                    recording = group.create_task(self._record("ready", link))
                    await watching
                    recording.cancel()
                link.peer.abort()
        finally:
            self._link = None
            self._ready.clear()
            self.since = time.time()
            link.peer.abort()
            self._on_lost()
            log.warning("signer_lost", generation=link.generation, message="safe mode")
        await self._record("lost", link)

    async def _brought_together(self) -> bool:
        """Compare with the signer that is attached; return whether it may be asked to spend."""
        try:
            await self._compare(self)
        except (SignerAway, SignerSlow, DatabaseUnavailable, RpcError) as error:
            log.warning("signer_not_compared", reason=str(error) or type(error).__name__)
            return False
        except Exception:
            # A record that cannot be compared must not end the daemon that defends the others.
            log.exception("signer_not_compared")
            return False
        self.compared = True
        return True

    async def _keep_alive(self, link: Link) -> None:
        """End the link when nothing came back for as long as a signer may be silent.

        The pings run beside all requests and are answered while these are waited for: a slow
        request is no dead signer.
        """
        patience = self._settings.gone_after - self._settings.ping_interval
        while not link.peer.closed:
            try:
                async with asyncio.timeout(self._settings.ping_interval):
                    await link.peer.wait_closed()
            except TimeoutError:
                pass
            else:
                return
            if reason := self._why_idle():
                # Another daemon may act by now, and this signer has to find it.
                log.warning("signer_let_go", reason=reason)
                link.peer.abort()
                return
            try:
                await link.peer.request(wire.PING, wire.Nothing(), timeout=patience)
            except (ConnectionLost, RequestTimeout):
                link.peer.abort()

    async def _record(self, kind: str, link: Link) -> None:
        writes = Writes()
        writes.event("signer", kind, generation=link.generation)
        try:
            await self._store.write(writes)
        except DatabaseUnavailable:
            log.warning("signer_event_lost", kind=kind)
