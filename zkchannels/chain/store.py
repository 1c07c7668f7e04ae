"""What the follower knows, in PostgreSQL: newest blocks, events of the escrows, finality."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.errors import UniqueViolation

from zkchannels.chain.errors import AnotherChain, IncompleteHistory, MalformedAnswer
from zkchannels.chain.model import Block, Log
from zkchannels.chain.ring import MovedError
from zkchannels.escrow.ethereum import EthereumError
from zkchannels.escrow.events import CHANNEL_TOPICS, ChannelEvent, EscrowEvent, decode_event
from zkchannels.escrow.record import ChannelRecord, ImpossibleEvent, fold
from zkchannels.store.migrate import Component

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from zkchannels.store.database import Database

COMPONENT = Component("chain", "zkchannels.chain")
MOST_REMEMBERED = 1024
"""Channels whose records are kept in memory."""


class Records(NamedTuple):
    """A channel as of the newest block read, and as of the newest final one."""

    head: ChannelRecord
    final: ChannelRecord


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event of a channel with its place on the chain."""

    event: ChannelEvent
    escrow: bytes
    block_number: int
    transaction_hash: bytes
    final: bool


class FollowedAddress(NamedTuple):
    """Events from `since` on are stored, up to before `behind`; all of them when that is None."""

    address: bytes
    since: int
    behind: int | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """All that the follower starts from: blocks (oldest first), addresses, newest final block."""

    blocks: tuple[Block, ...]
    addresses: tuple[FollowedAddress, ...]
    final: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """One step of the follower, written in one transaction.

    Blocks and events above `unwind_to` are dropped first (None: nothing is). `onto` is the hash of
    the newest block then (None: there is none). `keep_from`: blocks below it are forgotten.
    `addresses` replace the rows of the same address.
    """

    final: int
    onto: bytes | None
    unwind_to: int | None = None
    blocks: Sequence[Block] = ()
    logs: Sequence[Log] = ()
    addresses: Sequence[FollowedAddress] = ()
    keep_from: int | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A log as it is stored."""

    log: Log
    channel: bytes | None
    kind: str


class _StateRow(NamedTuple):
    chain_id: int
    final: int


class _EventRow(NamedTuple):
    channel: bytes
    escrow: bytes
    block_number: int
    transaction_hash: bytes
    topics: list[bytes]
    data: bytes
    final: bool


class ChainStore:
    """Tables of the component "chain"; raises DatabaseUnavailable while the database is away.

    `revision` counts the calls of `watch`, for the follower to take note of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: dict[bytes, Records] | None = None  # None: another process may be writing
        self.revision = 0

    # -- for everyone -----------------------------------------------------------------------------

    async def record(self, channel: bytes) -> Records:
        """Return what the chain says about a channel (32 bytes): at the head, and what is final.

        While this process is the one that writes it is read once between two changes. Raises
        IncompleteHistory when the stored events cannot be all there were.
        """
        read = self._read
        if read is not None and channel in read:
            return read[channel]
        found = (await self.records([channel]))[channel]
        if read is not None and len(read) < MOST_REMEMBERED:
            read[channel] = found
        return found

    async def records(self, channels: Collection[bytes]) -> dict[bytes, Records]:
        """Return the records of several channels; one without any event is ABSENT."""
        found: dict[bytes, list[SeenEvent]] = {channel: [] for channel in channels}
        for channel, seen in await self._events(channels):
            found[channel].append(seen)
        return {channel: _fold(events) for channel, events in found.items()}

    async def history(self, channel: bytes) -> list[SeenEvent]:
        """Return all events of a channel in the order of the chain, final or not."""
        return [seen for _, seen in await self._events([channel])]

    async def known(self) -> tuple[int, Block | None] | None:
        """Return the chain this database belongs to and its newest block, None before both."""
        state = await self._database.fetch_one(
            "select chain_id, final from chain_state", (), row=_StateRow
        )
        if state is None:
            return None
        newest = await self._database.fetch_one(
            "select number, hash, parent_hash, timestamp, base_fee"
            " from chain_block order by number desc limit 1",
            (),
            row=Block,
        )
        return state.chain_id, newest

    async def opened_by(self, escrow: bytes, customer: bytes) -> list[SeenEvent]:
        """Return the events of an escrow that opened channels of a customer, oldest first."""
        rows = await self._database.fetch(
            "select channel, escrow, block_number, transaction_hash, topics, data,"
            " block_number <= (select final from chain_state) as final"
            " from chain_event where escrow = %(escrow)s and kind = 'Opened'"
            " and topics[3] = %(customer)s order by block_number, log_index",
            {"escrow": escrow, "customer": customer.rjust(32, b"\0")},
            row=_EventRow,
        )
        return [
            SeenEvent(
                _channel_event(row), row.escrow, row.block_number, row.transaction_hash, row.final
            )
            for row in rows
        ]

    async def caught_up(self, escrow: bytes) -> bool:
        """Whether all events of an escrow are stored, from where it is followed up to the head."""
        found = await self._database.fetch_one_value(
            "select behind is null from chain_address where address = %s", [escrow]
        )
        return bool(found)

    async def followed(self) -> list[FollowedAddress]:
        """Return the escrows that are followed, and from which block on."""
        return await self._database.fetch(
            "select address, since, behind from chain_address order by address",
            (),
            row=FollowedAddress,
        )

    async def watch(self, address: bytes, *, since: int) -> None:
        """Follow an escrow and fetch its events from a block on, also when it is followed already.

        Without this call, the follower takes up a new address where it was final before.
        """

        async def write(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                "insert into chain_address (address, since, behind)"
                " values (%(address)s, %(since)s, %(since)s)"
                " on conflict (address) do update set since = excluded.since,"
                " behind = excluded.since where chain_address.since > excluded.since",
                {"address": address, "since": since},
            )

        await self._database.run(write)
        self.revision += 1

    # -- for the follower -------------------------------------------------------------------------

    async def load(self, chain_id: int) -> Cursor:
        """Return where to go on; raises AnotherChain if this database was used on another one."""
        self._read = None

        async def write(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                "insert into chain_state (chain_id) values (%s) on conflict do nothing", [chain_id]
            )

        await self._database.run(write)
        state = await self._database.fetch_one(
            "select chain_id, final from chain_state", (), row=_StateRow
        )
        assert state is not None
        if state.chain_id != chain_id:
            raise AnotherChain(
                f"the database belongs to chain {state.chain_id}, the node is on {chain_id}"
            )
        blocks = await self._database.fetch(
            "select number, hash, parent_hash, timestamp, base_fee"
            " from chain_block order by number",
            (),
            row=Block,
        )
        addresses = await self._database.fetch(
            "select address, since, behind from chain_address order by address",
            (),
            row=FollowedAddress,
        )
        return Cursor(blocks=tuple(blocks), addresses=tuple(addresses), final=state.final)

    async def advance(self, step: Advance, changed: set[bytes]) -> None:
        """Write one step; add to `changed` the channels with an event added, dropped or now final.

        They are added before the commit: when its answer is lost, they are known all the same.
        Having written nothing, it raises MalformedAnswer for a log that no escrow can have emitted,
        and MovedError when another process of this database was quicker.
        """
        rows = [_row(log) for log in step.logs]

        async def write(connection: AsyncConnection[Any]) -> None:
            if step.unwind_to is not None:
                changed.update(await _unwind(connection, step.unwind_to))
            changed.update(await _insert_events(connection, rows))
            await _set_addresses(connection, step.addresses)
            changed.update(await _insert_blocks(connection, step))
            if step.keep_from is not None:
                await connection.execute(
                    "delete from chain_block where number < %s", [step.keep_from]
                )

        # Another dict each time: what is being read meanwhile is kept in one that nobody asks.
        read, self._read = self._read or {}, None
        try:
            await self._database.run(write)
        except UniqueViolation:
            raise MovedError from None
        self._read = {channel: found for channel, found in read.items() if channel not in changed}

    async def _events(self, channels: Collection[bytes]) -> list[tuple[bytes, SeenEvent]]:
        rows = await self._database.fetch(
            "select channel, escrow, block_number, transaction_hash, topics, data,"
            " block_number <= (select final from chain_state) as final"
            " from chain_event where channel = any(%s) order by block_number, log_index",
            [list(channels)],
            row=_EventRow,
        )
        return [
            (
                row.channel,
                SeenEvent(
                    _channel_event(row),
                    row.escrow,
                    row.block_number,
                    row.transaction_hash,
                    row.final,
                ),
            )
            for row in rows
        ]


