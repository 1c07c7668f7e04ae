"""The link to the daemon: dial, introduce, answer, notice silence, dial again.

Of several daemons on one database one acts and takes the signer; the others say that they stand by.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec

from customersigner.errors import StoreUnavailable
from customersigner.signer import Signer
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError
from zkchannels.service.tls import bound_silence
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of
from zkchannels.wire.pairing import NO_CHANNEL

T = TypeVar("T")
Dial = Callable[[Handlers], Awaitable[tuple[Peer, bytes]]]
"""Connects with these handlers; returns what the identity key signs about the certificates, too."""


class Way(NamedTuple):
    """One address of the wallet's daemons."""

    name: str
    dial: Dial


SHORTEST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 30.0
STABLE_AFTER: Final = 1.0
"""Seconds after which a link counts as having worked, so that the next one is dialled at once."""
QUIET: Final = 0.2
"""Seconds without a request after which the signer prepares its tables."""
HEAD_START: Final = 0.3
"""Seconds after which no more tables are prepared before the daemon is dialled."""
AFTERWARDS: Final = 0.001
"""Seconds after an answer until more is prepared: the answer leaves first."""
INTRODUCTION_TIMEOUT: Final = 10.0
"""Seconds that connecting may take, and each answer of the introduction."""
ELSEWHERE_TIMEOUT: Final = 5.0
"""The same where there is another address to try."""
STANDBY_DELAY: Final = 1.0
"""Seconds after which a daemon that stands by is asked again: it may take over any time."""
LOOK_AGAIN: Final = 0.5
"""Seconds between two looks whether there is a new pairing, while waiting to dial again."""

_IMPOSTOR: Final = "another certificate than the paired daemon's: somebody may be in between"
_FORGOTTEN: Final = "it may have forgotten this signer: customerctl signer-pair pairs it again"
_SUPERSEDED: Final = (
    "another signer of this wallet came later and has the link: run one at a time; "
    "this one takes over when that one is gone, or when it is started anew"
)

_FOLLOWED: Final = (wire.PAY_PROVE, wire.PAY_COMPLETE, wire.ESTABLISH_COMPLETE)
"""Requests after which the next one of a payment can be prepared."""

log = get_logger("customersigner.link")


def delay(failures: int, chance: float) -> float:
    """Seconds to wait before dialling again: doubling from 0.2 to 30, jittered by half.

    failures: attempts that failed in a row, from 0; chance: uniform in [0, 1)
    """
    longest = min(LONGEST_DELAY, SHORTEST_DELAY * float(2 ** min(failures, 16)))
    return max(SHORTEST_DELAY, longest * (0.5 + chance / 2))


