"""The schema of the merchant's database: the chain's tables and the merchant's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkchannels.chain.store import COMPONENT as CHAIN
from zkchannels.store.migrate import Component, migrate

if TYPE_CHECKING:
    from zkchannels.store.database import Database

MERCHANT = Component("merchantd", "merchantd.store")


async def migrate_all(database: Database) -> list[str]:
    """Bring all tables to this program's version; the merchant's refer to the chain's."""
    return await migrate(database, (CHAIN, MERCHANT))
