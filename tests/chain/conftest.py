"""A client, a database with the chain's tables, and an escrow on a chain of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.chain.support import Watch
from tests.contract.world import Escrow, World
from zkchannels.chain.client import ChainClient
from zkchannels.chain.store import COMPONENT, ChainStore
from zkchannels.devnet.anvil import Anvil
from zkchannels.store.database import Database
from zkchannels.store.migrate import migrate


@pytest.fixture
async def client(anvil: Anvil) -> AsyncIterator[ChainClient]:
    """A client of the test's anvil."""
    client = ChainClient([anvil.url])
    yield client
    await client.aclose()


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """A database with the tables of the component."""
    async with Database(database_dsn, application_name="test") as database:
        await migrate(database, [COMPONENT])
        yield database


@pytest.fixture
def store(database: Database) -> ChainStore:
    """The chain's tables."""
    return ChainStore(database)


@pytest.fixture
def world(anvil: Anvil) -> World:
    """An escrow and accounts on the test's anvil."""
    return World(Escrow.deploy(anvil))


@pytest.fixture
async def watch(client: ChainClient, store: ChainStore, world: World) -> Watch:
    """A follower of the world's escrow from its start, not yet running, that only pushes wake."""
    await store.watch(world.escrow.address, since=0)
    return Watch(client, store, world)
