"""The connection is lost inside a COMMIT: of every transaction, on either side of it."""

from __future__ import annotations

import pytest

from tests.flow.world import ETHER_UNITS, World
from tests.postgres.network import ProxiedNetwork
from tests.postgres.payments import insisting, mined
from tests.postgres.proxy import Cut

# Of each program the tables whose writes decide about money; each is written by some transaction.
DECIDING = {
    "customerd": {"operation", "channel", "attempt", "state", "chain_tx", "chain_block", "event"},
    "coffee": {"session", "channel", "payment", "lock", "verdict", "chain_block"},
}


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name.lower())
@pytest.mark.parametrize("program", ["customerd", "coffee"])
def test_cut_at_every_commit(world: World, network: ProxiedNetwork, program: str, cut: Cut) -> None:
    """A channel's whole life with each commit cut: it resolves by itself, all is paid once."""
    # A merchant's answer that was lost is asked for again: the next one must come through.
    relentless = cut is Cut.AFTER and program == "customerd"
    label = f"{program}-{cut.name}"
    merchant = network.merchants["coffee"].address
    with network.proxies[program].cutting(cut, relentless=relentless) as cut_off:
        first = insisting(world, "establish", merchant=merchant, deposit="1 ETH", label=label)
        assert mined(world, first)["status"] == "done"
        for amount in (1000, 2000):
            done = mined(world, insisting(world, "pay", label=label, amount=amount))
            assert done["status"] == "done", done
        closing = insisting(world, "close", label=label)
        assert mined(world, closing)["status"] == "done"
    network.wait_mode("ready")
    assert world.balances(label) == (ETHER_UNITS - 3000, 3000)
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == (ETHER_UNITS - 3000, 3000)
    written = frozenset[str]().union(*cut_off)
    assert DECIDING[program] <= written, sorted(DECIDING[program] - written)
    assert network.daemon.running
    assert network.merchants["coffee"].service.running
    assert world.rpc("getinfo")["operations"] == 0
