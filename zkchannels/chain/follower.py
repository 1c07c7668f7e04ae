"""Follow the chain: woken by new heads, read back by hash, unwound where it was reorganised."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from zkchannels.chain.client import ChainClient, Request, block_request
from zkchannels.chain.errors import ChainError, ChainUnavailable, MalformedAnswer
from zkchannels.chain.model import Block, Log
from zkchannels.chain.opinions import Comparison
from zkchannels.chain.ring import (
    LARGE_RANGE,
    MovedError,
    Range,
    branch_hashes,
    check_headers,
    check_logs,
    common_ancestor,
    final_number,
    next_range,
    oldest_to_keep,
)
from zkchannels.chain.store import Advance, ChainStore, Cursor, FollowedAddress
from zkchannels.service.logging import get_logger
from zkchannels.service.pulse import Pulse
from zkchannels.store.database import DatabaseUnavailable

T = TypeVar("T")

FIRST_PAUSE = 0.2  # seconds
LONGEST_PAUSE = 15.0
TRIM_EVERY = 32  # blocks
SOUND = 10.0  # seconds after which a WebSocket counts as having worked
TIMES_TO_LOOK_AGAIN = 20  # for a chain that moves whenever it is looked at
DISAGREEMENT_LASTS = 600.0  # seconds, while only one side can be asked

log = get_logger(__name__)


class Follower:
    """Keeps the store equal to the chain, for the escrows that `addresses` names at each look.

    `on_change` is awaited after the commit, with the channels that have an event added, dropped or
    made final; what it could not handle because the database was away, it gets again.
    `confirmations`: "finalized" for the node's tag, or a depth (1: the head is final). `poll`:
    seconds between looks without a wake-up. `stale_after`: seconds from a head's timestamp after
    which it says nothing about now. `websocket=False` is for nodes that have none.
    """

    def __init__(
        self,
        client: ChainClient,
        store: ChainStore,
        addresses: Callable[[], frozenset[bytes]],
        on_change: Callable[[frozenset[bytes]], Awaitable[None]],
        *,
        confirmations: int | str = "finalized",
        poll: float = 60.0,
        stale_after: float = 300.0,
        websocket: bool = True,
    ) -> None:
        if not (confirmations == "finalized" or isinstance(confirmations, int)):
            raise ValueError('confirmations is a depth or "finalized"')
        if isinstance(confirmations, int) and confirmations < 1:
            raise ValueError("a depth counts from 1, the head itself")
        self._client = client
        self._store = store
        self._addresses = addresses
        self._on_change = on_change
        self._confirmations = confirmations
        self._poll = poll
        self._stale_after = stale_after
        self._websocket = websocket
        self._cursor: Cursor | None = None
        self._revision = -1
        self._owed: set[bytes] = set()
        self._largest = LARGE_RANGE
        self._caught_up = False
        self._head: Block | None = None
        self._final = -1
        self._progress = time.monotonic()
        self.pulse = Pulse()
        """Whether the loop goes round, with or without a node to ask."""
        self._trouble = "not started"
        self._compared = Comparison()
        self._disagreed = 0.0
        self._broken: int | None = None
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._looked = asyncio.Event()

    @property
    def head(self) -> Block | None:
        """The newest block whose events are stored; None before the first look."""
        return self._head

    @property
    def final(self) -> int:
        """Number of the newest final block that was read; -1 before the first look."""
        return self._final

    @property
    def following(self) -> bool:
        """Whether the store shows the chain as it is now: caught up, fresh, and undisputed."""
        if not self._caught_up or self._head is None or self._compared.undecided:
            return False
        return time.time() - self._head.timestamp <= self._stale_after

    @property
    def progress(self) -> float:
        """Monotonic time of the last look at the chain that succeeded."""
        return self._progress

    @property
    def trouble(self) -> str:
        """Why the last look failed, for people; empty when it did not."""
        return self._trouble

    @property
    def disagreement(self) -> str:
        """How nodes contradict each other about the chain, for people; empty when they do not."""
        return self._compared.contradiction

    @property
    def undecided(self) -> bool:
        """Whether they contradict each other, and no majority says who is right."""
        return self._compared.undecided

    @property
    def finality_broken(self) -> bool:
        """Whether final blocks were replaced, and the chain that did it is not final itself yet."""
        return self._broken is not None

    def use(self, *, poll: float, stale_after: float) -> None:
        """Look more or less often from now on, and judge the head's age otherwise."""
        self._poll = poll
        self._stale_after = stale_after
        self.look()

    def look(self) -> None:
        """Look at the chain now instead of at the next wake-up."""
        self._wake.set()

    async def changed(self) -> None:
        """Return after the next look at the chain that succeeded: at least one for every head."""
        await self._news.wait()

    async def heads(self) -> AsyncGenerator[tuple[Block, int], None]:
        """Yield the head and the newest final number now, and after every look that succeeded."""
        while True:
            news = self._news
            if self._caught_up and self._head is not None:
                yield self._head, self._final
            await news.wait()

    async def follows(self) -> AsyncGenerator[bool, None]:
        """Yield `following` now and whenever a look, good or bad, has changed it."""
        told: bool | None = None
        while True:
            looked = self._looked
            now = self.following
            if now is not told:
                told = now
                yield now
            await looked.wait()

    async def wait_for(self, predicate: Callable[[], Awaitable[T]]) -> T:
        """Return the predicate's first true value; it is asked now and after every look.

        For instance `await follower.wait_for(channel_is_open_and_final)`. Whatever the predicate
        raises is raised.
        """
        while True:
            news = self._news  # taken before asking: a change in between is not missed
            found = await predicate()
            if found:
                return found
            await news.wait()

    async def run(self) -> None:
        """Follow until cancelled. Node and database may go away and come back meanwhile.

        Raises AnotherChain, and whatever `on_change` raises but DatabaseUnavailable.
        """
        async with asyncio.TaskGroup() as group:
            if self._websocket:
                group.create_task(self._listen(), name="chain wake-ups")
            await self._follow()

    # -- the two loops ----------------------------------------------------------------------------

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self.pulse.work()
            self._wake.clear()
            try:
                await self.catch_up()
            except (ChainUnavailable, ChainError, MalformedAnswer, MovedError) as error:
                if isinstance(error, (MalformedAnswer, MovedError)):
                    self._client.blame("its answers do not fit together")
                self._failed(error)
            except DatabaseUnavailable as error:
                self._cursor = None  # a commit whose answer was lost: read what is there
                self._failed(error)
            else:
                pause = FIRST_PAUSE
                await self._sleep(self._poll)
                continue
            await self._sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 -- only spreads load
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _listen(self) -> None:
        """Turn pushed heads into wake-ups; whenever there is no socket, look at once instead.

        A node without WebSocket is thereby polled every LONGEST_PAUSE seconds at least.
        """
        pause, told = FIRST_PAUSE, ""
        while True:
            began = time.monotonic()
            try:
                async with contextlib.aclosing(self._client.new_heads()) as heads:
                    async for _ in heads:
                        self._wake.set()
            except ChainUnavailable as error:
                if str(error) != told:
                    told = str(error)
                    log.info("chain_polled", reason=told)
            self._wake.set()
            pause = FIRST_PAUSE if time.monotonic() - began > SOUND else pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _sleep(self, seconds: float) -> None:
        self.pulse.rest(seconds)
        with contextlib.suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it can swallow a cancellation, and a stop hangs.
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _failed(self, error: Exception) -> None:
        reason = str(error) or "the chain moves faster than it is read, or the node lost blocks"
        if reason != self._trouble:
            log.warning("chain_not_followed", reason=reason)
        self._trouble = reason
        self._caught_up = False
        self._tell_looked()

    # -- one look ---------------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Read until the store is as far as the node, then tell of the changes.

        Raises ChainUnavailable, ChainError, MalformedAnswer, MovedError, DatabaseUnavailable,
        AnotherChain.
        """
        self._note_opinions(await self._client.survey(int(time.monotonic() // self._poll)))
        moved = 0
        while True:
            try:
                if not await self._step():
                    break
            except MovedError:
                moved += 1
                if moved == TIMES_TO_LOOK_AGAIN:
                    raise
        if self._owed:
            await self._on_change(frozenset(self._owed))
            self._owed.clear()
        if self._trouble:
            log.info(
                "chain_followed",
                head=self._final if self._head is None else self._head.number,
            )
        self._trouble = ""
        self._caught_up = True
        self._progress = time.monotonic()
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._tell_looked()

    def _note_opinions(self, found: Comparison | None) -> None:
        """Remember a disagreement: that one side falls silent does not make the other one right."""
        now, before = time.monotonic(), self._compared
        if found is None:
            if now - self._disagreed > DISAGREEMENT_LASTS:
                self._compared = Comparison()
            return
        if found.contradiction:
            self._disagreed = now
            if not before.contradiction:
                log.error("nodes_disagree", reason=found.contradiction)
        elif before.contradiction:
            log.info("nodes_agree")
        self._compared = found

    def _tell_looked(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    async def _step(self) -> bool:
        """Read one batch of blocks; False when there is nothing more to read."""
        cursor = await self._load()
        tip = cursor.blocks[-1] if cursor.blocks else None
        head, tagged, still = await self._ask_heads(tip)
        if tip is None:
            return await self._begin(cursor, head, tagged)
        if still is None and head.number < tip.number:
            ours = common_ancestor(cursor.blocks, {head.number: head.hash})
            if ours is not None:
                return False  # the node is behind us on the same chain, and tells nothing new
            if head.number < cursor.blocks[0].number:
                # It may be reading the chain from its beginning: no sign of another history.
                self._client.blame("is behind everything that was read")
                raise ChainUnavailable("the node is behind everything that was read")
        elif still is None:
            raise MovedError  # a block that is not there is no sign of another branch
        ancestor: Block | None = tip
        if still is None or still.hash != tip.hash:
            ancestor = await self._find_ancestor(cursor, head)
            if ancestor is None and self._compared.contradiction:
                raise ChainUnavailable(f"another history, and {self._compared.contradiction}")
            if ancestor is None:
                return await self._start_over(cursor)
        assert ancestor is not None
        return await self._read_on(cursor, ancestor, head, tagged)

    async def _load(self) -> Cursor:
        if self._cursor is None or self._revision != self._store.revision:
            self._revision = self._store.revision
            self._cursor = await self._store.load(await self._client.chain_id())
            self._publish(self._cursor)
        return self._cursor

    async def _ask_heads(self, tip: Block | None) -> tuple[Block, int | None, Block | None]:
        """Return the node's head, its final block's number, and its block at our tip's number."""
        requests = [block_request("latest")]
        if self._confirmations == "finalized":
            requests.append(block_request("finalized"))
        if tip is not None:
            requests.append(block_request(tip.number))
        found = await self._client.batch(requests)
        head, finalized = found[0], found[1] if self._confirmations == "finalized" else None
        still = found[-1] if tip is not None else None
        if isinstance(still, ChainError):
            still = None  # some nodes refuse numbers above their head instead of answering null
        if not isinstance(head, Block):
            raise MalformedAnswer("the node has no latest block")
        # A young chain has no finalized block yet, and some nodes make an error of it.
        return head, finalized.number if isinstance(finalized, Block) else None, still

    async def _begin(self, cursor: Cursor, head: Block, tagged: int | None) -> bool:
        """Take the newest final block as the first; what is older is fetched as a backlog."""
        number = max(final_number(head.number, self._confirmations, tagged, -1), 0)
        first = await self._client.block(number)
        if first is None or first.number != number:
            raise MovedError
        await self._advance(cursor, Advance(final=cursor.final, onto=None, blocks=[first]))
        return True

    async def _find_ancestor(self, cursor: Cursor, head: Block) -> Block | None:
        """Ask for the node's blocks at our numbers, newest first, in growing batches."""
        size, rest = 16, [block for block in cursor.blocks if block.number <= head.number]
        while rest:
            part, rest = rest[-size:], rest[:-size]
            found = await self._blocks([block_request(block.number) for block in part])
            theirs = branch_hashes([block.number for block in part], found)
            ancestor = common_ancestor(part, theirs)
            if ancestor is not None:
                return ancestor
            size *= 4
        return None

    async def _start_over(self, cursor: Cursor) -> bool:
        """Nothing we know is on the node's chain: it is another history, to be read afresh."""
        log.error("chain_read_afresh")
        self._broken = cursor.blocks[-1].number
        await self._advance(
            cursor,
            Advance(
                final=-1,
                onto=None,
                unwind_to=-1,
                addresses=[replace_behind(row, row.since) for row in cursor.addresses],
            ),
        )
        return True

    async def _read_on(
        self, cursor: Cursor, ancestor: Block, head: Block, tagged: int | None
    ) -> bool:
        """Store the next blocks after the ancestor, dropping ours above it in the same commit."""
        tip = cursor.blocks[-1]
        unwind_to = None if ancestor == tip else ancestor.number
        if unwind_to is not None:
            self._tell_reorganisation(cursor, ancestor)
        wanted = next_range(ancestor.number, head.number, largest=self._largest)
        active = self._addresses()
        current = [row for row in cursor.addresses if row.address in active and row.behind is None]
        blocks, logs = await self._read(ancestor, wanted, [row.address for row in current], head)
        reached = blocks[-1].number if blocks else ancestor.number
        before = cursor.final if unwind_to is None else min(cursor.final, unwind_to)
        told = final_number(head.number, self._confirmations, tagged, before)
        # What only one side shows is not final yet, whatever that side says.
        final = before if self._compared.undecided else min(told, max(reached, before))
        addresses = self._address_changes(cursor, active, ancestor.number, before)
        changed = bool(blocks or unwind_to is not None or addresses or final != cursor.final)
        if changed:
            trim = len(blocks) > 1 or reached % TRIM_EVERY == 0
            kept = [*cursor.blocks, *blocks] if unwind_to is None else [ancestor, *blocks]
            await self._advance(
                cursor,
                Advance(
                    final=final,
                    onto=ancestor.hash,
                    unwind_to=unwind_to,
                    blocks=blocks,
                    logs=logs,
                    addresses=addresses,
                    keep_from=oldest_to_keep(kept, final) if trim else None,
                ),
            )
        if reached < head.number:
            return True
        return await self._read_backlog(active)

    async def _read(
        self, parent: Block, wanted: Range | None, addresses: Sequence[bytes], head: Block
    ) -> tuple[list[Block], list[Log]]:
        """Return headers and logs of a range, all from one branch; raises MovedError."""
        if wanted is None:
            return [], []
        if wanted.first == wanted.last == head.number:
            blocks = check_headers(parent, wanted, [head])
        else:
            requests: list[Request] = [block_request(number) for number in wanted.headers]
            blocks = check_headers(parent, wanted, await self._blocks(requests))
        if not addresses:
            return blocks, []
        if wanted.first == wanted.last:
            logs = await self._logs_of(addresses, blocks[0])
        else:
            logs = await self._logs(addresses, wanted.first, wanted.last)
            (again,) = await self._blocks([block_request(wanted.last)])
            if again is None or again.hash != blocks[-1].hash:
                raise MovedError
        hashes = {block.number: block.hash for block in blocks}
        check_logs(wanted.first, wanted.last, hashes, logs)
        return blocks, logs

    async def _blocks(self, requests: Sequence[Request]) -> list[Block | None]:
        found = await self._client.batch(requests)
        for answer in found:
            if isinstance(answer, ChainError):
                raise answer
        return found

    async def _logs_of(self, addresses: Sequence[bytes], block: Block) -> list[Log]:
        """Ask for the logs of one block; raises MovedError when it is not on the chain any more."""
        try:
            return await self._client.logs(addresses, block_hash=block.hash)
        except ChainError:
            (now,) = await self._blocks([block_request(block.number)])
            if now is None or now.hash != block.hash:
                raise MovedError from None
            raise

    async def _logs(self, addresses: Sequence[bytes], first: int, last: int) -> list[Log]:
        """Ask for the logs of a range; a node that finds it too large gets smaller ones."""
        try:
            logs = await self._client.logs(addresses, from_block=first, to_block=last)
        except ChainError:
            if first == last:
                raise
            self._largest = max((last - first + 1) // 2, 1)
            middle = first + self._largest - 1
            return [
                *await self._logs(addresses, first, middle),
                *await self._logs(addresses, middle + 1, last),
            ]
        self._largest = min(max(self._largest, 2 * (last - first + 1)), LARGE_RANGE)
        return logs

    def _address_changes(
        self, cursor: Cursor, active: frozenset[bytes], read: int, final: int
    ) -> list[FollowedAddress]:
        """Return new addresses, and those set aside.

        New ones are read from where this database was final before this look: an old one may name
        an escrow that it did not follow yet, and a channel of it may be older than the look.
        """
        known = {row.address for row in cursor.addresses}
        since = final if final >= 0 else cursor.blocks[0].number
        new = [FollowedAddress(address, since, since) for address in sorted(active - known)]
        aside = [
            replace_behind(row, read + 1)
            for row in cursor.addresses
            if row.address not in active and row.behind is None
        ]
        return new + aside

    async def _read_backlog(self, active: frozenset[bytes]) -> bool:
        """Read one range of old blocks for addresses that are not caught up; False: none is."""
        cursor = await self._load()
        tip = cursor.blocks[-1]
        late = [row for row in cursor.addresses if row.address in active and row.behind is not None]
        if not late:
            return False
        first = min(row.behind for row in late if row.behind is not None)
        rows = [row for row in late if row.behind == first]
        last = min(first + self._largest - 1, tip.number)
        logs: list[Log] = []
        if first <= last:
            logs = await self._logs([row.address for row in rows], first, last)
        (again,) = await self._blocks([block_request(tip.number)])
        if again is None or again.hash != tip.hash:
            raise MovedError
        check_logs(first, last, {block.number: block.hash for block in cursor.blocks}, logs)
        behind = last + 1 if last < tip.number else None
        await self._advance(
            cursor,
            Advance(
                final=cursor.final,
                onto=tip.hash,
                logs=logs,
                addresses=[replace_behind(row, behind) for row in rows],
            ),
        )
        return True

    async def _advance(self, cursor: Cursor, step: Advance) -> None:
        self._cursor = None  # unknown until the commit is confirmed
        await self._store.advance(step, self._owed)
        self._cursor = after(cursor, step)
        self._publish(self._cursor)
        self._progress = time.monotonic()
        self.pulse.work()

    def _publish(self, cursor: Cursor) -> None:
        self._head = cursor.blocks[-1] if cursor.blocks else None
        self._final = cursor.final
        if self._broken is not None and cursor.final > self._broken:
            self._broken = None

    def _tell_reorganisation(self, cursor: Cursor, ancestor: Block) -> None:
        depth = cursor.blocks[-1].number - ancestor.number
        if ancestor.number < cursor.final:
            self._broken = cursor.blocks[-1].number
            log.error("final_blocks_reorganised", depth=depth, block=ancestor.number)
        else:
            log.info("chain_reorganised", depth=depth, block=ancestor.number)


def replace_behind(row: FollowedAddress, behind: int | None) -> FollowedAddress:
    """Return the row with another place to go on from."""
    return FollowedAddress(
        row.address, row.since, None if behind is None else max(behind, row.since)
    )


def after(cursor: Cursor, step: Advance) -> Cursor:
    """Return the cursor as the database has it after a step was committed."""
    blocks = cursor.blocks
    rows = {row.address: row for row in cursor.addresses}
    if step.unwind_to is not None:
        to = step.unwind_to
        blocks = tuple(block for block in blocks if block.number <= to)
        for row in cursor.addresses:
            if row.behind is not None and row.behind > to + 1:
                rows[row.address] = replace_behind(row, to + 1)
    blocks = (*blocks, *step.blocks)
    if step.keep_from is not None:
        oldest = step.keep_from
        blocks = tuple(block for block in blocks if block.number >= oldest)
    for row in step.addresses:
        rows[row.address] = row
    return Cursor(blocks, tuple(sorted(rows.values(), key=lambda row: row.address)), step.final)