class Worker:
    """One thread for all that waits for the disk or computes: in order, off the event loop.

    The loop stays free for pings, so that a slow disk is never taken for a dead signer.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signer")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function after all earlier ones; cancelling the caller does not stop it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, function, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True)


class Link:
    """Keeps the signer attached to its daemon, over one connection after the other.

    `ways` are looked at before each round; it may raise SecretFileError. `on_status` is told in
    plain words how the link stands. `renewed` tells that there is a new pairing, which is tried at
    once.
    """

    def __init__(
        self,
        ways: Callable[[], Sequence[Way]],
        signer: Signer,
        worker: Worker,
        *,
        on_status: Callable[[str], None] = lambda _: None,
        renewed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ways = ways
        self._taken_by = ""
        self._told: set[tuple[str, ...]] = set()
        self._instance = secrets.token_bytes(16)
        self._renewed = renewed
        self._patience = INTRODUCTION_TIMEOUT
        self._signer = signer
        self._worker = worker
        self._on_status = on_status
        self._heard = 0.0
        self._asked = 0.0
        self._cold: list[Callable[[], None]] | None = None

    async def run(self) -> None:
        """Serve the daemon until cancelled."""
        async with asyncio.TaskGroup() as group:
            handlers = self._handlers(group)
            await self._warm_up(HEAD_START)
            failures = 0
            while True:
                began = asyncio.get_running_loop().time()
                refusals = await self._serve_one(handlers, group)
                # Who waited in vain for an answer has waited: a cable may be back any time.
                lasted = asyncio.get_running_loop().time() - began
                failures = 0 if lasted >= STABLE_AFTER else failures + 1
                pause = delay(failures, random.random())  # noqa: S311 - a jitter
                if "superseded" in refusals:
                    self._on_status("turned away: another signer of this wallet is attached")
                else:
                    self._on_status("waiting for the daemon")
                    pause = min(pause, STANDBY_DELAY) if "standby" in refusals else pause
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Wait before dialling again; a new pairing ends the wait."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not self._renewed():  # noqa: ASYNC110
            await asyncio.sleep(min(left, LOOK_AGAIN))

    async def _serve_one(self, handlers: Handlers, group: asyncio.TaskGroup) -> set[str]:
        """Serve the first daemon that takes this signer, beginning with the one that did last.

        Returns the kinds of refusals, where none did.
        """
        try:
            ways = self._ways()
        except SecretFileError as error:
            log.error("pairing_unusable", reason=str(error))
            return set()
        begin = next((n for n, way in enumerate(ways) if way.name == self._taken_by), 0)
        timeout = INTRODUCTION_TIMEOUT if len(ways) == 1 else ELSEWHERE_TIMEOUT
        refusals = set()
        for way in [*ways[begin:], *ways[:begin]]:
            refusal = await self._serve(way, handlers, group, timeout)
            if refusal is None:
                return set()
            refusals.add(refusal)
        return refusals

    async def _serve(
        self, way: Way, handlers: Handlers, group: asyncio.TaskGroup, timeout: float
    ) -> str | None:
        """Return None when a daemon was served, else the kind of its refusal, "" without one."""
        where = way.name
        try:
            async with asyncio.timeout(timeout):
                peer, channel = await way.dial(handlers)
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message
            log.error("daemon_not_trusted", daemon=where, reason=reason, message=_IMPOSTOR)
            return ""
        except OSError as error:
            reason = error.strerror or str(error) or "timed out"
            self._tell("daemon_not_reached", log.info, where, reason=reason)
            return ""
        except SecretFileError as error:
            log.error("pairing_unusable", reason=str(error))
            return ""
        served = False
        try:
            attached = await self._introduce(peer, channel, timeout)
            served, self._taken_by = True, where
            self._told.clear()
            self._patience = attached.request_timeout
            log.info("attached", daemon=where, generation=attached.generation)
            self._on_status("attached to the daemon")
            self._asked = self._heard
            if self._cold != []:
                group.create_task(self._warm_up())
            # Twice what the daemon allows itself: it is the one to decide that a link is dead.
            await self._until_silent(peer, 2 * attached.gone_after)
            log.warning("link_lost")
        except (ConnectionLost, RequestTimeout) as error:
            log.warning("link_lost", reason=str(error))
        except RpcError as error:
            return self._refused(error, where)
        finally:
            peer.abort()
        return None if served else ""

    def _tell(self, event: str, tell: Callable[..., None], where: str, **more: str) -> None:
        """Log what may go on for days: at its first time since the last link, not at each."""
        said = (event, where, *more.values())
        (log.debug if said in self._told else tell)(event, daemon=where, **more)
        self._told.add(said)

    def _refused(self, error: RpcError, where: str) -> str:
        """Tell of a refusal; return its kind."""
        kind = kind_of(error)
        if kind == "standby":
            self._tell("daemon_stands_by", log.info, where, reason=error.message)
        elif kind == "superseded":
            self._tell("superseded", log.error, where, message=_SUPERSEDED)
        else:
            log.error("daemon_refused", daemon=where, reason=error.message, kind=kind)
        return kind or ""

    async def _warm_up(self, seconds: float | None = None) -> None:
        """Prepare in several steps: for some seconds, or each when nothing was asked for a while.

        What the first payment needs is prepared before the daemon is dialled, as far as that
        delays the attaching by little: the payment that waited for the signer comes at once.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if self._cold is None:
                escrows = await self._worker.run(self._signer.escrows)
                self._cold = [partial(self._signer.warm, escrow) for escrow in escrows]
                self._cold.insert(0, self._signer.practise)
            while self._cold and (seconds is None or loop.time() - began < seconds):
                if seconds is None:
                    await self._quiet()
                if self._cold:  # another link may have gone on with it
                    await self._worker.run(self._cold.pop(0))
        except StoreUnavailable as error:
            log.warning("store_unavailable", reason=str(error))

    async def _quiet(self) -> None:
        """Return once no request but pings came for a while."""
        loop = asyncio.get_running_loop()
        while (left := self._asked + QUIET - loop.time()) > 0:  # noqa: ASYNC110 - time is awaited
            await asyncio.sleep(left)

    async def _introduce(
        self,
        peer: Peer,
        channel: bytes,
        timeout: float,
    ) -> wire.Attached:
        wallet = self._signer.wallet
        self._hear()
        try:
            welcome = await peer.request(
                wire.LINK_HELLO,
                wire.LinkHelloParams(wire.LINK_VERSION, wallet.identity),
                timeout=timeout,
            )
        except ConnectionLost:
            # The server refuses a client's certificate only after the client's handshake.
            if channel != NO_CHANNEL:
                log.warning("daemon_hung_up", message=_FORGOTTEN)
            raise
        attached = await peer.request(
            wire.LINK_ATTACH,
            wire.LinkAttachParams(
                wallet.answer(welcome.challenge, channel),
                wallet.account.address,
                self._instance,
                self._signer.policy.names,
            ),
            timeout=timeout,
        )
        if channel != NO_CHANNEL:
            bound_silence(peer.transport, 2 * attached.gone_after)
        return attached

    async def _until_silent(self, peer: Peer, patience: float) -> None:
        """Return when the connection ended, or when the daemon said nothing for too long."""
        loop = asyncio.get_running_loop()
        while (left := self._heard + patience - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await peer.wait_closed()
            except TimeoutError:
                continue
            return
        log.warning("daemon_silent", seconds=patience)

    def _handlers(self, group: asyncio.TaskGroup) -> Handlers:
        handlers = Handlers(task_group=group)
        handlers.register(wire.PING, self._ping)
        for method, answer in self._signer.methods().items():
            queued = self._queued(method.name, answer)
            followed = method in _FOLLOWED
            handlers.register(method, self._preparing(queued, group) if followed else queued)
        # A daemon that left does not want to know: the question is withdrawn.
        handlers.register(wire.CONFIRMATION_WAIT, self._confirm, cancel_on_disconnect=True)
        handlers.register(wire.CONFIRMATION_WITHDRAW, self._withdraw)
        return handlers

    def _ping(self, _params: wire.Nothing, _peer: Peer) -> wire.Done:
        self._hear()
        return wire.Done()

    async def _confirm(self, params: wire.ConfirmationParams, _peer: Peer) -> wire.Confirmation:
        """Wait for the person, beside everything else."""
        self._hear()
        return wire.Confirmation(await self._signer.questions.answer(params.question.hex()))

    def _withdraw(self, params: wire.ConfirmationParams, _peer: Peer) -> wire.Done:
        self._hear()
        self._signer.questions.withdraw(params.question.hex())
        return wire.Done()

    def _queued(
        self, name: str, answer: Callable[[Any], msgspec.Struct]
    ) -> Callable[[Any, Peer], Awaitable[msgspec.Struct]]:
        async def handle(params: Any, peer: Peer) -> msgspec.Struct:
            self._hear()
            self._asked = self._heard
            deadline = time.monotonic() + self._patience
            try:
                return await self._worker.run(begin, params, peer, deadline)
            except RpcError as error:
                _tell_refusal(name, params, error)
                raise

        def begin(params: Any, peer: Peer, deadline: float) -> msgspec.Struct:
            # Waiting behind a slow disk it may have outlived its connection or its caller.
            if peer.closed or time.monotonic() > deadline:
                raise wire.ERRORS.error("unavailable", "the request waited too long")
            return answer(params)

        return handle

    def _preparing(
        self, answer: Callable[[Any, Peer], Awaitable[msgspec.Struct]], group: asyncio.TaskGroup
    ) -> Callable[[Any, Peer], Awaitable[msgspec.Struct]]:
        """Answer as ever; then get ready for what follows, while others are at work."""

        async def prepare() -> None:
            await asyncio.sleep(AFTERWARDS)
            await self._worker.run(self._signer.expect)
            await self._worker.run(self._signer.prepare)

        async def handle(params: Any, peer: Peer) -> msgspec.Struct:
            answered = await answer(params, peer)
            group.create_task(prepare())
            return answered

        return handle

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()


def _tell_refusal(method: str, params: Any, error: RpcError) -> None:
    """Log what the signer does not do for its daemon; the words may have amounts."""
    fields = {"method": method, "kind": kind_of(error)}
    operation = getattr(params, "operation", None)
    if isinstance(operation, bytes):
        fields["operation"] = operation.hex()
    if fields["kind"] == "confirmation_pending":
        return  # a person is asked first
    log.info("request_refused", **fields)
    log.debug("refused", reason=error.message, **fields)
