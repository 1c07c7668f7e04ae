"""Follows the chain for the merchant and acts on what `decisions` says, until each end is final."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from merchantd.decisions import Action, merchant_actions
from merchantd.store.records import WAKE_CHANNEL
from zkchannels.chain.errors import ChainFailure
from zkchannels.escrow import calls
from zkchannels.escrow.events import Closing
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.service.logging import get_logger
from zkchannels.store.database import DatabaseUnavailable

if TYPE_CHECKING:
    from merchantd.chainview import FollowedChain
    from merchantd.store.records import Lock, Records
    from merchantd.terms import ServedEscrow
    from merchantd.trust import Trust
    from zkchannels.chain.client import ChainClient
    from zkchannels.chain.follower import Follower
    from zkchannels.chain.lane import Lane
    from zkchannels.chain.model import Block
    from zkchannels.chain.store import ChainStore
    from zkchannels.chain.store import Records as ChainRecords

_log = get_logger("merchantd.watcher")
_UNLIMITED = 2**256 - 1
_TIMED = (ChannelStatus.AWAITING_MERCHANT, ChannelStatus.EXPIRING, ChannelStatus.CLOSING)
_PATIENCE = 5.0


class Watcher:
    """One task that decides again on every change of chain or records.

    Decisions are made for every channel that has changed, and at every new head for those where
    time matters or something is left to do.
    """

    def __init__(
        self,
        *,
        escrow: ServedEscrow,
        records: Records,
        chain: ChainStore,
        client: ChainClient,
        lane: Lane,
        view: FollowedChain,
        trust: Trust,
        margin: float,
    ) -> None:
        """Do nothing yet; `margin` in seconds."""
        self._escrow = escrow
        self._records = records
        self._chain = chain
        self._client = client
        self._lane = lane
        self._view = view
        self._trust = trust
        self._margin = int(margin)
        self._attention: set[bytes] = set()
        self._changed: set[bytes] = set()
        self._loaded = False
        self._woken = asyncio.Event()
        self._alarmed: set[tuple[bytes, ChannelRecord]] = set()

    async def on_change(self, channels: frozenset[bytes]) -> None:
        """Take note of channels with new events; the follower calls this."""
        self._changed |= channels
        self._woken.set()

    async def run(self, follower: Follower) -> None:
        """Decide and act until cancelled, with a follower that tells `on_change`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run(), name="follower")
            group.create_task(self._hear_requests(), name="requests")
            group.create_task(self._hear_heads(follower), name="heads")
            while True:
                await self._woken.wait()
                self._woken.clear()
                await self._act_on(follower)

    async def _hear_requests(self) -> None:
        database = self._records.database
        while True:
            try:
                async with await database.listen(WAKE_CHANNEL) as notifications:
                    self._woken.set()  # for what was written while nobody listened
                    async for _ in notifications:
                        self._woken.set()
            except DatabaseUnavailable:
                await database.wait_available()

    async def _hear_heads(self, follower: Follower) -> None:
        while True:
            await follower.changed()
            if follower.head is not None and not follower.undecided:
                self._view.caught_up(follower.head)
            self._woken.set()

    async def _act_on(self, follower: Follower) -> None:
        head = follower.head
        if head is None:
            return
        # Decide first: a node that cannot tell how old transactions stand must not delay a dispute.
        parts: tuple[Callable[[], Awaitable[None]], ...] = (
            lambda: self._decide(head),
            lambda: self._lane.on_head(head, follower.final),
            self._records.drop_expired_sessions,
            self._records.announce_decisions,
        )
        for part in parts:
            try:
                await part()
            except (ChainFailure, DatabaseUnavailable) as error:
                # What is left undone stays under attention and is decided again.
                _log.warning("watcher_held_up", reason=str(error))
                asyncio.get_running_loop().call_later(_PATIENCE, self._woken.set)

    async def _decide(self, head: Block) -> None:
        if not self._loaded:
            self._attention |= await self._records.unended_channels()
            self._loaded = True
        # Taken before the records are read: what changes from now on is decided in another round.
        self._attention |= self._changed
        self._changed = set()
        self._attention |= await self._records.secrets_of_closings()
        self._attention |= await self._records.unfinished_expiries()
        found = await self._chain.records(self._attention)
        for channel, records in found.items():
            left = await self._decide_one(channel, records, head)
            if not left and records.head.status not in _TIMED:
                self._attention.discard(channel)

    async def _decide_one(self, channel: bytes, records: ChainRecords, head: Block) -> bool:
        """Act on one channel; return whether something is left to do."""
        local = await self._records.local(channel)
        lock = await self._posted_lock(records.head)
        actions = merchant_actions(
            local,
            records.head,
            records.final,
            now=head.timestamp,
            margin=self._margin,
            secret_known=lock is not None and lock.secret is not None,
        )
        for action in actions:
            try:
                await self._act(action, channel, records, lock)
            except ChainFailure as error:
                _log.warning(
                    "action_tried_again",
                    action=action.value,
                    channel=channel.hex(),
                    reason=str(error),
                )
        return bool(actions)

    async def _posted_lock(self, record: ChannelRecord) -> Lock | None:
        if record.status is not ChannelStatus.CLOSING:
            return None
        return await self._records.lock(record.lock.to_bytes(32))

    async def _act(
        self, action: Action, channel: bytes, records: ChainRecords, lock: Lock | None
    ) -> None:
        number = int.from_bytes(channel)
        match action:
            case Action.FUND:
                await self._fund(number, records.head)
            case Action.EXPIRE:
                await self._submit(action, number, "", calls.expire(number))
            case Action.CLAIM:
                # A channel can be claimed once only, but one claim can fail and a later one not.
                step = f"{records.head.status.value}-{records.head.deadline}"
                await self._submit(action, number, step, calls.claim(number))
            case Action.DISPUTE:
                assert lock is not None
                assert lock.secret is not None
                # After a voided close by the guard, the customer's own close is another step.
                step = "own" if records.head.guard_struck_off else "first"
                data = calls.dispute(number, lock.secret)
                await self._submit(action, number, step, data, deadline=records.head.deadline)
            case Action.RECORD_END:
                await self._check_agreed(channel, records.final)
                await self._record_end(channel, records.final)
            case Action.REOPEN_RECORD:
                await self._records.reopen_record(channel)
            case Action.ALARM:
                self._alarm(channel, records.head)
                await self._check_known(channel, records.head)

    async def _submit(
        self,
        action: Action,
        number: int,
        step: str,
        data: bytes,
        *,
        value: int = 0,
        deadline: int | None = None,
    ) -> None:
        purpose = f"{action.value}/{number:064x}/{step}"
        await self._lane.submit(
            purpose, to=self._escrow.address, value=value, data=data, deadline=deadline
        )

    async def _fund(self, number: int, head: ChannelRecord) -> None:
        terms = self._escrow.terms
        value = head.merchant_deposit * terms.unit
        data = calls.fund(number, head.customer_deposit, head.merchant_deposit)
        if terms.native:
            await self._submit(Action.FUND, number, "", data, value=value, deadline=head.deadline)
        elif await self._allowance() >= value:
            await self._submit(Action.FUND, number, "", data, deadline=head.deadline)
        else:
            # Once and without limit: the escrow takes tokens of the merchant in `fund` only.
            approval = calls.approve(self._escrow.address, _UNLIMITED)
            await self._lane.submit("approve", to=terms.token, value=0, data=approval)

    async def _allowance(self) -> int:
        terms = self._escrow.terms
        question = calls.allowance(terms.merchant, self._escrow.address)
        return calls.decode_number(await self._client.eth_call(terms.token, question))

    async def _record_end(self, channel: bytes, final: ChannelRecord) -> None:
        await self._records.record_end(
            channel, final.status.name.lower(), final.customer_balance, final.merchant_balance
        )
        _log.info("channel_ended", channel=channel.hex(), outcome=final.status.name.lower())

    async def _check_known(self, channel: bytes, head: ChannelRecord) -> None:
        """A close needs our signature, which is recorded before it is given."""
        if head.status is ChannelStatus.CLOSING and await self._records.local(channel) is None:
            self._trust.lose(f"the establishment of 0x{channel.hex()} is not recorded")

    async def _check_agreed(self, channel: bytes, final: ChannelRecord) -> None:
        """A channel that ended without a close was closed by agreement: is ours recorded?

        A claim after an expire ends one without a close as well, and gives the customer nothing.
        """
        history = await self._chain.history(channel)
        if final.status is not ChannelStatus.CLOSED or not final.customer_balance:
            return
        if any(isinstance(seen.event, Closing) for seen in history):
            return
        balances = final.customer_balance, final.merchant_balance
        if not await self._records.agreed_to_close(channel, *balances):
            self._trust.lose(f"the agreement to close 0x{channel.hex()} is not recorded")

    def _alarm(self, channel: bytes, head: ChannelRecord) -> None:
        if (channel, head) in self._alarmed:
            return
        self._alarmed.add((channel, head))
        _log.error(
            "channel_not_explained_by_records",
            channel=channel.hex(),
            status=head.status.name.lower(),
        )
