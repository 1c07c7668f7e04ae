"""The watcher: follows the chain, reconciles every channel with it, and carries out what follows.

Every transaction of the daemon is sent from here. What to do comes from one pure table
(`reconcile`); this module reads its inputs, writes decisions before anything leaves, and submits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from customerd.channels import queries as channels
from customerd.channels.escrows import escrows as all_escrows
from customerd.channels.record import LIVE, Channel, Escrow, State, Status
from customerd.config import Settings
from customerd.signing.compare import authorize_close
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.store.events import Change, Store
from customerd.store.writes import Writes
from customerd.watch import costs
from customerd.watch.accounts import GuardAccount, WalletAccount
from customerd.watch.alarms import (
    Alarm,
    AlarmBook,
    Due,
    Level,
    blind_alarms,
    chain_time,
    deadline_alarms,
)
from customerd.watch.reconcile import (
    Action,
    Decision,
    Phase,
    Posted,
    Situation,
    phase_of,
    posted_of,
    reconcile,
)
from customerd.watch.transactions import Transactions, cause_and_channel
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import (
    AnotherChain,
    ChainFailure,
    IncompleteHistory,
    InsufficientFunds,
)
from zkchannels.chain.follower import Follower
from zkchannels.chain.lane import FeePolicy, Lane, TransactionRow, Trouble
from zkchannels.chain.model import Block, FeeSuggestion
from zkchannels.chain.store import ChainStore, Records
from zkchannels.escrow import typed_data
from zkchannels.escrow.ethereum import recover
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import about, get_logger
from zkchannels.service.pulse import Pulse
from zkchannels.store.database import CommitOutcomeUnknown, DatabaseUnavailable
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from customerd.signing.gateway import Gateway

log = get_logger("customerd.watch")

ANOTHER_CHAIN_PAUSE = 30.0
GUARD_BALANCE_EVERY = 30.0
"""Seconds between looks at the accounts' balances."""

_RESTS = (
    ChainFailure,
    DatabaseUnavailable,
    RpcError,
    SignerAway,
    SignerSlow,
    channels.StatusChanged,
)
"""What may keep an action from being carried out now; it is tried again."""

_RESTLESS = (ChannelStatus.AWAITING_MERCHANT, ChannelStatus.EXPIRING, ChannelStatus.CLOSING)
"""Statuses on chain whose next action depends on time alone."""

_SENDING = (Action.SEND_OPEN, Action.CLOSE, Action.GUARD_CLOSE)
"""Actions that may take several looks: a transaction before them, a signer that is busy."""


ALARMS_EVERY = 1.0
"""Seconds between looks at what only time changes."""

PATIENCE_IN_POLLS = 2
"""For how many polls the chain may be out of sight before that is an alarm."""

_ALARMING = {
    Action.ALARM: Level.ERROR,
    Action.WAIT_FOR_SIGNER: Level.WARNING,
    Action.ASK_MERCHANT: Level.WARNING,
}
"""Actions that are an alarm besides."""


