"""What the steps of every operation share: their surroundings, outcomes and commits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Escrow, Status
from customerd.config import Settings
from customerd.merchants import Merchants, MerchantUnreachable
from customerd.operations.queries import OperationRow, StepTrail
from customerd.signing.gateway import Gateway
from customerd.store.events import Change, Store
from customerd.store.writes import Writes
from customerd.watch.watcher import Watcher
from zkchannels.jsonrpc.errors import (
    STOPPING,
    ConnectionLost,
    ProtocolError,
    RequestTimeout,
    RpcError,
)
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import also_about, get_logger
from zkchannels.wire.errors import kind_of

log = get_logger("customerd.operations")

T = TypeVar("T")
P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

LONGEST_TEXT = 8192
Body = Callable[[Change], Awaitable[None]]
Fill = Callable[[Writes], None]


def storable(text: str) -> str:
    """Return a merchant's text as PostgreSQL can hold it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:LONGEST_TEXT]


class Refused(Exception):
    """The operation ends without its effect: nothing was paid, nothing was opened."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = storable(message)


class Interrupted(Exception):
    """Something that the step needs went away; the step is taken again from its durable record."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of the daemon that operations use."""

    settings: Settings
    store: Store
    gateway: Gateway
    merchants: Merchants
    watcher: Watcher


class Run:
    """One operation at work."""

    def __init__(
        self,
        around: Surroundings,
        row: OperationRow,
        *,
        began: float,
        channel: Channel | None = None,
    ) -> None:
        self.around = around
        self.row = row
        self.began = began
        """Unix time at which this daemon first worked on the operation: patience counts from it."""
        self.trail = StepTrail(row)
        self.ended: OperationRow | None = None
        """The operation as its end left it, where that is known without reading it."""
        self._read = channel

    def step(self, name: str) -> None:
        """Enter a named step; the lines that follow in the log have its name."""
        self.trail.enter(name)
        also_about(step=name)
        log.debug("step_begins")

    async def channel(self) -> Channel:
        """Read the operation's channel, unless it was read right before the operation began."""
        if self._read is not None:
            channel, self._read = self._read, None
            return channel
        assert self.row.channel is not None
        row = await channels.channel_by_id(self.around.store.database, self.row.channel)
        assert row is not None, "only a refused establish deletes its channel"
        return row

    async def escrow(self, channel: Channel) -> Escrow:
        """Read the escrow of a channel."""
        return await self.around.store.escrow(channel.escrow)

    async def commit(self, fill: Fill | None = None) -> None:
        """Write what a step did, together with the trail, in one statement.

        Raises StatusChanged when the channel is not in the status that a write starts from.
        """
        await self._write(fill, "running")

    async def done(self, fill: Fill | None = None, **shown: Any) -> None:
        """Write the last step's outcome and that the operation is done, in one statement.

        `shown`: everything that this or an earlier step changed of the operation's row, so that
        whoever waits for the end need not read it.
        """
        at = await self._write(fill, "done")
        if shown:
            self.ended = self.trail.done(at, shown)

    async def change(self, body: Body) -> None:
        """Write what a step did after it has read, in one transaction with the trail."""
        await self._change(body, "running")

    async def refuse(self, refusal: Refused, body: Body) -> None:
        """Write that the operation is refused, in one transaction with what follows from it."""
        await self._change(body, "refused", error_kind=refusal.kind, error_message=refusal.message)

    async def decide_close(self, channel: Channel, *, allowed: Collection[Status]) -> None:
        """Write the decision to close on the newest authorized state; the watcher carries it out.

        Which one that is the locked row tells (rule `close-new`).
        """

        async def write(change: Change) -> None:
            row = await channels.lock_channel(change.connection, channel.channel, allowed=allowed)
            await channels.update_channel(change, row, status="decided", closing=row.authorized)

        await self.change(write)
        self.around.watcher.kick(channel.channel)

    async def _write(self, fill: Fill | None, status: str) -> float:
        writes = Writes()
        self.trail.add_to(writes, status=status)
        if fill is not None:
            fill(writes)
        try:
            at = await self.around.store.write(writes)
        except channels.NotInStatus:
            raise channels.StatusChanged(await self.channel()) from None
        self.trail.committed()
        return at

    async def _change(self, body: Body, status: str, **details: Any) -> None:
        async def change(change: Change) -> None:
            # The outcome first: a refused establish may then delete its channel.
            writes = Writes()
            self.trail.add_to(writes, status=status, **details)
            await change.include(writes)
            await body(change)

        await self.around.store.change(change)
        self.trail.committed()

    @asynccontextmanager
    async def merchant(self, channel: Channel, *, bound: bool) -> AsyncIterator[Peer]:
        """Open a session with the channel's merchant.

        `bound`: whether a proof may have left already. Then an unreachable merchant only
        interrupts; before that the operation is refused.
        """
        log.debug("merchant_called", host=channel.host, port=channel.port, amount=self.row.amount)
        try:
            async with self.around.merchants.session(channel.host, channel.port) as peer:
                yield peer
        except MerchantUnreachable as error:
            if bound or not self.around.gateway.ready:
                raise Interrupted(str(error)) from None
            raise Refused("merchant_unreachable", str(error)) from None

    async def ask(
        self,
        peer: Peer,
        method: Method[P, R],
        params: P,
        *,
        timeout: float | None = None,
    ) -> R:
        """Ask the merchant; raises its RpcError, or Interrupted when no answer came.

        Nothing is sent while no signer is attached.
        """
        if not self.around.gateway.ready:
            raise Interrupted("no signer is attached")
        self.around.store.database.require_lease()
        try:
            return await peer.request(
                method,
                params,
                timeout=timeout or self.around.settings.merchant.message_timeout,
            )
        except RequestTimeout:
            raise Interrupted("the merchant does not answer") from None
        except ProtocolError:
            raise Interrupted("the merchant's answer cannot be read") from None
        except ConnectionLost:
            raise Interrupted("the connection to the merchant broke off") from None
        except RpcError as error:
            if error.code == STOPPING:
                # It ended before it had decided: no refusal, and no reason to close alone.
                raise Interrupted("the merchant is stopping") from None
            raise


def merchant_says(run: Run, error: RpcError) -> Exception:
    """Return what a merchant's error before any proof means: a refusal, or to ask again soon."""
    if kind_of(error) in ("later", "too_many_sessions"):
        if time.time() - run.began < run.around.settings.merchant.patience:
            return Interrupted(error.message)
        return Refused("merchant_unreachable", error.message)
    return Refused("rejected_by_merchant", error.message or "the merchant refused")
