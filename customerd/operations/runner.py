"""The queue at work: strict order per channel, channels side by side, resumed after a restart."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

import psycopg

from customerd.channels import queries as channels
from customerd.channels.record import Channel
from customerd.config import Settings
from customerd.operations import close, establish, pay
from customerd.operations import queries as operations
from customerd.operations.queries import OperationEnded, OperationRow
from customerd.operations.rests import Rests
from customerd.operations.run import Interrupted, Refused, Run, Surroundings
from customerd.recovery import queries as recovery
from customerd.recovery import walk
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.store.events import Change
from customerd.watch.alarms import Alarm
from zkchannels.chain.errors import ChainUnavailable, IncompleteHistory
from zkchannels.service.logging import about, get_logger
from zkchannels.store.database import CommitOutcomeUnknown, DatabaseUnavailable

log = get_logger("customerd.operations")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0


async def _keep(change: Change, run: Run) -> None:
    """A refused close changes nothing."""


@dataclass(frozen=True, slots=True)
class _Kind:
    steps: Callable[[Run], Awaitable[None]]
    undo: Callable[[Change, Run], Awaitable[None]]


_KINDS = {
    "establish": _Kind(establish.establish, establish.undo),
    "pay": _Kind(pay.pay, pay.undo),
    "refund": _Kind(pay.pay, pay.undo),
    "close": _Kind(close.close, _keep),
    "recover": _Kind(walk.recover, _keep),
}


class _Held(Exception):
    """The operation waits for the user's word, and nothing behind it waits for it."""


