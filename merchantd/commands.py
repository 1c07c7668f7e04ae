"""The commands of an operator on a running or stopped merchant; they talk to its database only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from merchantd.config import PASSWORD
from merchantd.errors import NotExpirable, NotInitialised, UnknownChannel
from merchantd.output import Row
from merchantd.store.escrow import read_escrow
from merchantd.store.records import DECIDED_CHANNEL, ChannelRow, Records
from merchantd.store.schema import migrate_all
from zkchannels.chain.store import ChainStore
from zkchannels.escrow.ethereum import checksum
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.service.secretfile import credential
from zkchannels.store.database import Database

if TYPE_CHECKING:
    from merchantd.config import Settings
    from merchantd.terms import Terms


@dataclass(frozen=True, slots=True)
class Office:
    """What a command needs: the records, and how to write the escrow's amounts."""

    records: Records
    chain: ChainStore
    terms: Terms


@asynccontextmanager
async def open_office(settings: Settings) -> AsyncIterator[Office]:
    """Connect to the database for one command; raises NotInitialised or DatabaseUnavailable."""
    async with Database(
        settings.database, application_name="merchantd command", password=credential(PASSWORD)
    ) as database:
        await migrate_all(database)
        row = await read_escrow(database)
        if row is None or row.address is None:
            raise NotInitialised("run `merchantd init` first")
        yield Office(Records(database), ChainStore(database), row.terms)


LIST_COLUMNS = {
    "channel": "channel",
    "status": "status",
    "customer deposit": "customer_deposit_text",
    "merchant deposit": "merchant_deposit_text",
    "established": "established",
}
"""Heading and field of what a list shows."""


async def list_channels(office: Office) -> list[Row]:
    """Return one row per channel, oldest first."""
    rows = await office.records.channel_rows()
    found = await office.chain.records([row.channel for row in rows])
    return [_summary(office, row, found[row.channel].head) for row in rows]


async def show_channel(office: Office, prefix: str) -> Row:
    """Return everything about one channel; raises UnknownChannel."""
    row = await _find(office, prefix)
    head = (await office.chain.record(row.channel)).head
    closing = head.status is ChannelStatus.CLOSING
    return {
        **_summary(office, row, head),
        "customer": checksum(row.customer),
        "note": row.note,
        "activated": _time(row.activated),
        "expire_requested": row.expire_requested,
        "deadline": _chain_time(head.deadline),
        **_amount(office, "closing_customer_balance", head.customer_balance if closing else None),
        **_amount(office, "closing_merchant_balance", head.merchant_balance if closing else None),
        **_amount(office, "final_customer_balance", row.final_customer_balance),
        **_amount(office, "final_merchant_balance", row.final_merchant_balance),
        "ended": _time(row.ended),
    }


async def expire_channels(
    office: Office, prefixes: list[str] | None, *, timeout: float | None
) -> list[Row]:
    """Ask the daemon to expire channels (None: all that are open) and wait for the chain.

    With `timeout` None the requests are only written. Raises UnknownChannel or NotExpirable before
    anything is requested, TimeoutError when the chain does not show it in time; the requests stay.
    """
    channels = await _open_channels(office, prefixes)
    for channel in channels:
        await office.records.request_expiry(channel)
    if timeout is not None:
        async with asyncio.timeout(timeout):
            await _wait_until_expiring(office, set(channels))
    rows = await list_channels(office)
    wanted = {_name(channel) for channel in channels}
    return [row for row in rows if row["channel"] in wanted]


async def _open_channels(office: Office, prefixes: list[str] | None) -> list[bytes]:
    if prefixes is None:
        rows = await office.records.channel_rows()
        found = await office.chain.records([row.channel for row in rows])
        return [
            channel for channel, seen in found.items() if seen.head.status is ChannelStatus.OPEN
        ]
    channels = []
    for prefix in prefixes:
        row = await _find(office, prefix)
        head = (await office.chain.record(row.channel)).head
        if head.status is not ChannelStatus.OPEN:
            raise NotExpirable(f"{_name(row.channel)} is {_status(row, head)}, not open")
        channels.append(row.channel)
    return channels


async def _wait_until_expiring(office: Office, waiting: set[bytes]) -> None:
    async with await office.records.database.listen(DECIDED_CHANNEL) as decided:
        while True:
            found = await office.chain.records(waiting)
            waiting = {
                channel for channel, seen in found.items() if seen.head.status is ChannelStatus.OPEN
            }
            if not waiting:
                return
            await anext(decided)


async def _find(office: Office, prefix: str) -> ChannelRow:
    digits = prefix.lower().removeprefix("0x")
    rows = await office.records.channel_rows(digits) if digits else []
    if len(rows) != 1:
        what = "no channel has" if not rows else f"{len(rows)} channels have"
        raise UnknownChannel(f"{what} an id that begins with {prefix}")
    return rows[0]


def _summary(office: Office, row: ChannelRow, head: ChannelRecord) -> Row:
    return {
        "channel": _name(row.channel),
        "status": _status(row, head),
        **_amount(office, "customer_deposit", row.customer_deposit),
        **_amount(office, "merchant_deposit", row.merchant_deposit),
        "established": _time(row.established),
    }


def _status(row: ChannelRow, head: ChannelRecord) -> str:
    if row.outcome is not None:
        return row.outcome
    if head.status is ChannelStatus.ABSENT:
        return "established"
    if head.status is ChannelStatus.OPEN and row.activated is not None:
        return "active"
    return head.status.name.lower().replace("_", " ")


def _name(channel: bytes) -> str:
    return "0x" + channel.hex()


def _amount(office: Office, name: str, units: int | None) -> Row:
    text = None if units is None else office.terms.asset.format(units)
    return {name: units, f"{name}_text": text}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _chain_time(seconds: int) -> str | None:
    if not seconds:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