class Watcher:
    """Owns the chain client, the follower and the two lanes."""

    def __init__(
        self, settings: Settings, store: Store, client: ChainClient, guard: GuardAccount
    ) -> None:
        self._settings = settings
        self._store = store
        self.client = client
        self._guard = guard
        self.chain_store = ChainStore(store.database)
        self._policy = FeePolicy(
            tip_floor=settings.chain.tip_floor, max_fee_cap=settings.chain.fee_cap
        )
        self._guard_lane = Lane(
            client,
            store.database,
            guard,
            name="guard",
            policy=self._policy,
            describe=self._describe,
        )
        self._wallet_lane: Lane | None = None
        self._gateway: Gateway | None = None
        self.cause_of: Callable[[bytes, str], bytes | None] = _no_cause
        """The newest operation of a kind on a channel; set by whoever has the operations."""
        self._labels: dict[bytes, str] = {}
        self.recover: Callable[[Channel], Awaitable[None]] = _nobody_recovers
        """Asks for a recovery of a channel; set by whoever has the operations."""
        self._escrows: dict[bytes, Escrow] = {}
        self._dirty: set[bytes] = set()
        self._restless: set[bytes] = set()
        self._wake = asyncio.Event()
        self._tick = asyncio.Event()
        self._alarms: dict[bytes, Alarm] = {}
        self._due: dict[bytes, Due] = {}
        self._open: dict[bytes, int] = {}
        self.others: Callable[[], Iterable[Alarm]] = tuple
        self._book = AlarmBook()
        self._untold: asyncio.Queue[tuple[str, Alarm]] = asyncio.Queue()
        self._stored: Block | None = None
        self._balances_read = 0.0
        self._stuck: list[Alarm] = []
        self._records: dict[bytes, ChannelRecord] = {}
        self._version = 0
        self._defence_cost = 0
        self.guard_balance: int | None = None
        self.account_balance: int | None = None
        self.channel_count = 0
        self.chain_id: int | None = None
        self.follower = Follower(
            client,
            self.chain_store,
            addresses=lambda: frozenset(self._escrows),
            on_change=self._changed,
            confirmations=settings.chain.confirmations,
            poll=settings.chain.poll,
            stale_after=settings.chain.stale_after,
        )
        self._pulses = {
            "follower": self.follower.pulse,
            "heads": Pulse(),
            "reconcile": Pulse(),
            "alarms": Pulse(),
        }

    def use(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self._policy = FeePolicy(
            tip_floor=settings.chain.tip_floor, max_fee_cap=settings.chain.fee_cap
        )
        for lane in self._lanes():
            lane.use(self._policy)
        self.follower.use(poll=settings.chain.poll, stale_after=settings.chain.stale_after)
        self.kick_all()

    # -- what others ask ----------------------------------------------------------------------

    @property
    def guard_address(self) -> bytes:
        """Address of the guard account."""
        return self._guard.address

    @property
    def following(self) -> bool:
        """Whether the chain is followed and its head is fresh."""
        return self.follower.following

    @property
    def stuck(self) -> str:
        """Which of its loops does not go round any more; empty while all do.

        A node, a signer or a database that is away stops none of them: each has its time limits.
        """
        allowed = self._settings.chain.stuck_after
        late = [name for name, pulse in self._pulses.items() if pulse.silence > allowed]
        return ", ".join(late)

    @property
    def head_number(self) -> int:
        """Number of the newest block that was read, -1 before the first."""
        head = self.follower.head
        return -1 if head is None else head.number

    @property
    def chain_time(self) -> int:
        """The time that deadlines are compared with; the local clock while there is no chain."""
        head = self.follower.head or self._stored
        return chain_time(
            seen=None if head is None else head.timestamp,
            ago=time.monotonic() - self.follower.progress,
            followed=self.following,
            clock=time.time(),
        )

    @property
    def alarms(self) -> list[Alarm]:
        """Everything an operator should act on now."""
        now = self.chain_time
        found = [*deadline_alarms(self._due.values(), now=now), *self._alarms.values()]
        found += [*self._chain_alarms(now), *self._stuck, *self._guard_alarms(), *self.others()]
        unknown = self._gateway.unknown_channels if self._gateway is not None else ()
        found.extend(
            Alarm(
                "channel_missing",
                f"the signer knows the channel 0x{channel.hex()}, this database does not: "
                "it is not defended until it is restored",
                channel=channel,
                subject=channel.hex(),
            )
            for channel in sorted(unknown)
        )
        return found

    def since(self, alarm: Alarm) -> float:
        """Return when an alarm was raised."""
        return self._book.since(alarm) or time.time()

    def _chain_alarms(self, now: int) -> list[Alarm]:
        found = []
        if not self.following:
            head = self.follower.head or self._stored
            unseen = time.monotonic() - self.follower.progress
            margin = int(self._settings.chain.margin)
            found += blind_alarms(
                unseen=unseen if head is None else max(unseen, now - head.timestamp),
                patience=PATIENCE_IN_POLLS * self._settings.chain.poll,
                allowed=min(self._open.values(), default=margin) - margin if self._open else None,
                why=self.follower.trouble,
            )
        if self.follower.disagreement:
            found.append(Alarm("nodes_disagree", self.follower.disagreement))
        if self.follower.finality_broken:
            text = "blocks that were final were replaced: check what was paid out or opened in them"
            found.append(Alarm("finality_broken", text, level=Level.CRITICAL))
        return found

    def _guard_alarms(self) -> list[Alarm]:
        if self.guard_balance == 0:
            text = "the guard account cannot pay for any defence"
            return [Alarm("guard_empty", text)]
        if self.guard_balance is not None and self.guard_balance < self._defence_cost:
            text = "the guard account cannot pay for defending every channel now"
            return [Alarm("guard_low", text, level=Level.WARNING)]
        return []

    async def record(self, channel: bytes) -> ChannelRecord:
        """Return what the chain says about a channel at its head."""
        known = self._records.get(channel)
        if known is not None:
            return known
        version = self._version
        record = (await self.chain_store.record(channel)).head
        if version == self._version:
            self._records[channel] = record
        return record

    async def wait_for(
        self, channel: bytes, predicate: Callable[[ChannelRecord], bool]
    ) -> ChannelRecord:
        """Return the channel's record at the head once the predicate holds for it."""
        return await self._wait(channel, predicate, lambda records: records.head)

    async def wait_for_final(
        self, channel: bytes, predicate: Callable[[ChannelRecord], bool]
    ) -> ChannelRecord:
        """Return the channel's final record once the predicate holds for it."""
        return await self._wait(channel, predicate, lambda records: records.final)

    async def _wait(
        self,
        channel: bytes,
        predicate: Callable[[ChannelRecord], bool],
        which: Callable[[Records], ChannelRecord],
    ) -> ChannelRecord:
        while True:
            tick = self._tick
            record = which(await self.chain_store.record(channel))
            if predicate(record):
                return record
            await tick.wait()

    async def wait_head_after(self, number: int) -> None:
        """Return once a block above `number` was read."""
        while self.head_number <= number:
            await self._tick.wait()

    def kick(self, channel: bytes) -> None:
        """Reconcile a channel soon: its local status changed."""
        self._dirty.add(channel)
        self._wake.set()

    def forget(self) -> None:
        """Trust nothing remembered: the database may be another one than before."""
        self._version += 1
        self._records.clear()
        self.kick_all()

    async def fees(self) -> FeeSuggestion:
        """Return the fees that a transaction would offer now, the configured floor included."""
        found = await self.client.fees()
        return replace(found, tip=max(found.tip, self._settings.chain.tip_floor))

    def kick_all(self) -> None:
        """Reconcile every channel soon: the signer came or went."""
        self._wake.set()
        self._dirty.add(b"")

    def is_agreement(
        self, channel: Channel, authorization: wire.Authorization, signature: bytes
    ) -> bool:
        """Whether the merchant signed a mutual close on exactly this close state."""
        escrow = self._escrows[channel.escrow]
        digest = typed_data.mutual_close_digest(
            escrow.chain_id,
            escrow.escrow,
            int.from_bytes(channel.channel),
            authorization.customer_balance,
            authorization.merchant_balance,
        )
        try:
            return recover(digest, signature) == escrow.merchant
        except ValueError:
            return False

    # -- at work ------------------------------------------------------------------------------

    async def load(self, gateway: Gateway) -> None:
        """Load the escrows and all channels; called once before `run`."""
        self._gateway = gateway
        known = await self.chain_store.known()
        if known is not None:
            chain_id, self._stored = known
            self.client.expect_chain(chain_id)
        await self.reload_escrows()
        self.kick_all()

    async def reload_escrows(self) -> None:
        """Read the escrows to follow; the follower takes them up at its next step."""
        self._escrows = await all_escrows(self._store.database)
        self.channel_count = await channels.count(self._store.database)

    async def run(self) -> None:
        """Follow the chain and act on it, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="follower")
            group.create_task(self._follow_heads(), name="heads")
            group.create_task(self._reconcile_for_ever(), name="reconcile")
            group.create_task(self._tell_alarms(), name="alarms")
            group.create_task(self._record_alarms(), name="alarm events")

    async def _follow(self) -> None:
        """Follow; a node on another chain is refused and must not end the daemon."""
        while True:
            try:
                await self.follower.run()
            except* AnotherChain as errors:
                log.error("another_chain", reason=str(errors.exceptions[0]))
            self.follower.pulse.rest(ANOTHER_CHAIN_PAUSE)
            await asyncio.sleep(ANOTHER_CHAIN_PAUSE)

    async def _changed(self, changed: frozenset[bytes]) -> None:
        self._version += 1
        for channel in changed:
            self._records.pop(channel, None)
        self._dirty |= changed
        self._wake.set()
        self._announce()

    def _announce(self) -> None:
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()

    async def _follow_heads(self) -> None:
        """At every head: the lanes look after their transactions, time moves for the restless."""
        seen: Block | None = None
        pulse = self._pulses["heads"]
        while True:
            pulse.work()
            head = self.follower.head
            if head is None or head == seen:
                pulse.rest()
                await self.follower.changed()
                continue
            seen = head
            try:
                self.chain_id = await self.client.chain_id()
                for lane in self._lanes():
                    await lane.on_head(head, self.follower.final)
                await self._look_at_lanes()
                await self._read_balances()
            except (ChainFailure, DatabaseUnavailable) as error:
                log.warning("lane_rests", reason=str(error) or type(error).__name__)
            self._dirty |= self._restless
            self._wake.set()
            self._announce()

    async def _tell_alarms(self) -> None:
        """Raise each alarm once and clear it once, in the log at once; events follow."""
        while True:
            self._pulses["alarms"].rest(ALARMS_EVERY)
            tick = self._tick
            new, over = self._book.turn(self.alarms, clock=time.time())
            for alarm in new:
                level = log.critical if alarm.level is Level.CRITICAL else log.error
                level = log.warning if alarm.level is Level.WARNING else level
                level(
                    "alarm_raised",
                    alarm=alarm.kind,
                    channel=alarm.label,
                    reason=None if alarm.private else alarm.message,
                    deadline=alarm.deadline,
                )
            for alarm in over:
                log.info("alarm_cleared", alarm=alarm.kind, channel=alarm.label)
            for kind, alarms in (("raised", new), ("cleared", over)):
                for alarm in alarms:
                    self._untold.put_nowait((kind, alarm))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALARMS_EVERY):
                    await tick.wait()

    async def _record_alarms(self) -> None:
        """Write an event for each alarm, in their order, as soon as the database takes it."""
        while True:
            kind, alarm = await self._untold.get()
            while True:
                writes = Writes()
                writes.event(
                    "alarm",
                    kind,
                    channel=alarm.channel,
                    label=alarm.label,
                    alarm=alarm.kind,
                    level=alarm.level.value,
                    message=alarm.message,
                    deadline=alarm.deadline,
                )
                try:
                    await self._store.write(writes)
                except CommitOutcomeUnknown:
                    break  # at most once: the log has it
                except DatabaseUnavailable:
                    await asyncio.sleep(ALARMS_EVERY)
                else:
                    break

    def _lanes(self) -> list[Lane]:
        return [self._guard_lane] + ([self._wallet_lane] if self._wallet_lane else [])

    async def _look_at_lanes(self) -> None:
        """Raise an alarm for every transaction that cannot get out."""
        rows = [row for lane in self._lanes() for row in await lane.open_rows()]
        self._stuck = [_stuck_alarm(row) for row in rows if row.trouble is not None]
        if any(row.trouble is Trouble.INSUFFICIENT_FUNDS for row in rows):
            self._balances_read = 0.0  # look again, to say which account is empty

    async def _read_balances(self) -> None:
        recently = time.monotonic() - self._balances_read < GUARD_BALANCE_EVERY
        assert self._gateway is not None
        known = self.account_balance is not None or self._gateway.account is None
        if recently and self._balances_read and self.guard_balance and known:
            return
        self._balances_read = time.monotonic()
        self.guard_balance = await self.client.balance(self._guard.address)
        fees = await self.fees()
        self._defence_cost = costs.defence(self.channel_count, fees)
        if self._gateway.account is not None:
            self.account_balance = await self.client.balance(self._gateway.account)

    async def _reconcile_for_ever(self) -> None:
        pause = 0.0
        pulse = self._pulses["reconcile"]
        while True:
            pulse.rest()
            await self._wake.wait()
            pulse.work()
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            if b"" in dirty:
                dirty = {row.channel for row in await self._all_open()}
            failed: set[bytes] = set()
            for channel in dirty:
                pulse.work()
                try:
                    await self._reconcile(channel)
                except _RESTS as error:
                    reason = str(error) or type(error).__name__
                    log.warning("reconcile_rests", reason=reason, **self._about(channel))
                    failed.add(channel)
                    if isinstance(error, IncompleteHistory):
                        self._alarms[channel] = _blocked_alarm(channel, reason)
                except Exception as error:
                    # A fault about one channel must not end the defence of the others.
                    log.exception("reconcile_failed", **self._about(channel))
                    failed.add(channel)
                    self._alarms[channel] = _blocked_alarm(channel, type(error).__name__)
            pause = min(max(pause * 2, 0.1), 5.0) if failed else 0.0
            if failed:
                pulse.rest(pause)
                await asyncio.sleep(pause)
                self._dirty |= failed
                self._wake.set()

    async def _all_open(self) -> list[Channel]:
        while True:
            self._pulses["reconcile"].work()
            try:
                rows = await channels.channels(self._store.database)
            except DatabaseUnavailable:
                await asyncio.sleep(0.5)
                continue
            return rows

    async def _reconcile(self, channel: bytes) -> None:
        row = await channels.channel_by_id(self._store.database, channel)
        if row is None:
            return
        self._labels[channel] = row.label
        escrow = self._escrows.get(row.escrow)
        if escrow is None:
            await self.reload_escrows()
            escrow = self._escrows[row.escrow]
        try:
            records = await self.chain_store.record(channel)
        except IncompleteHistory:
            # All of the escrow's past is read, once: the next comparison has what is missing.
            await self.chain_store.watch(row.escrow, since=0)
            self.follower.look()
            raise
        state = await self._state_of_lock(row, records.head)
        newest = None
        if row.authorized is not None:
            newest = await channels.state_at(self._store.database, channel, row.authorized)
        situation = self._situation(row, escrow, records, state, newest)
        decision = reconcile(situation)
        if records.head.status in _RESTLESS or decision.action in _SENDING:
            self._restless.add(channel)
        else:
            self._restless.discard(channel)
        self._note_due(row, escrow, records.head, situation)
        self._note_alarm(row, decision)
        try:
            with about(**self._about(channel)):
                await self._act(decision.action, row, escrow, records, state)
            if decision.action not in _ALARMING:
                self._alarms.pop(channel, None)
        except _RESTS as error:
            reason = f"{decision.action.value}: {str(error) or type(error).__name__}"
            self._alarms[channel] = Alarm(
                "action_failed", reason, row.label, Level.WARNING, channel=channel
            )
            if isinstance(error, InsufficientFunds):
                self._balances_read = 0.0  # look again, to say which account is empty
            raise
        finally:
            # Keys that are attached and cannot or do not sign must not keep the guard back.
            expiring = records.head.status is ChannelStatus.EXPIRING
            pressing = situation.phase is not Phase.FIRST_HALF
            if decision.action is Action.CLOSE and expiring and pressing and situation.guard_usable:
                await self._guard_close(self._transactions(row, escrow), row, records.head)

    def _about(self, channel: bytes) -> dict[str, object]:
        """Return what lines of the log about a channel have."""
        return {"channel": self._labels.get(channel), "channel_id": channel.hex()}

    def _describe(self, purpose: str) -> dict[str, object]:
        """Return what lines about a transaction have: also the operation that asked for it."""
        kind, channel = cause_and_channel(purpose)
        if not channel:
            return {}
        operation = self.cause_of(channel, kind) if kind else None
        found = {} if operation is None else {"operation": operation.hex()}
        return {**self._about(channel), **found}

    async def _state_of_lock(self, row: Channel, record: ChannelRecord) -> State | None:
        """Return which of our states is being closed on, None when none or not ours."""
        if record.status is not ChannelStatus.CLOSING:
            return None
        lock = record.lock.to_bytes(32)
        for state in await channels.states(self._store.database, row.channel):
            if state.lock == lock:
                return state
        return None

    def _guard_usable(self, newest: State | None, record: ChannelRecord) -> bool:
        """Whether the guard is enabled, has the permit for the newest state, and may still act."""
        return (
            self._settings.guard.enabled
            and not record.guard_struck_off
            and newest is not None
            and newest.permit is not None
            and newest.guard == self._guard.address
        )

    def _situation(
        self,
        row: Channel,
        escrow: Escrow,
        records: Records,
        state: State | None,
        newest: State | None,
    ) -> Situation:
        assert self._gateway is not None
        head = self.follower.head
        local = row.state
        if row.doubtful and local is Status.ASKED and row.mutual_signature is None:
            local = Status.SUSPECT  # closed by agreement, or not before it presses
        return Situation(
            local=local,
            chain=records.head.status,
            final=records.final.status,
            phase=phase_of(
                deadline=records.head.deadline,
                delay=escrow.delay,
                margin=int(self._settings.chain.margin),
                now=0 if head is None else head.timestamp,
            ),
            posted=posted_of(
                records.head.status,
                state=None if state is None else state.index,
                completed=self._gateway.completed(row.channel, row.index),
            ),
            closed_by_guard=records.head.closed_by_guard,
            guard_usable=self._guard_usable(newest, records.head),
            signer=self._gateway.ready,
            compared=self._gateway.compared,
        )

    def _note_alarm(self, row: Channel, decision: Decision) -> None:
        level = _ALARMING.get(decision.action)
        if level is not None:
            self._alarms[row.channel] = Alarm(
                decision.action.value, decision.reason, row.label, level, channel=row.channel
            )

    def _note_due(
        self, row: Channel, escrow: Escrow, record: ChannelRecord, now: Situation
    ) -> None:
        """Note until when something of ours has to be on the chain, if anything has to."""
        self._open.pop(row.channel, None)
        if record.status is ChannelStatus.OPEN and now.local is not Status.CLOSED:
            self._open[row.channel] = escrow.delay
        what = _what_is_due(record.status, now.posted)
        if what is None:
            self._due.pop(row.channel, None)
            return
        self._due[row.channel] = Due(
            begin=record.deadline - escrow.delay,
            before=record.deadline - int(self._settings.chain.margin),
            what=what,
            label=row.label,
            channel=row.channel,
        )

    async def _act(
        self,
        action: Action,
        row: Channel,
        escrow: Escrow,
        records: Records,
        state: State | None,
    ) -> None:
        sender = self._transactions(row, escrow)
        deadline = self._act_before(records.head)
        match action:
            case Action.SEND_OPEN:
                await sender.open_channel()
            case Action.CLOSE:
                await self._close(sender, row, records.head, deadline)
            case Action.GUARD_CLOSE:
                await self._guard_close(sender, row, records.head)
            case Action.CLAIM:
                await sender.claim(records.head)
            case Action.RECLAIM:
                await sender.reclaim()
            case Action.DISPUTE_OWN:
                assert state is not None
                await self._dispute(sender, row, state, deadline)
            case Action.RECORD:
                await self._record_end(row, escrow, records)
            case Action.REOPEN | Action.ASK_MERCHANT:
                await self._take_up(action, row, records.head)

    async def _take_up(self, action: Action, row: Channel, record: ChannelRecord) -> None:
        """Reopen a record; or have a suspect channel walked forward.

        One from a backup is walked at the user's word, or when it presses: walking shows the
        merchant that the payments asked for belong together.
        """
        assert self._gateway is not None
        if action is Action.REOPEN:
            await self._reopen(row)
            return
        in_time = not row.restored or record.status is ChannelStatus.EXPIRING
        if row.state is Status.SUSPECT and self._gateway.ready and in_time:
            await self.recover(row)

    def _act_before(self, record: ChannelRecord) -> int | None:
        if not record.deadline:
            return None
        return record.deadline - int(self._settings.chain.margin)

    def _transactions(self, row: Channel, escrow: Escrow) -> Transactions:
        assert self._gateway is not None
        if self._wallet_lane is None and self._gateway.account is not None:
            self._wallet_lane = Lane(
                self.client,
                self._store.database,
                WalletAccount(self._gateway, self._gateway.account),
                name="wallet",
                policy=self._policy,
                describe=self._describe,
            )
        return Transactions(
            client=self.client,
            gateway=self._gateway,
            wallet=self._wallet_lane,
            guard=self._guard_lane,
            channel=row,
            escrow=escrow,
            now=self.chain_time,
        )

    async def _close(
        self, sender: Transactions, row: Channel, record: ChannelRecord, deadline: int | None
    ) -> None:
        """Close with the customer's own key, by agreement where there is one."""
        if row.state is Status.ASKED and record.status is ChannelStatus.OPEN:
            if row.mutual_signature is None:
                return
            await sender.mutual_close(await self._newest(row), row.mutual_signature, deadline)
            return
        decided = await self._decide(row)
        newest = await self._newest(decided)
        assert self._gateway is not None
        agreed = decided.mutual_signature
        await authorize_close(
            self._gateway,
            self._store,
            decided,
            guard=self._guard.address,
            kind="unilateral" if agreed is None else "mutual",
        )
        if agreed is not None:
            await sender.mutual_close(newest, agreed, deadline)
            return
        await sender.close(newest, deadline)

    async def _guard_close(self, sender: Transactions, row: Channel, record: ChannelRecord) -> None:
        decided = await self._decide(row)
        await sender.defend(await self._newest(decided), self._act_before(record))

    async def _newest(self, row: Channel) -> State:
        assert row.authorized is not None
        index = row.authorized if row.closing is None else row.closing
        state = await channels.state_at(self._store.database, row.channel, index)
        assert state is not None, "a state that is closed on has its authorization"
        return state

    async def _decide(self, row: Channel) -> Channel:
        """Write the decision to close on the newest authorization before anything leaves."""
        if row.state is Status.DECIDED:
            return row

        async def write(change: Change) -> None:
            locked = await channels.lock_channel(
                change.connection, row.channel, allowed=LIVE | {Status.SUSPECT}
            )
            closing = locked.closing if locked.closing is not None else locked.authorized
            await channels.update_channel(change, locked, status="decided", closing=closing)

        await self._store.change(write)
        decided = await channels.channel_by_id(self._store.database, row.channel)
        assert decided is not None
        return decided

    async def _dispute(
        self, sender: Transactions, row: Channel, state: State, deadline: int | None
    ) -> None:
        assert self._gateway is not None
        answer = await self._gateway.request(
            wire.DISPUTE_SECRET,
            wire.DisputeParams(channel=row.channel, index=state.index, attempt=state.attempt),
        )
        await sender.dispute(answer.secret, deadline)

    async def _record_end(self, row: Channel, escrow: Escrow, records: Records) -> None:
        """Close the local record once the end is final, with what was paid out."""
        ended = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)
        if row.state is Status.CLOSED or records.final.status not in ended:
            return
        final = records.final

        async def write(change: Change) -> None:
            locked = await channels.lock_channel(
                change.connection, row.channel, allowed=frozenset(Status)
            )
            paid = {}
            if final.status is ChannelStatus.CLOSED:  # of a payment in flight either state may end
                paid["customer_balance"] = final.customer_balance
                paid["merchant_balance"] = final.merchant_balance
            await channels.update_channel(change, locked, status="closed", **paid)
            change.event(
                "channel",
                "closed",
                channel=row.channel,
                label=row.label,
                chain_status=final.status.name.lower(),
                customer=escrow.asset.format(final.customer_balance),
                merchant=escrow.asset.format(final.merchant_balance),
            )

        await self._store.change(write)
        log.info("channel_closed")
        self._announce()

    async def _reopen(self, row: Channel) -> None:
        """The end that was recorded is not on the chain any more."""

        async def write(change: Change) -> None:
            locked = await channels.lock_channel(
                change.connection, row.channel, allowed=(Status.CLOSED,)
            )
            closing = locked.closing if locked.closing is not None else locked.authorized
            await channels.update_channel(change, locked, status="decided", closing=closing)

        await self._store.change(write)
        log.error("channel_reopened")
        self.kick(row.channel)


