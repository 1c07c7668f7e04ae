"""The merchant while its database is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.merchantd.support import MERCHANT_KEY_HEX, Customer, MerchantSite, refusal, until
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.postgres import Cluster
from zkchannels.wire import merchant as wire


@pytest.fixture
def site_on_own_cluster(
    anvil: Anvil, own_cluster: Cluster, tmp_path: Path
) -> Iterator[MerchantSite]:
    """A merchant whose database server may be stopped."""
    own_cluster.create_database("merchant")
    made = MerchantSite(tmp_path, anvil, own_cluster.dsn("merchant"))
    made.write_config()
    made.write_account(MERCHANT_KEY_HEX)
    made.init_here()
    yield made
    made.stop_all()


async def test_database_that_goes_away_stops_nothing(
    site_on_own_cluster: MerchantSite, own_cluster: Cluster
) -> None:
    """Without its database the merchant answers "later"; back again, everything goes on."""
    site = site_on_own_cluster
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        await customer.pay(peer, channel, 1)
        session = await customer.propose_pay(peer, 2)
        step = await customer.pay_step(peer, channel, 2, session)
        stale, signature = channel.state, await customer.authorization(peer, channel)
        own_cluster.stop()
        assert await refusal(peer.request(wire.PAY_PROVE, step.request)) == "later"
        own_cluster.start()
        await customer.prove(peer, step)
        await customer.revoke(peer, channel, step)
    assert customer.close(stale, signature)

    async def disputed() -> bool:
        return site.channel(channel.number).merchant_balance == 1_000

    await until(disputed)
    assert daemon.process.poll() is None
