"""The one row about the escrow that a database serves, written step by step by `merchantd init`."""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from merchantd.errors import KeyMismatch, TermsMismatch
from merchantd.terms import INSTALLATION_LENGTH, Terms

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from zkchannels.store.database import Database


class EscrowRow(Struct, frozen=True):
    """What is recorded; `key_digest` and `address` are None until `init` has come so far."""

    installation: bytes
    key_digest: bytes | None
    chain_id: int
    merchant: bytes
    token: bytes
    symbol: str
    decimals: int
    unit: Decimal
    delay: int
    address: bytes | None

    @property
    def terms(self) -> Terms:
        """The terms of the escrow."""
        return Terms(
            chain_id=self.chain_id,
            merchant=self.merchant,
            token=self.token,
            symbol=self.symbol,
            decimals=self.decimals,
            unit=int(self.unit),
            delay=self.delay,
        )


async def read_escrow(database: Database) -> EscrowRow | None:
    """Return the row, None before the first `init`."""
    return await database.fetch_one(
        """
        SELECT installation, key_digest, chain_id, merchant, token, symbol, decimals, unit, delay,
               address
        FROM escrow
        """,
        (),
        row=EscrowRow,
    )


async def prepare_escrow(database: Database, terms: Terms) -> EscrowRow:
    """Write the terms, or find the same ones; raises TermsMismatch."""
    await _execute(
        database,
        """
        INSERT INTO escrow (installation, chain_id, merchant, token, symbol, decimals, unit, delay)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        """,
        (
            secrets.token_bytes(INSTALLATION_LENGTH),
            terms.chain_id,
            terms.merchant,
            terms.token,
            terms.symbol,
            terms.decimals,
            terms.unit,
            terms.delay,
        ),
    )
    row = await read_escrow(database)
    assert row is not None
    if row.terms != terms:
        raise TermsMismatch(
            f"this database serves an escrow on other terms: {_difference(row, terms)}"
        )
    return row


async def record_key(database: Database, digest: bytes) -> None:
    """Tie the database to its key for ever; raises KeyMismatch if it has another."""
    await _execute(
        database, "UPDATE escrow SET key_digest = %s WHERE key_digest IS NULL", (digest,)
    )
    row = await read_escrow(database)
    if row is None or row.key_digest != digest:
        raise KeyMismatch("this database belongs to another key: one key serves exactly one escrow")


async def record_address(database: Database, address: bytes) -> None:
    """Write where the escrow was deployed."""
    await _execute(database, "UPDATE escrow SET address = %s", (address,))


def _difference(row: EscrowRow, terms: Terms) -> str:
    recorded = row.terms
    names = [name for name in Terms.__slots__ if getattr(recorded, name) != getattr(terms, name)]
    return ", ".join(name.replace("_", " ") for name in names)


async def _execute(database: Database, statement: Any, parameters: tuple[object, ...]) -> None:
    async def write(connection: AsyncConnection[Any]) -> None:
        await connection.execute(statement, parameters)

    await database.run(write)
