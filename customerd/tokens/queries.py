"""Reading and writing tokens, and what was spent with them."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from customerd.store.events import Change
from customerd.store.writes import Statement, Writes
from zkchannels.caveats import Spend
from zkchannels.store.database import Database


class TokenRow(msgspec.Struct, frozen=True):
    """One row of the table `token`; times are Unix seconds."""

    token: bytes
    note: str
    caveats: list[str]
    spends: bool
    created: float
    revoked: float | None


class SpentRow(msgspec.Struct, frozen=True):
    """What was spent on one limit, in the smallest units of its asset."""

    token: bytes
    account: bytes
    spent: int


class TokenRevoked(Exception):
    """The token ended before the operation was written; nothing was written."""


class LimitReached(Exception):
    """The payment is more than a spending limit leaves; nothing was written."""


async def tokens(database: Database) -> list[TokenRow]:
    """Return all tokens, oldest first."""
    return await database.fetch(
        """
        select token, note, caveats, spends, extract(epoch from created)::float8,
            extract(epoch from revoked)::float8
        from token order by created, token
        """,
        row=TokenRow,
    )


async def spent(database: Database) -> list[SpentRow]:
    """Return what was spent on every limit."""
    return await database.fetch("select token, account, spent from token_spend", row=_spent)


def _spent(token: bytes, account: bytes, spent: Decimal) -> SpentRow:
    return SpentRow(token, account, int(spent))


def insert_token(
    writes: Writes, *, token: bytes, note: str, caveats: list[str], spends: bool
) -> None:
    """Add a new token to the writes."""
    values = {"token": token, "note": note, "caveats": caveats, "spends": spends}
    statement = """
        insert into token (token, note, caveats, spends)
        values (%(token)s, %(note)s, %(caveats)s::text[], %(spends)s)
    """
    writes.add(Statement(statement, values))
    writes.event("log", "token_created", token=token.hex(), note=note, spends=spends)


def revoke(writes: Writes, token: bytes) -> None:
    """End a token."""
    statement = "update token set revoked = coalesce(revoked, now()) where token = %(token)s"
    writes.add(Statement(statement, {"token": token}))
    writes.event("log", "token_revoked", token=token.hex())


async def end_spending(change: Change) -> None:
    """End every token that may spend: what was spent with them is not known any more."""
    ended = await change.execute(
        "update token set revoked = now() where spends and revoked is null"
    )
    if ended:
        change.event("log", "tokens_revoked", count=ended, reason="the database went back in time")


def charge(
    writes: Writes, *, token: bytes, operation: bytes, amount: int, limits: list[Spend]
) -> None:
    """Take an amount, in the asset's smallest units, from every limit of a token.

    Their commit raises TokenRevoked or LimitReached and writes nothing. Each limit is one row that
    is locked, judged and changed by one statement, so that no two payments see the same rest.
    """
    living = "select token from token where token = %(token)s and revoked is null for share"
    writes.add(Statement(living, {"token": token}), otherwise=TokenRevoked)
    for limit in limits:
        taken = {"account": limit.account, "amount": amount}
        count = """
            insert into token_spend as held (token, account, spent)
            select %(token)s, %(account)s, %(amount)s::numeric
            where %(amount)s::numeric <= %(most)s::numeric
            on conflict (token, account) do update set spent = held.spent + excluded.spent
                where held.spent + excluded.spent <= %(most)s::numeric
        """
        limited = {"token": token, "most": limit.amount, **taken}
        writes.add(Statement(count, limited), otherwise=LimitReached)
        note = """
            insert into token_charge (operation, account, amount)
            values (%(operation)s, %(account)s, %(amount)s::numeric)
        """
        writes.add(Statement(note, {"operation": operation, **taken}))
