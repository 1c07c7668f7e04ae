"""Several nodes, some of which misbehave: as long as one is honest, what it shows is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.chain.support import DEADLINE, KeyAccount, Watch, running
from tests.chainfaults.proxy import (
    HUGE,
    TRUNCATED,
    Ahead,
    AnotherBranch,
    Behind,
    DeadWebSocket,
    Fault,
    FaultProxy,
    Flapping,
    Refusing,
    Stalled,
    Status,
)
from tests.contract.world import World
from tests.fix_log import Log
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import ChainUnavailable, Reverted
from zkchannels.chain.lane import FeePolicy, Lane, TransactionStatus
from zkchannels.chain.opinions import FORK
from zkchannels.chain.store import ChainStore
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelStatus
from zkchannels.store.database import Database

GWEI = 10**9


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[FaultProxy]:
    """A node that may misbehave, on the same chain as the test's anvil."""
    with FaultProxy(anvil) as proxy:
        yield proxy


@pytest.fixture
async def both(proxy: FaultProxy, anvil: Anvil) -> AsyncIterator[ChainClient]:
    """A client that knows the misbehaving node first and an honest one second."""
    async with contextlib.aclosing(ChainClient([proxy.url, anvil.url], timeout=5.0)) as client:
        yield client


@pytest.fixture
async def watch(both: ChainClient, store: ChainStore, world: World) -> Watch:
    """A follower by that client, not yet running."""
    await store.watch(world.escrow.address, since=0)
    return Watch(both, store, world, poll=0.2)


