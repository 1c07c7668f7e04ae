"""The wallet that a database belongs to: set by the first signer, then unchangeable."""

from __future__ import annotations

import msgspec

from customerd.store.events import Change, Store


class WalletMismatch(Exception):
    """The database belongs to another wallet."""


class Wallet(msgspec.Struct, frozen=True):
    """One row of the table `wallet`."""

    identity: bytes | None
    account: bytes | None


async def read_wallet(store: Store) -> Wallet:
    """Return what this database was bound to so far."""
    row = await store.database.fetch_one("select identity, account from wallet", row=Wallet)
    assert row is not None, "the first migration inserts the row"
    return row


async def bind_wallet(store: Store, *, identity: bytes, account: bytes) -> None:
    """Bind the database to a signer; raises WalletMismatch when it belongs to another."""
    await _bind(store, {"identity": identity, "account": account})


async def _bind(store: Store, values: dict[str, bytes]) -> None:
    wallet = await read_wallet(store)
    if all(getattr(wallet, name) == value for name, value in values.items()):
        return

    async def body(change: Change) -> None:
        settings = ", ".join(f"{name} = %({name})s" for name in values)
        conditions = " and ".join(f"({name} is null or {name} = %({name})s)" for name in values)
        statement = f"update wallet set {settings} where {conditions}"  # noqa: S608 - own names
        if not await change.execute(statement, dict(values)):
            raise WalletMismatch

    await store.change(body)
