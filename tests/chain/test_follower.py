"""The follower against a real node: whatever the chain does, the store ends up equal to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chain.support import DEADLINE, KeyAccount, Watch, running
from tests.contract.world import Escrow, World
from tests.fix_log import Log
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import AnotherChain, IncompleteHistory
from zkchannels.chain.lane import FeePolicy, Lane, TransactionStatus
from zkchannels.chain.store import COMPONENT, ChainStore
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.embedded import Embedded
from zkchannels.devnet.postgres import Cluster
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import keccak256
from zkchannels.escrow.events import Closing, Expiring, Opened
from zkchannels.escrow.record import ChannelStatus
from zkchannels.store.database import Database, DatabaseUnavailable
from zkchannels.store.migrate import migrate

SECRET = keccak256(b"secret")


async def test_stores_what_the_contract_says(watch: Watch, world: World) -> None:
    """A channel's record equals the contract's view at every step, told after the commit."""
    async with running(watch.follower.run()):
        await watch.head()
        channel = world.open()
        opened = await watch.status(channel, ChannelStatus.OPEN)
        assert opened.head == world.record(channel)
        assert opened.final.status is ChannelStatus.ABSENT
        assert watch.told == [frozenset({channel.to_bytes(32)})]
        world.do(world.merchant, calls.expire(channel))
        assert (await watch.status(channel, ChannelStatus.EXPIRING)).head == world.record(channel)
        world.do(world.customer, world.close_call(channel, SECRET))
        assert (await watch.status(channel, ChannelStatus.CLOSING)).head == world.record(channel)
        world.pass_deadline(channel)
        world.do(world.stranger, calls.claim(channel))
        assert (await watch.status(channel, ChannelStatus.CLOSED)).head == world.record(channel)
    history = await watch.store.history(channel.to_bytes(32))
    assert [type(seen.event).__name__ for seen in history] == [
        "Opened",
        "Expiring",
        "Closing",
        "Settled",
    ]
    assert {seen.escrow for seen in history} == {world.escrow.address}


async def test_tells_of_finality(watch: Watch, world: World) -> None:
    """A channel is told again, without any new event, when its last event becomes final."""
    async with running(watch.follower.run()):
        channel = world.open()
        await watch.status(channel, ChannelStatus.OPEN)
        watch.told.clear()
        world.chain.mine(2)
        records = await watch.status(channel, ChannelStatus.OPEN, final=True)
        assert records.final == records.head
        await watch.head()
        assert watch.told == [frozenset({channel.to_bytes(32)})]
        assert watch.follower.final == world.chain.head() - 2


async def test_finality_by_depth(client: ChainClient, store: ChainStore, world: World) -> None:
    """With a depth of n, a block is final when n - 1 blocks are above it."""
    watch = Watch(client, store, world, confirmations=3)
    async with running(watch.follower.run()):
        channel = world.open()
        await watch.status(channel, ChannelStatus.OPEN)
        world.chain.mine(1)
        await watch.head()
        assert (await watch.record(channel)).final.status is ChannelStatus.ABSENT
        world.chain.mine(1)
        await watch.status(channel, ChannelStatus.OPEN, final=True)


async def test_a_record_is_read_once_between_two_changes(watch: Watch, world: World) -> None:
    """The writer remembers it until the chain says more of it; who does not write reads it."""
    first, second = world.open(), world.open()
    await watch.follower.catch_up()
    before = await watch.record(first)
    assert before.head.status is ChannelStatus.OPEN
    await watch.store._database.run(
        lambda connection: connection.execute("delete from chain_event")
    )
    assert await watch.record(first) == before
    other = await ChainStore(watch.store._database).record(first.to_bytes(32))
    assert other.head.status is ChannelStatus.ABSENT
    world.do(world.merchant, calls.expire(second))
    await watch.follower.catch_up()
    assert await watch.record(first) == before
    with pytest.raises(IncompleteHistory):
        await watch.record(second)


async def test_reorganisation_takes_events_back(watch: Watch, world: World, anvil: Anvil) -> None:
    """Events of dropped blocks vanish and their channels are told; a replay is stored again."""
    async with running(watch.follower.run()):
        channel = world.open()
        world.chain.mine(3)
        await watch.status(channel, ChannelStatus.OPEN, final=True)
        world.do(world.merchant, calls.expire(channel))
        await watch.status(channel, ChannelStatus.EXPIRING)
        watch.told.clear()
        anvil.reorg(1)
        await watch.status(channel, ChannelStatus.OPEN)
        assert frozenset({channel.to_bytes(32)}) in watch.told
        world.do(world.merchant, calls.expire(channel))
        await watch.status(channel, ChannelStatus.EXPIRING)
        assert len(await watch.store.history(channel.to_bytes(32))) == 2


async def test_reorganisation_between_two_looks(watch: Watch, world: World, anvil: Anvil) -> None:
    """A branch that was replaced while nobody looked leaves nothing behind."""
    channel = world.open()
    world.chain.mine(3)
    await watch.follower.catch_up()
    world.do(world.merchant, calls.expire(channel))
    world.chain.mine(1)
    await watch.follower.catch_up()
    anvil.reorg(2)
    world.do(world.customer, world.close_call(channel, SECRET))
    world.chain.mine(1)
    await watch.follower.catch_up()
    records = await watch.record(channel)
    assert records.head == world.record(channel)
    assert records.head.status is ChannelStatus.CLOSING
    history = await watch.store.history(channel.to_bytes(32))
    assert [type(seen.event) for seen in history] == [Opened, Closing]


async def test_a_step_back_waits_for_a_conflict(watch: Watch, world: World, anvil: Anvil) -> None:
    """A head that goes back to a block we know says nothing; the first new block does."""
    channel = world.open()
    world.chain.mine(3)
    world.do(world.merchant, calls.expire(channel))
    await watch.follower.catch_up()
    anvil.rollback(1)
    await watch.follower.catch_up()
    assert (await watch.record(channel)).head.status is ChannelStatus.EXPIRING
    world.chain.mine(1)
    await watch.follower.catch_up()
    assert (await watch.record(channel)).head.status is ChannelStatus.OPEN


async def test_revert_to_a_snapshot(watch: Watch, world: World) -> None:
    """A chain taken back to a snapshot, deeper than finality, is followed from there, loudly."""
    async with running(watch.follower.run()):
        channel = world.open()
        snapshot = world.chain.snapshot()
        world.do(world.merchant, calls.expire(channel))
        world.do(world.customer, world.close_call(channel, SECRET))
        await watch.status(channel, ChannelStatus.CLOSING)
        world.chain.revert(snapshot)
        world.chain.mine(1)
        await watch.status(channel, ChannelStatus.OPEN)


async def test_broken_finality_is_an_error(
    watch: Watch, world: World, anvil: Anvil, log: Log
) -> None:
    """Final blocks that are replaced all the same are followed, and logged as an error."""
    log.expect_error("final_blocks_reorganised")
    channel = world.open()
    await watch.follower.catch_up()
    world.do(world.merchant, calls.expire(channel))
    world.chain.mine(6)
    await watch.follower.catch_up()
    assert (await watch.record(channel)).final.status is ChannelStatus.EXPIRING
    anvil.reorg(7)
    watch.told.clear()
    await watch.follower.catch_up()
    records = await watch.record(channel)
    assert records.head.status is records.final.status is ChannelStatus.OPEN
    assert watch.told == [frozenset({channel.to_bytes(32)})]
    assert log.events("final_blocks_reorganised")


async def test_catches_up_a_long_absence(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """Hundreds of missed blocks are read in ranges, and none of their events is lost."""
    watch = Watch(client, store, world)
    channel = world.open()
    await watch.follower.catch_up()
    world.chain.call("anvil_mine", hex(300))
    world.do(world.merchant, calls.expire(channel))
    world.chain.call("anvil_mine", hex(300))
    world.do(world.customer, world.close_call(channel, SECRET))
    world.chain.call("anvil_mine", hex(100))
    again = Watch(client, ChainStore(store._database), world)
    await again.follower.catch_up()
    records = await again.record(channel)
    assert records.head == world.record(channel)
    assert records.head.status is ChannelStatus.CLOSING


async def test_a_backlog_from_a_given_block(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """An escrow that existed before is fetched from the block that is asked for."""
    watch = Watch(client, store, world)
    since = world.chain.head()
    channel = world.open()
    world.chain.call("anvil_mine", hex(500))
    await watch.follower.catch_up()
    assert (await watch.record(channel)).head.status is ChannelStatus.ABSENT
    await watch.store.watch(world.escrow.address, since=since)
    await watch.follower.catch_up()
    records = await watch.record(channel)
    assert records.final == records.head == world.record(channel)


async def test_an_escrow_is_read_from_where_the_database_was(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """What happened since an old database's last look is not missed for an escrow new to it."""
    before = Watch(client, store, world)
    before.addresses.clear()
    await before.follower.catch_up()
    channel = world.open()
    world.chain.call("anvil_mine", hex(100))
    watch = Watch(client, ChainStore(store._database), world)
    await watch.follower.catch_up()
    assert (await watch.record(channel)).head == world.record(channel)