def _fold(events: Iterable[SeenEvent]) -> Records:
    """Fold once: the final events come first."""
    events = list(events)
    try:
        final = fold(seen.event for seen in events if seen.final)
        head = fold((seen.event for seen in events if not seen.final), final)
    except ImpossibleEvent as error:
        raise IncompleteHistory(str(error)) from None
    return Records(head, final)


def _row(log: Log) -> _Row:
    try:
        event: EscrowEvent = decode_event(log)
    except EthereumError as error:
        raise MalformedAnswer(f"a log that no escrow emits: {error}") from None
    channel = log.topics[1] if log.topics[0] in CHANNEL_TOPICS else None
    return _Row(log, channel, type(event).__name__)


def _channel_event(row: _EventRow) -> ChannelEvent:
    event: Any = decode_event(row)
    checked: ChannelEvent = event
    return checked


async def _unwind(connection: AsyncConnection[Any], to: int) -> set[bytes]:
    await connection.execute("delete from chain_block where number > %s", [to])
    await connection.execute(
        "update chain_address set behind = greatest(since, %(next)s) where behind > %(next)s",
        {"next": to + 1},
    )
    cursor = await connection.execute(
        "delete from chain_event where block_number > %s returning channel", [to]
    )
    return {channel for (channel,) in await cursor.fetchall() if channel is not None}


