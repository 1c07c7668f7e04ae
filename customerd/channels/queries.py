"""Reading and changing channels: every change locks the row and checks what it starts from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import args_row

from customerd.channels.record import Channel, Escrow, State, Status
from customerd.store.events import Change
from customerd.store.writes import Occurrences, Statement, Writes
from zkchannels.store.database import Database
from zkchannels.wire.signer import Authorization

S = TypeVar("S", bound=msgspec.Struct)

_CHANNEL = """
channel, label, escrow, host, port, salt, customer_deposit, merchant_deposit, status, index,
attempt, customer_balance, merchant_balance, token, authorized, closing, mutual_signature,
doubtful, restored, extract(epoch from created)::float8
"""
_STATE = (
    "channel, index, attempt, lock, customer_balance, merchant_balance, signature, guard, permit"
)


class StatusChanged(Exception):
    """The channel is not in the status that the change starts from; nothing was changed."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(f"the channel is {channel.status}")
        self.channel = channel


class NotInStatus(Exception):
    """What StatusChanged is before the channel was read: nothing was written."""


async def channels(database: Database) -> list[Channel]:
    """Return all channels, oldest first."""
    return await database.fetch(
        f"select {_CHANNEL} from channel order by created, label", row=Channel
    )


async def count(database: Database) -> int:
    """Return how many channels there are that have not ended."""
    statement = "select count(*) from channel where status <> 'closed'"
    return int(await database.fetch_one_value(statement))


async def channel_by_id(database: Database, channel: bytes) -> Channel | None:
    """Return one channel by its id."""
    return await database.fetch_one(
        f"select {_CHANNEL} from channel where channel = %(channel)s",
        {"channel": channel},
        row=Channel,
    )


async def channel_by_label(database: Database, label: str) -> Channel | None:
    """Return one channel by its label."""
    return await database.fetch_one(
        f"select {_CHANNEL} from channel where label = %(label)s", {"label": label}, row=Channel
    )


async def states(database: Database, channel: bytes) -> list[State]:
    """Return the states of a channel that ever had a closing authorization, newest first."""
    return await database.fetch(
        f"select {_STATE} from state where channel = %(channel)s order by index desc",
        {"channel": channel},
        row=State,
    )


async def state_at(database: Database, channel: bytes, index: int) -> State | None:
    """Return one authorized state of a channel."""
    return await database.fetch_one(
        f"select {_STATE} from state where channel = %(channel)s and index = %(index)s",
        {"channel": channel, "index": index},
        row=State,
    )


def insert_escrow(writes: Writes, escrow: Escrow) -> None:
    """Remember an escrow; the same address with other values violates a constraint of the chain."""
    statement = Statement(
        """
        insert into escrow values (%(escrow)s, %(chain_id)s, %(merchant)s, %(token)s, %(symbol)s,
            %(decimals)s, %(unit)s, %(delay)s, %(g1_half)s, %(escrow_key)s)
        on conflict (escrow) do nothing
        """,
        msgspec.structs.asdict(escrow),
    )
    writes.add(statement)


def insert_channel(
    writes: Writes,
    *,
    channel: bytes,
    label: str,
    escrow: bytes,
    host: str,
    port: int,
    salt: bytes,
    customer_deposit: int,
    merchant_deposit: int,
) -> None:
    """Add a new channel; its commit raises psycopg.errors.UniqueViolation for a taken label."""
    statement = Statement(
        """
        insert into channel (channel, label, escrow, host, port, salt, customer_deposit,
            merchant_deposit, status, customer_balance, merchant_balance)
        values (%(channel)s, %(label)s, %(escrow)s, %(host)s, %(port)s, %(salt)s,
            %(customer_deposit)s, %(merchant_deposit)s, 'new', %(customer_deposit)s,
            %(merchant_deposit)s)
        """,
        {
            "channel": channel,
            "label": label,
            "escrow": escrow,
            "host": host,
            "port": port,
            "salt": salt,
            "customer_deposit": customer_deposit,
            "merchant_deposit": merchant_deposit,
        },
    )
    writes.add(statement)


