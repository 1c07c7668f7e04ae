"""Statements that read the rows of a backup and write them back, flagged."""

from __future__ import annotations

from typing import Any, Final

from psycopg import AsyncConnection

from customerd.store.events import Change

Rows = list[list[Any]]

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "escrow": (
        "escrow",
        "chain_id",
        "merchant",
        "token",
        "symbol",
        "decimals",
        "unit",
        "delay",
        "g1_half",
        "escrow_key",
    ),
    "channel": (
        "channel",
        "label",
        "escrow",
        "host",
        "port",
        "salt",
        "customer_deposit",
        "merchant_deposit",
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
        "created",
    ),
    "state": (
        "channel",
        "index",
        "attempt",
        "lock",
        "customer_balance",
        "merchant_balance",
        "signature",
        "guard",
        "permit",
    ),
    "operation": (
        "operation",
        "kind",
        "channel",
        "label",
        "amount",
        "note",
        "force",
        "parameters",
        "idempotency_key",
        "status",
        "step",
        "error_kind",
        "error_message",
        "held",
        "created",
        "updated",
    ),
    "attempt": (
        "operation",
        "channel",
        "index",
        "attempt",
        "session",
        "nonce",
        "proof",
        "live",
        "receipt",
        "service_note",
    ),
}
"""The tables of a backup in the order in which they are written, and their columns."""

_READ: Final = {
    "unit": "unit::text",
    "created": "extract(epoch from {table}.created)::float8",
    "updated": "extract(epoch from {table}.updated)::float8",
    # A proof is sent again only while its operation is unfinished.
    "proof": "case when operation.status in ('queued', 'running') then proof else '' end",
}
_WRITE: Final = {
    "unit": "%s::numeric",
    "created": "to_timestamp(%s)",
    "updated": "to_timestamp(%s)",
}
_FROM: Final = {
    "escrow": "escrow where %(channel)s::bytea is null"
    " or escrow in (select escrow from channel where channel = %(channel)s)",
    "channel": "channel where %(channel)s::bytea is null or channel = %(channel)s order by created",
    "state": "state where %(channel)s::bytea is null or channel = %(channel)s",
    "operation": "operation where not (kind = 'recover' and status in ('queued', 'running'))"
    " and (%(channel)s::bytea is null or channel = %(channel)s"
    " and (status in ('queued', 'running') or operation in ({newest}))) order by number",
    "attempt": "attempt join operation using (operation) where %(channel)s::bytea is null"
    " or attempt.channel = %(channel)s"
    " and (status in ('queued', 'running') or operation in ({newest}))",
}
_NEWEST: Final = (
    "select made.operation from attempt as made join channel as spent using (channel)"
    " where made.channel = %(channel)s and made.index >= spent.authorized - 1"
)


def _read(table: str) -> str:
    columns = ", ".join(
        _READ.get(name, "{table}." + name).format(table=table) for name in COLUMNS[table]
    )
    return f"select {columns} from {_FROM[table].format(newest=_NEWEST)}"


async def read_rows(connection: AsyncConnection[Any], channel: bytes | None) -> dict[str, Rows]:
    """Return the rows of one channel, or of all, by table; within one transaction."""
    found: dict[str, Rows] = {}
    for table in COLUMNS:
        cursor = await connection.execute(_read(table), {"channel": channel})
        found[table] = [list(row) for row in await cursor.fetchall()]
    return found


async def is_empty(change: Change) -> bool:
    """Whether the database has neither channels nor operations."""
    cursor = await change.connection.execute(
        "select not exists (select from channel) and not exists (select from operation)"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def write_rows(change: Change, table: str, rows: Rows) -> None:
    """Insert rows as they were; an escrow that is known already is left as it is."""
    names = COLUMNS[table]
    values = ", ".join(_WRITE.get(name, "%s") for name in names)
    columns = ", ".join(names)
    statement = f"insert into {table} ({columns}) values ({values})"
    if table == "escrow":
        statement += " on conflict do nothing"
    async with change.connection.cursor() as cursor:
        await cursor.executemany(statement, rows)


async def flag_all(change: Change) -> None:
    """Flag every channel as restored and hold every payment (rule suspect).

    A close by force that had not been decided yet asks the merchant now: it was wanted for a state
    that was known to be the newest, and that may be an old one by now.
    """
    await change.execute(
        """
        update operation set force = false, updated = now() from channel
        where channel.channel = operation.channel and kind = 'close' and force
          and operation.status in ('queued', 'running')
          and channel.status not in ('asked', 'decided', 'closed')
        """
    )
    await change.execute(
        """
        update channel set doubtful = true, restored = true, updated = now(),
            status = case when status in ('funding', 'idle', 'proved', 'revoking')
                then 'suspect' else status end
        where status <> 'closed'
        """
    )
    await change.execute(
        """
        update operation set held = true
        where kind in ('establish', 'pay', 'refund') and status in ('queued', 'running')
        """
    )