async def _insert_blocks(connection: AsyncConnection[Any], step: Advance) -> set[bytes]:
    """Insert blocks and set what is final, in one round trip: all that most blocks need.

    Returns the channels of events that became final. Raises MovedError when the newest block is not
    the one that the step was made for.
    """
    blocks = step.blocks
    cursor = await connection.execute(
        "with new as (insert into chain_block (number, hash, parent_hash, timestamp, base_fee)"
        " select * from unnest("
        "%(numbers)s::bigint[], %(hashes)s::bytea[], %(parents)s::bytea[], %(times)s::bigint[],"
        " %(fees)s::bigint[])),"
        " old as (select final from chain_state),"
        " now as (update chain_state set final = %(final)s where final <> %(final)s)"
        " select (select hash from chain_block order by number desc limit 1),"  # before the insert
        " array(select distinct channel from chain_event, old"
        " where block_number > old.final and block_number <= %(final)s and channel is not null)",
        {
            "numbers": [block.number for block in blocks],
            "hashes": [block.hash for block in blocks],
            "parents": [block.parent_hash for block in blocks],
            "times": [block.timestamp for block in blocks],
            "fees": [block.base_fee for block in blocks],
            "final": step.final,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    newest, channels = row
    if newest != step.onto:
        raise MovedError
    return set(channels)


async def _insert_events(connection: AsyncConnection[Any], rows: Sequence[_Row]) -> set[bytes]:
    """Insert what is not there yet: fetching a range again is harmless."""
    if not rows:
        return set()
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "insert into chain_event (block_hash, log_index, block_number, transaction_hash,"
            " escrow, channel, kind, topics, data)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
            [
                (
                    row.log.block_hash,
                    row.log.log_index,
                    row.log.block_number,
                    row.log.transaction_hash,
                    row.log.address,
                    row.channel,
                    row.kind,
                    list(row.log.topics),
                    row.log.data,
                )
                for row in rows
            ],
        )
    return {row.channel for row in rows if row.channel is not None}


async def _set_addresses(
    connection: AsyncConnection[Any], addresses: Sequence[FollowedAddress]
) -> None:
    for address in addresses:
        await connection.execute(
            "insert into chain_address (address, since, behind) values (%s, %s, %s)"
            " on conflict (address) do update set behind = excluded.behind"
            " where chain_address.since = excluded.since",  # else `watch` was called meanwhile
            [address.address, address.since, address.behind],
        )