FAULTS: dict[str, Callable[[int], Fault]] = {
    "429": lambda _: Status(429),
    "500": lambda _: Status(500),
    "-32000": lambda _: Refusing(-32000, "header not found"),
    "-32005": lambda _: Refusing(-32005, "daily request count exceeded"),
    "truncated": lambda _: TRUNCATED,
    "huge": lambda _: HUGE,
    "stalled": lambda _: Stalled(),
    "hours behind": Behind,
    "newer head": lambda _: Ahead(1000),
    "flapping head": lambda _: Flapping(),
    "dead websocket": lambda _: DeadWebSocket(),
    "another branch": AnotherBranch,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_one_honest_node_is_enough(
    watch: Watch, world: World, proxy: FaultProxy, log: Log, fault: Callable[[int], Fault]
) -> None:
    """Whatever the first node does, an expire that the second one shows is seen, and nothing else.

    Afterwards the first one is trusted again.
    """
    log.expect_error("nodes_disagree")
    channel = world.open()
    world.chain.mine(2 * FORK)
    async with running(watch.follower.run()):
        await watch.status(channel, ChannelStatus.OPEN)
        proxy.fault = fault(world.chain.head() - FORK)
        world.do(world.merchant, calls.expire(channel))
        world.chain.mine(FORK + 2)
        await watch.status(channel, ChannelStatus.EXPIRING)
        proxy.fault = Fault()
        world.do(world.customer, world.close_call(channel, b"\5" * 32))
        world.chain.mine(3)
        records = await watch.status(channel, ChannelStatus.CLOSING, final=True)
        assert records.head == world.record(channel)
        await watch.following(True)


async def test_contradicting_nodes_are_not_followed(
    watch: Watch, world: World, proxy: FaultProxy, log: Log
) -> None:
    """Two nodes on two chains: neither is followed, both are looked at, and nothing is lost.

    Nor does anything become final meanwhile.
    """
    log.expect_error("nodes_disagree")
    log.expect_error("final_blocks_reorganised")
    channel = world.open()
    world.chain.mine(2 * FORK)
    async with running(watch.follower.run()):
        await watch.following(True)
        fork = world.chain.head()
        proxy.fault = AnotherBranch(fork)
        world.do(world.merchant, calls.expire(channel))
        world.chain.mine(2 * FORK)
        await watch.following(False)
        assert proxy.url in watch.follower.disagreement
        for _ in range(2):  # the sides take turns
            await watch.status(channel, ChannelStatus.EXPIRING)
            await watch.status(channel, ChannelStatus.OPEN)
        assert not watch.follower.following
        assert watch.follower.final <= fork
        proxy.fault = Fault()
        await watch.following(True)
        assert watch.follower.disagreement == ""
        assert watch.follower.final > fork
        await watch.status(channel, ChannelStatus.EXPIRING)
    assert len(log.events("nodes_disagree")) == 1


async def test_a_disagreement_outlives_one_sides_silence(
    watch: Watch, world: World, proxy: FaultProxy, anvil: Anvil, log: Log
) -> None:
    """That the honest node falls silent does not make the other one right."""
    log.expect_error("nodes_disagree")
    world.open()
    anvil.mine(2 * FORK)
    # Both sides grow from what was read: who begins amid the dispute keeps to what it began with.
    await watch.follower.catch_up()
    with FaultProxy(anvil) as honest:
        async with contextlib.aclosing(ChainClient([proxy.url, honest.url], timeout=5.0)) as client:
            alone = Watch(client, watch.store, world, poll=0.2)
            proxy.fault = AnotherBranch(anvil.head())
            anvil.mine(2 * FORK)
            async with running(alone.follower.run()):
                await alone.until(lambda: _soon(alone.follower.disagreement))
                honest.fault = Status(500)
                anvil.mine(3)
                await alone.head()
                assert not alone.follower.following


async def _soon(value: str) -> str:
    return value


async def test_the_majority_is_followed(
    proxy: FaultProxy, anvil: Anvil, store: ChainStore, world: World, log: Log
) -> None:
    """Two honest nodes outvote a third: they are read at every look, and the third is named."""
    log.expect_error("nodes_disagree")
    await store.watch(world.escrow.address, since=0)
    channel = world.open()
    anvil.mine(2 * FORK)
    proxy.fault = AnotherBranch(anvil.head())
    world.do(world.merchant, calls.expire(channel))
    anvil.mine(2 * FORK)
    async with contextlib.aclosing(ChainClient([proxy.url, anvil.url, anvil.url])) as client:
        watch = Watch(client, store, world, poll=0.001)
        for _ in range(5):
            await watch.follower.catch_up()
            assert (await watch.record(channel)).head.status is ChannelStatus.EXPIRING
            assert watch.follower.following
            assert watch.follower.disagreement
    assert log.events("nodes_disagree")


async def test_a_node_that_reads_the_chain_again_takes_nothing_back(
    store: ChainStore, world: World, proxy: FaultProxy
) -> None:
    """A node at block 2 of a long chain is behind: it is no sign that the rest never was."""
    async with contextlib.aclosing(ChainClient([proxy.url])) as client:
        await store.watch(world.escrow.address, since=0)
        world.chain.mine(6)
        watch = Watch(client, store, world)
        channel = world.open()
        world.chain.mine(3)
        await watch.follower.catch_up()
        proxy.fault = Behind(2)
        with pytest.raises(ChainUnavailable, match="behind everything"):
            await watch.follower.catch_up()
        assert (await watch.record(channel)).head.status is ChannelStatus.OPEN


async def test_a_transaction_goes_to_every_node(
    both: ChainClient, proxy: FaultProxy, anvil: Anvil, database: Database
) -> None:
    """A node that takes transactions and keeps them for itself keeps none of ours out."""
    anvil.mine(3)
    proxy.fault = Behind(anvil.head())
    lane = Lane(
        both,
        database,
        KeyAccount(DEV_KEYS[5]),
        name="customer",
        policy=FeePolicy(tip_floor=GWEI, max_fee_cap=500 * GWEI),
    )
    await lane.submit("gift", to=bytes([0x44]) * 20, value=7, data=b"", gas=21_000)
    anvil.mine()
    assert anvil.balance(bytes([0x44]) * 20) == 7
    proxy.fault = Fault()
    anvil.mine(4)
    head = await both.block("latest")
    assert head is not None
    await lane.on_head(head, head.number - 2)
    assert await lane.state("gift") is TransactionStatus.FINAL


async def test_the_chain_the_database_belongs_to(anvil: Anvil) -> None:
    """A first node on another chain is passed over once it is known which one is ours."""
    with Anvil() as other:
        other.call("anvil_setChainId", 1)
        async with contextlib.aclosing(ChainClient([other.url, anvil.url])) as client:
            assert await client.chain_id() == 1
            client.expect_chain(anvil.chain_id)
            head = await client.block("latest")
            assert await client.chain_id() == anvil.chain_id
            assert head == await client.block(anvil.head())
            assert client.endpoint == anvil.url


async def test_a_websocket_that_does_not_shake_hands(anvil: Anvil, proxy: FaultProxy) -> None:
    """A WebSocket that is never opened costs its timeout; the node is looked at all the same."""
    proxy.fault = Stalled()
    async with (
        asyncio.timeout(DEADLINE),
        contextlib.aclosing(ChainClient([f"{anvil.url} {_ws(proxy)}"], timeout=0.3)) as client,
        contextlib.aclosing(client.new_heads()) as heads,
    ):
        with pytest.raises(ChainUnavailable, match="no answer in time"):
            await anext(heads)


def _ws(proxy: FaultProxy) -> str:
    return "ws" + proxy.url.removeprefix("http")


class RevertsAll(Fault):
    """Every call and estimate reverts, whatever it is."""

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Say so."""
        if method in ("eth_call", "eth_estimateGas"):
            return {"error": {"code": 3, "message": "execution reverted"}}
        return answer


async def test_a_revert_is_believed_when_all_say_it(
    both: ChainClient, proxy: FaultProxy, world: World
) -> None:
    """One node that reverts whatever it is asked keeps nothing out; a true revert is told."""
    channel = world.open()
    proxy.fault = RevertsAll()
    merchant, escrow = world.merchant.address, world.escrow.address
    assert await both.estimate_gas(merchant, escrow, 0, calls.expire(channel)) > 21_000
    with pytest.raises(Reverted, match="reverted"):
        await both.estimate_gas(merchant, escrow, 0, calls.claim(channel))