def _what_is_due(status: ChannelStatus, posted: Posted) -> str | None:
    """Return which act of ours the chain waits for, for people."""
    if status is ChannelStatus.EXPIRING:
        return "the merchant demands a close, and none is on the chain"
    if status is ChannelStatus.CLOSING and posted is not Posted.OURS:
        return "a close on another state than the newest is on the chain"
    return None


def _blocked_alarm(channel: bytes, reason: str) -> Alarm:
    return Alarm(
        "not_reconciled",
        f"nothing can be decided about the channel 0x{channel.hex()}: {reason}",
        level=Level.CRITICAL,
        channel=channel,
        subject=channel.hex(),
    )


def _stuck_alarm(row: TransactionRow) -> Alarm:
    assert row.trouble is not None
    what = row.purpose.partition(":")[0]
    if row.trouble is Trouble.FEE_CAP:
        offered = f"{row.fees.max_fee / 10**9:g} gwei per gas"
        return Alarm(
            "fee_cap",
            f"{what}: {offered} are offered, and chain.fee_cap allows no more",
            subject=row.purpose,
            deadline=row.deadline,
        )
    return Alarm(
        "transaction_stuck",
        f"{what}: {row.trouble.value}",
        level=Level.WARNING,
        subject=row.purpose,
        deadline=row.deadline,
    )


def _no_cause(_channel: bytes, _kind: str) -> None:
    """Before the operations are there nothing was asked for."""


async def _nobody_recovers(_channel: Channel) -> None:
    """Before the operations are there nothing is recovered."""
