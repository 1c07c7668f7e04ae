"""Merchants for tests: one that all share, and fresh ones for tests that kill or lie."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from tests.merchantd.service import Service
from tests.merchantd.support import MERCHANT_KEY_HEX, Customer, MerchantSite
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.postgres import Cluster

_NUMBERS = itertools.count(1)


@pytest.fixture
def site(anvil: Anvil, database_dsn: str, tmp_path: Path) -> Iterator[MerchantSite]:
    """A merchant of the test's own, initialised but not running."""
    made = MerchantSite(tmp_path, anvil, database_dsn)
    made.write_config()
    made.write_account(MERCHANT_KEY_HEX)
    made.init_here()
    yield made
    made.stop_all()


@pytest.fixture(scope="session")
def shared_site(
    postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MerchantSite]:
    """A running merchant that tests share; its chain only moves forward, in small steps."""
    name = f"merchant_{next(_NUMBERS)}"
    postgres_cluster.create_database(name)
    with Anvil() as chain:
        dsn = postgres_cluster.dsn(name)
        made = MerchantSite(tmp_path_factory.mktemp("merchant"), chain, dsn)
        made.write_config("[approver]\nautomatic_refunds = 1000\n")
        made.write_account(MERCHANT_KEY_HEX)
        made.init_here()
        made.start()
        yield made
        made.stop_all()
    postgres_cluster.drop_database(name)


@pytest.fixture
def customer(shared_site: MerchantSite) -> Customer:
    """A customer of the shared merchant."""
    return Customer(shared_site, DEV_KEYS[1])


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    """A running approval service."""
    served = Service()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    served.url = f"http://{host}:{port}/shop"
    yield served
    await runner.cleanup()