class Runner:
    """Executes operations; every task belongs to the group given to `run`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._group: asyncio.TaskGroup | None = None
        self._queues: dict[bytes, deque[OperationRow]] = {}
        self._at_work: dict[bytes, asyncio.Task[None]] = {}
        self._held: frozenset[bytes] = frozenset()
        self._recovering: set[bytes] = set()
        self._waiting_for_word: set[bytes] = set()
        self._causes: dict[tuple[bytes, str], bytes] = {}
        self._ended: dict[bytes, asyncio.Future[OperationRow | None]] = {}
        self._places: dict[bytes, bytes] = {}
        self._read: dict[bytes, Channel] = {}
        self._started = asyncio.Event()
        self._rests = Rests()
        self._look = asyncio.Event()

    def use(self, settings: Settings) -> None:
        """Go by other settings in every operation that is taken up from now on."""
        self._around = replace(self._around, settings=settings)

    @property
    def unfinished(self) -> int:
        """How many operations have not ended."""
        return len(self._ended)

    def unfinished_on(self, visible: Collection[bytes] | None) -> int:
        """How many operations on these channels, or on all, have not ended."""
        if visible is None:
            return self.unfinished
        return sum(self._places.get(operation) in visible for operation in self._ended)

    def recovering(self, channel: bytes) -> bool:
        """Whether a recovery of this channel has not ended."""
        return channel in self._recovering

    def cause_of(self, channel: bytes, kind: str) -> bytes | None:
        """Return the newest establish or close of a channel since the start, for the log."""
        return self._causes.get((channel, kind))

    def reason(self, operation: bytes) -> str:
        """Why an operation rests, in words; empty when it does not or did not say."""
        return self._rests.reason(operation)

    @property
    def alarms(self) -> list[Alarm]:
        """What the owner should know about operations that do not get on."""
        return self._rests.alarms if self._around.gateway.ready else []

    async def run(self) -> None:
        """Take up every unfinished operation at its step, then work on what is submitted."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                self._look.clear()
                try:
                    await self.take_up()
                except DatabaseUnavailable:
                    await self._around.store.database.wait_available()
                    continue
                self._started.set()
                await self._look.wait()

    def look_again(self) -> None:
        """Take up soon what may have been written: its commit got no answer."""
        self._look.set()

    async def take_up(self) -> None:
        """Submit every unfinished operation that is not at work: none waits for a restart."""
        database = self._around.store.database
        await self.read_held()
        ahead = await recovery.ahead(database)
        for row in await operations.unfinished(database):
            if row.operation not in self._held:
                self.submit(row, ahead=row.operation in ahead, again=True)

    async def read_held(self) -> None:
        """Take note of the operations that wait for the user's word."""
        self._held = await recovery.held(self._around.store.database)

    async def started(self) -> None:
        """Return once the unfinished operations of an earlier run are taken up."""
        await self._started.wait()

    def submit(
        self,
        row: OperationRow,
        *,
        ahead: bool = False,
        again: bool = False,
        channel: Channel | None = None,
    ) -> None:
        """Queue a written operation behind the earlier ones on its channel.

        One that goes ahead, a forced close or a recovery does not wait: an operation that cannot go
        on must not keep it back. `again`: it was queued before a restart or an outage. `channel`:
        as it was just read; the first step need not read it again, as what it writes depends on
        what it has read still being there.
        """
        if self._group is None:
            return
        if row.operation in self._waiting_for_word:
            self._waiting_for_word.discard(row.operation)  # whoever waits for its end still does
        elif row.operation in self._ended:
            return
        _tell_of(row, again=again)
        assert row.channel is not None
        self._ended.setdefault(row.operation, asyncio.get_running_loop().create_future())
        self._places[row.operation] = row.channel
        if row.kind == "recover":
            self._recovering.add(row.channel)
        if ahead or row.kind == "recover" or (row.kind == "close" and row.force):
            self._start(row)
            return
        queue = self._queues.get(row.channel)
        if queue is not None:
            queue.append(row)
            return
        self._queues[row.channel] = deque([row])
        if channel is not None:
            self._read[row.operation] = channel
        self._group.create_task(self._drain(row.channel), name=f"channel {row.label}")

    async def wait(self, operation: bytes) -> OperationRow | None:
        """Return once the operation has its final outcome; the row, where it need not be read."""
        ended = self._ended.get(operation)
        return None if ended is None else await asyncio.shield(ended)

    async def cancel(self, row: OperationRow) -> bool:
        """Cancel an operation that bound nothing yet; tell whether it was possible."""

        async def write(change: Change) -> bool:
            possible = await operations.cancel_operation(change, row)
            if possible and row.kind == "establish":
                assert row.channel is not None
                await channels.delete_new_channel(change, row.channel)
            return possible

        possible = await self._around.store.change(write)
        if possible:
            task = self._at_work.get(row.operation)
            if task is not None:
                task.cancel()
            log.info("operation_cancelled", operation=row.operation.hex(), channel=row.label)
            self._end(row)
        return possible

    def _start(self, row: OperationRow) -> asyncio.Task[None]:
        assert self._group is not None
        task = self._group.create_task(self._told(row), name=f"{row.kind} {row.operation.hex()}")
        self._at_work[row.operation] = task
        return task

    async def _drain(self, channel: bytes) -> None:
        queue = self._queues[channel]
        while queue:
            row = queue.popleft()
            if row.operation in self._ended:
                await asyncio.wait([self._start(row)])
        del self._queues[channel]

    def _end(self, row: OperationRow, outcome: OperationRow | None = None) -> None:
        self._at_work.pop(row.operation, None)
        self._waiting_for_word.discard(row.operation)
        if row.kind == "recover" and row.channel is not None:
            self._recovering.discard(row.channel)
        self._rests.forget(row.operation)
        self._places.pop(row.operation, None)
        self._read.pop(row.operation, None)
        ended = self._ended.pop(row.operation, None)
        if ended is not None:
            ended.set_result(outcome)

    async def _told(self, row: OperationRow) -> None:
        """Work on an operation, with its name on every line that the log gets on the way."""
        assert row.channel is not None
        if row.kind in ("establish", "close"):
            # Kept beyond its end: what it asked the chain for may become final a little later.
            self._causes[row.channel, row.kind] = row.operation
        with about(operation=row.operation.hex(), channel=row.label, method=row.kind):
            await self._work(row)

    async def _work(self, row: OperationRow) -> None:
        """Take one operation to its outcome, through every interruption."""
        pause, began, first, outcome = FIRST_PAUSE, time.time(), True, None
        while True:
            try:
                outcome = await self._once(row, began, first=first)
            except _Held:
                log.info("operation_held")
                self._at_work.pop(row.operation, None)
                self._waiting_for_word.add(row.operation)
                return
            except Interrupted as error:
                log.info("operation_rests", kind="interrupted")
                log.debug("interrupted", reason=str(error))  # it may have a merchant's words
            except (SignerAway, SignerSlow, ChainUnavailable, IncompleteHistory) as error:
                log.info("operation_rests", kind=type(error).__name__)
            except (DatabaseUnavailable, CommitOutcomeUnknown, psycopg.OperationalError) as error:
                log.warning("operation_rests", kind=type(error).__name__)
            except OperationEnded:
                break
            except Exception:
                # A fault in one operation must not end the daemon that defends every channel.
                log.exception("operation_failed")
            else:
                break
            first = False
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._end(row, outcome)

    async def _pause(self, seconds: float) -> None:
        """Wait a jittered moment, and then for the signer without which nothing goes on."""
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        await self._around.gateway.wait_ready()

    async def _once(self, row: OperationRow, began: float, *, first: bool) -> OperationRow | None:
        """Take the steps to the outcome; return the row that it left, where that is known."""
        if row.operation in self._held:
            raise _Held
        database = self._around.store.database
        kind, current = _KINDS[row.kind], row
        if not first or row.status != "queued":
            read = await operations.operation_by_id(database, row.operation)
            assert read is not None
            if read.ended:
                return read
            current = read
        channel = self._read.pop(row.operation, None)
        run = Run(self._around, current, began=began, channel=channel)
        try:
            await kind.steps(run)
        except Interrupted as error:
            self._rests.note(current, run.trail.current, str(error))
            raise
        except Refused as refusal:
            await run.refuse(refusal, lambda change: kind.undo(change, run))
            log.info("operation_refused", kind=refusal.kind)
            log.debug("refused", reason=refusal.message)  # it may have a merchant's words
        else:
            log.info("operation_done", seconds=round(time.time() - began, 3))
        return run.ended


def _tell_of(row: OperationRow, *, again: bool) -> None:
    """Begin an operation's story, whose every line has its id and its channel."""
    fields = {"operation": row.operation.hex(), "channel": row.label, "method": row.kind}
    log.info("operation_taken_up" if again else "operation_queued", **fields)
