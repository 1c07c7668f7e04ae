"""A backup's content: the rows of the daemon's tables that cannot be had from anywhere else.

The chain's blocks, events and transactions are not in it: they are read from the chain again. Of
operations that ended, the requests as they were sent are left out. No secret of the signer is in
the database, hence none here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from psycopg import AsyncConnection

from customerd.recovery import archive
from customerd.recovery.archive import BackupUnusable
from customerd.recovery.backup import queries
from customerd.recovery.backup.queries import COLUMNS, Rows
from customerd.store.events import Change, Store

FORMAT: Final = 1


class NotEmpty(Exception):
    """The database holds channels or operations: nothing is restored into it."""


class Document(msgspec.Struct, frozen=True):
    """The content of one file; rows by table, with the columns that they have."""

    format: int
    created: float
    chain_id: int | None
    since: dict[str, int]
    """From which block on the escrows (in hexadecimal) were followed."""
    columns: dict[str, list[str]]
    rows: dict[str, Rows]

    def channels(self) -> list[dict[str, Any]]:
        """Return the channels, each as a mapping."""
        names = self.columns["channel"]
        return [dict(zip(names, row, strict=True)) for row in self.rows["channel"]]

    def __repr__(self) -> str:
        return f"Document(created={self.created})"


async def collect(store: Store, channel: bytes | None = None) -> Document:
    """Read everything, or what there is about one channel, as of one moment."""

    async def read(connection: AsyncConnection[Any]) -> Document:
        rows = await queries.read_rows(connection, channel)
        cursor = await connection.execute("select chain_id from chain_state")
        chain = await cursor.fetchone()
        cursor = await connection.execute("select address, since from chain_address")
        since = {address.hex(): int(block) for address, block in await cursor.fetchall()}
        return Document(
            format=FORMAT,
            created=time.time(),
            chain_id=None if chain is None else int(chain[0]),
            since=since,
            columns={table: list(names) for table, names in COLUMNS.items()},
            rows=rows,
        )

    # The one writer's transactions run one after the other: nothing changes between two reads.
    return await store.database.run(read)


def encode(document: Document) -> bytes:
    """Return the content of a file."""
    return msgspec.msgpack.encode(document)


def decode(content: bytes) -> Document:
    """Return what a file holds; raises BackupUnusable."""
    try:
        document = msgspec.msgpack.decode(content, type=Document)
    except msgspec.MsgspecError as error:
        raise BackupUnusable(f"this backup cannot be read: {error}") from None
    if document.format != FORMAT:
        raise BackupUnusable(f"this backup has format {document.format}, this program {FORMAT}")
    shipped = {table: list(names) for table, names in COLUMNS.items()}
    if document.columns != shipped or document.rows.keys() != shipped.keys():
        raise BackupUnusable("this backup is of another version of customerd")
    return document


def read(path: Path, *, key: bytes, identity: bytes) -> list[Document]:
    """Read a file, or every backup in a directory; raises BackupUnusable, AnotherWallet."""
    paths = [path]
    if path.is_dir():
        paths = sorted(path.glob(f"*{archive.SUFFIX}"))
    if not paths:
        raise BackupUnusable(f"there is no backup in {path}")
    return [decode(archive.read(each, key=key, identity=identity)) for each in paths]


async def write(store: Store, documents: Iterable[Document]) -> None:
    """Write everything into an empty database, flagged; all or nothing.

    Raises NotEmpty, and BackupUnusable when the rows contradict each other.
    """

    async def body(change: Change) -> None:
        if not await queries.is_empty(change):
            raise NotEmpty
        for table in COLUMNS:
            for document in documents:
                await queries.write_rows(change, table, document.rows[table])
        await queries.flag_all(change)
        change.event("channel", "restored")

    documents = list(documents)
    try:
        await store.change(body)
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        reason = error.diag.message_primary or type(error).__name__
        raise BackupUnusable(f"the backup contradicts itself: {reason}") from None