async def test_incomplete_history_is_said(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """A channel whose first events were before the watching is an error, not another channel."""
    watch = Watch(client, store, world)
    channel = world.open()
    world.chain.mine(3)
    await watch.follower.catch_up()
    world.do(world.merchant, calls.expire(channel))
    await watch.follower.catch_up()
    with pytest.raises(IncompleteHistory):
        await watch.record(channel)


async def test_escrows_come_and_go(watch: Watch, world: World, anvil: Anvil) -> None:
    """An escrow taken up at run time, set aside and taken up again misses nothing."""
    other = World(Escrow.deploy(anvil))
    await watch.follower.catch_up()
    watch.addresses.add(other.escrow.address)
    first = other.open()
    await watch.follower.catch_up()
    assert (await watch.record(first)).head == other.record(first)
    watch.addresses.discard(other.escrow.address)
    second = other.open()
    world.chain.mine(10)
    await watch.follower.catch_up()
    assert (await watch.record(second)).head.status is ChannelStatus.ABSENT
    watch.addresses.add(other.escrow.address)
    await watch.follower.catch_up()
    assert (await watch.record(second)).head == other.record(second)


async def test_node_restart(store: ChainStore, tmp_path: Path) -> None:
    """While the node is away nothing is followed, and that is said; afterwards nothing is lost."""
    with Anvil(state=tmp_path / "state.json") as anvil:
        world = World(Escrow.deploy(anvil))
        client = ChainClient([anvil.url])
        watch = Watch(client, store, world, poll=0.1)
        async with running(watch.follower.run()):
            channel = world.open()
            await watch.status(channel, ChannelStatus.OPEN)
            assert watch.follower.following
            anvil.stop()
            await watch.following(False)
            assert "127.0.0.1" in watch.follower.trouble
            anvil.restart()
            world.do(world.merchant, calls.expire(channel))
            await watch.status(channel, ChannelStatus.EXPIRING)
            assert watch.follower.following
            assert watch.follower.trouble == ""
        await client.aclose()


@pytest.fixture
async def own_database(own_cluster: Cluster) -> AsyncIterator[Database]:
    """A database on a cluster that may be stopped."""
    own_cluster.create_database("own")
    async with Database(own_cluster.dsn("own"), application_name="test") as database:
        await migrate(database, [COMPONENT])
        yield database


async def test_database_restart(
    own_cluster: Cluster, own_database: Database, client: ChainClient, world: World
) -> None:
    """While the database is away nothing is followed; afterwards every change is still told."""
    watch = Watch(client, ChainStore(own_database), world, poll=0.1)
    channel = world.open()
    async with running(watch.follower.run()):
        await watch.status(channel, ChannelStatus.OPEN)
        own_cluster.stop()
        world.do(world.merchant, calls.expire(channel))
        await watch.following(False)
        watch.told.clear()
        own_cluster.start()
        await watch.following(True)
        assert watch.told[0] == frozenset({channel.to_bytes(32)})
        assert (await watch.record(channel)).head.status is ChannelStatus.EXPIRING


async def test_change_that_could_not_be_handled_is_told_again(watch: Watch, world: World) -> None:
    """What `on_change` could not handle because the database was away, it gets again."""
    channel = world.open()
    told: list[frozenset[bytes]] = []

    async def fails_once(channels: frozenset[bytes]) -> None:
        told.append(channels)
        if len(told) == 1:
            raise DatabaseUnavailable("away")

    watch.follower._on_change = fails_once
    async with running(watch.follower.run()):
        await watch.following(True)
    assert told == [frozenset({channel.to_bytes(32)})] * 2


async def test_lagging_endpoint(store: ChainStore) -> None:
    """A switch to a node that is behind on the same chain takes nothing back."""
    with Anvil() as ahead, Anvil() as behind:
        world = World(Escrow.deploy(ahead))
        channel = world.open()
        behind.call("anvil_loadState", ahead.call("anvil_dumpState"))
        assert behind.head() == ahead.head()
        client = ChainClient([ahead.url, behind.url])
        watch = Watch(client, store, world)
        world.do(world.merchant, calls.expire(channel))
        await watch.follower.catch_up()
        ahead.kill()
        await watch.follower.catch_up()
        assert (await watch.record(channel)).head.status is ChannelStatus.EXPIRING
        behind.mine(2)
        await watch.follower.catch_up()
        assert (await watch.record(channel)).head.status is ChannelStatus.OPEN
        await client.aclose()


async def test_endpoint_with_another_history(store: ChainStore, log: Log) -> None:
    """A node that shares no block with ours is read afresh, and that is logged as an error."""
    log.expect_error("chain_read_afresh")
    with Anvil() as one, Anvil() as two:
        two.increase_time(1000)
        world, other = World(Escrow.deploy(one)), World(Escrow.deploy(two))
        assert world.escrow.address == other.escrow.address
        channel, theirs = world.open(), other.open()
        for node in (one, two):
            async with contextlib.aclosing(ChainClient([node.url])) as client:
                watch = Watch(client, store, world)
                await watch.follower.catch_up()
        assert (await watch.record(channel)).head.status is ChannelStatus.ABSENT
        assert (await watch.record(theirs)).head.status is ChannelStatus.OPEN


async def test_database_of_another_chain(database: Database, watch: Watch, world: World) -> None:
    """A database that was used on another chain is refused before anything is written."""
    await watch.follower.catch_up()

    async def move(connection: object) -> None:
        await connection.execute("update chain_state set chain_id = 1")  # type: ignore[attr-defined]

    await database.run(move)
    again = Watch(watch.client, ChainStore(database), world)
    with pytest.raises(AnotherChain, match="chain 1"):
        await again.follower.catch_up()


async def test_two_processes_on_one_database(
    watch: Watch, world: World, anvil: Anvil, database_dsn: str
) -> None:
    """A second process that follows into the same tables does no harm, and both see the end."""
    async with Database(database_dsn, application_name="second") as database:
        second = Watch(watch.client, ChainStore(database), world)
        channels = []
        for number in range(6):
            channels.append(world.open())
            world.chain.mine(number)
            await asyncio.gather(watch.follower.catch_up(), second.follower.catch_up())
            if number % 2:
                anvil.reorg(2)
                world.chain.mine(1)
            await asyncio.gather(second.follower.catch_up(), watch.follower.catch_up())
            for channel in channels:
                assert (await second.record(channel)).head == world.record(channel)
        assert watch.follower.head == second.follower.head


async def test_old_head_is_not_following(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """A chain whose newest block is old says nothing about now."""
    watch = Watch(client, store, world, stale_after=-1e6)
    await watch.follower.catch_up()
    assert not watch.follower.following


async def test_polling_without_websocket(
    client: ChainClient, store: ChainStore, world: World
) -> None:
    """A node without WebSocket is followed by polling alone."""
    watch = Watch(client, store, world, poll=0.05, websocket=False)
    async with running(watch.follower.run()):
        channel = world.open()
        await watch.status(channel, ChannelStatus.OPEN)


async def test_expiring_event_is_readable(watch: Watch, world: World) -> None:
    """History gives each event with its transaction, and whether it is final."""
    channel = world.open()
    world.chain.mine(2)
    world.do(world.merchant, calls.expire(channel))
    await watch.follower.catch_up()
    opened, expiring = await watch.store.history(channel.to_bytes(32))
    assert isinstance(opened.event, Opened)
    assert isinstance(expiring.event, Expiring)
    assert opened.final
    assert not expiring.final
    assert len(expiring.transaction_hash) == 32


async def test_embedded_chain(
    embedded_chain: Embedded, store: ChainStore, database: Database
) -> None:
    """The chain that needs no anvil is followed, and sent to, in the same way."""
    world = World(Escrow.deploy(embedded_chain))
    async with contextlib.aclosing(ChainClient([embedded_chain.url])) as client:
        watch = Watch(client, store, world)
        lane = Lane(
            client,
            database,
            KeyAccount(world.merchant),
            name="merchant",
            policy=FeePolicy(tip_floor=10**9, max_fee_cap=10**12),
        )
        async with running(watch.follower.run(), lane.run(watch.follower.heads())):
            channel = world.open()
            await watch.status(channel, ChannelStatus.OPEN)
            await lane.submit(
                "expire", to=world.escrow.address, value=0, data=calls.expire(channel)
            )
            await watch.status(channel, ChannelStatus.EXPIRING)
            world.chain.mine(3)
            await watch.status(channel, ChannelStatus.EXPIRING, final=True)
            row = await asyncio.wait_for(lane.wait("expire"), DEADLINE)
            assert row.status is TransactionStatus.FINAL