async def delete_new_channel(change: Change, channel: bytes) -> None:
    """Forget a channel whose establish was refused before it had a closing authorization."""
    await change.execute(
        "delete from channel where channel = %(channel)s and status = 'new'", {"channel": channel}
    )


async def lock_channel(
    connection: AsyncConnection[Any], channel: bytes, *, allowed: Collection[Status]
) -> Channel:
    """Lock the row and return it; raises StatusChanged unless its status is allowed."""
    cursor = connection.cursor(row_factory=args_row(Channel))
    await cursor.execute(
        f"select {_CHANNEL} from channel where channel = %(channel)s for update",
        {"channel": channel},
    )
    row = await cursor.fetchone()
    assert row is not None, "channels are deleted only while they are new"
    if row.state not in allowed:
        raise StatusChanged(row)
    return row


_COLUMNS = frozenset(
    {
        "label",
        "status",
        "index",
        "attempt",
        "customer_balance",
        "merchant_balance",
        "token",
        "authorized",
        "closing",
        "mutual_signature",
        "doubtful",
        "restored",
    }
)


_READ = frozenset({"was", "was_index", "was_attempt"})
_AS_READ = (
    " and status = %(was)s and index is not distinct from %(was_index)s"
    " and attempt = %(was_attempt)s"
)


async def update_channel(change: Change, row: Channel, **values: Any) -> None:
    """Write columns of a locked channel, and an event when its status changes."""
    await change.execute(*_update(row, values, condition=""))
    _status_event(change, row, row.state, values)


def move_channel(writes: Writes, row: Channel, *, was: Status, **values: Any) -> None:
    """Add to the writes: these columns, provided that the channel's status still is `was`.

    Nor may its state or attempt be others than in `row`. Otherwise the commit raises NotInStatus.
    """
    read = {"was": was.value, "was_index": row.index, "was_attempt": row.attempt}
    statement = _update(row, {**values, **read}, condition=_AS_READ)
    writes.add(statement, otherwise=NotInStatus)
    _status_event(writes, row, was, values)


def _update(row: Channel, values: dict[str, Any], *, condition: str) -> Statement:
    columns = [name for name in values if name in _COLUMNS]
    assert values.keys() - columns <= _READ
    settings = ", ".join(f"{name} = %({name})s" for name in columns)
    return Statement(
        f"update channel set {settings}, updated = now() where channel = %(channel)s{condition}",
        {**values, "channel": row.channel},
    )


def _status_event(
    occurrences: Occurrences, row: Channel, was: Status, values: dict[str, Any]
) -> None:
    """Record that the status changes, if it does."""
    status = values.get("status", was.value)
    if status != was.value:
        occurrences.event(
            "channel", "status", channel=row.channel, label=row.label, old=was.value, new=status
        )


async def adopt_authorization(change: Change, row: Channel, authorization: Authorization) -> None:
    """Keep a new closing authorization; the one before it is from now on not to be closed on."""
    for statement in _adoption(row, authorization):
        await change.execute(*statement)


def adopt_with(writes: Writes, row: Channel, authorization: Authorization) -> None:
    """Add to the writes what `adopt_authorization` does."""
    for statement in _adoption(row, authorization):
        writes.add(statement)


def _adoption(row: Channel, authorization: Authorization) -> tuple[Statement, Statement]:
    values = {**msgspec.structs.asdict(authorization), "channel": row.channel}
    return (
        Statement(
            """
            update state set signature = null, permit = null
            where channel = %(channel)s and index < %(index)s and signature is not null
            """,
            {"channel": row.channel, "index": authorization.index},
        ),
        Statement(
            """
            insert into state values (%(channel)s, %(index)s, %(attempt)s, %(lock)s,
                %(customer_balance)s, %(merchant_balance)s, %(signature)s, %(guard)s, %(permit)s)
            on conflict (channel, index) do update set signature = excluded.signature,
                guard = excluded.guard, permit = excluded.permit
            """,
            values,
        ),
    )
