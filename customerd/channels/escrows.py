"""The escrows that the daemon has met."""

from __future__ import annotations

from typing import Any

from customerd.channels.record import Escrow
from zkchannels.store.database import Database

_ESCROW = (
    "escrow, chain_id, merchant, token, symbol, decimals, unit::text::numeric, delay, "
    "g1_half, escrow_key"
)


def _escrow(*values: Any) -> Escrow:
    row = list(values)
    row[6] = int(row[6])
    return Escrow(*row)


async def escrows(database: Database) -> dict[bytes, Escrow]:
    """Return all known escrows by address."""
    rows = await database.fetch(f"select {_ESCROW} from escrow", row=_escrow)  # noqa: S608
    return {row.escrow: row for row in rows}
