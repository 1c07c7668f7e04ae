"""What the tests of the chain package share: running parts for a while, waiting for states."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.contract.world import World
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import AccountUnavailable
from zkchannels.chain.follower import Follower
from zkchannels.chain.store import ChainStore, Records
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.escrow.record import ChannelStatus
from zkchannels.escrow.transaction import Transaction

T = TypeVar("T")

DEADLINE = 90.0  # seconds; far more than anything here takes, on a busy machine too


@contextlib.asynccontextmanager
async def running(*parts: Coroutine[Any, Any, None]) -> AsyncGenerator[None, None]:
    """Run the parts side by side until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@dataclass
class Watch:
    """A follower of one escrow, and what it told."""

    client: ChainClient
    store: ChainStore
    world: World
    follower: Follower = field(init=False)
    told: list[frozenset[bytes]] = field(default_factory=list)
    poll: float = 3600.0
    websocket: bool = True
    confirmations: int | str = "finalized"
    stale_after: float = 1e9

    def __post_init__(self) -> None:
        self.addresses = {self.world.escrow.address}
        self.follower = Follower(
            self.client,
            self.store,
            lambda: frozenset(self.addresses),
            self.on_change,
            confirmations=self.confirmations,
            poll=self.poll,
            stale_after=self.stale_after,
            websocket=self.websocket,
        )

    async def on_change(self, channels: frozenset[bytes]) -> None:
        """Note what changed."""
        self.told.append(channels)

    async def until(self, predicate: Callable[[], Awaitable[T]]) -> T:
        """The predicate's first true value, asked after every look at the chain."""
        return await asyncio.wait_for(self.follower.wait_for(predicate), DEADLINE)

    async def following(self, wanted: bool) -> None:
        """Wait until the follower follows, or does not."""
        async with (
            asyncio.timeout(DEADLINE),
            contextlib.aclosing(self.follower.follows()) as states,
        ):
            async for state in states:
                if state is wanted:
                    return

    async def head(self, number: int | None = None) -> None:
        """Wait until the follower has read the node's head (or a given block)."""
        wanted = self.world.chain.head() if number is None else number

        async def reached() -> bool:
            return self.follower.head is not None and self.follower.head.number >= wanted

        await self.until(reached)

    async def status(self, channel: int, status: ChannelStatus, *, final: bool = False) -> Records:
        """Wait until the channel has this status at the head, or finally."""

        async def is_so() -> Records | None:
            records = await self.record(channel)
            return records if (records.final if final else records.head).status is status else None

        found = await self.until(is_so)
        assert found is not None
        return found

    async def record(self, channel: int) -> Records:
        """What is stored about a channel."""
        return await self.store.record(channel.to_bytes(32))


class KeyAccount:
    """An account whose key is at hand, unless told to be away."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.away = False
        self.before_return: Callable[[], None] = lambda: None
        self.signed: list[Transaction] = []

    @property
    def address(self) -> bytes:
        """The account's address."""
        return self._key.address

    async def sign(self, transaction: Transaction) -> bytes:
        """The raw transaction."""
        if self.away:
            raise AccountUnavailable("no signer is attached")
        self.signed.append(transaction)
        raw = transaction.with_signature(self._key.sign_digest(transaction.signing_digest()))
        self.before_return()
        return raw
