"""The merchant's view of the chain: how old it is, and what it says about a channel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from merchantd.handlers import Funding
from zkchannels.escrow.events import Funded, Opened
from zkchannels.escrow.record import ChannelStatus

if TYPE_CHECKING:
    from zkchannels.chain.model import Block
    from zkchannels.chain.store import ChainStore

_FRESH_SHARE = 4
_OPENING = (Opened, Funded)


class FollowedChain:
    """What the watcher has read, and when."""

    def __init__(self, store: ChainStore, *, delay: int) -> None:
        """Know nothing yet; `delay` is the escrow's, in seconds."""
        self._store = store
        self._oldest = delay / _FRESH_SHARE
        self._head: Block | None = None
        self._read = 0.0

    def caught_up(self, head: Block) -> None:
        """Note that the store shows the chain up to this head, at this moment."""
        self._head = head
        self._read = time.monotonic()

    def fresh(self) -> bool:
        """Whether the chain was read, and its newest block made, within a quarter of the delay.

        Both count: a node that stands still answers at once and shows nothing new.
        """
        if self._head is None:
            return False
        unread = time.monotonic() - self._read
        return max(unread, time.time() - self._head.timestamp) <= self._oldest

    async def funding(self, channel: bytes) -> Funding:
        """Return a channel at the newest block and at the newest final one."""
        history = await self._store.history(channel)
        records = await self._store.record(channel)
        opened = [seen.block_number for seen in history if isinstance(seen.event, _OPENING)]
        confirmations = 0
        if records.head.status is ChannelStatus.OPEN and opened and self._head is not None:
            confirmations = max(self._head.number - opened[-1] + 1, 0)
        return Funding(records.head, records.final, confirmations)
