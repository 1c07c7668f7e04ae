"""Random histories and a lying node: whatever happened in between, the end is right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.chain.support import KeyAccount, Watch
from tests.contract.world import World
from tests.fix_log import Log
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import ChainFailure
from zkchannels.chain.lane import FeePolicy, Lane, TransactionStatus
from zkchannels.chain.ring import MovedError
from zkchannels.chain.store import ChainStore
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import ChainRefused
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import keccak256
from zkchannels.escrow.record import ChannelStatus
from zkchannels.store.database import Database

GWEI = 10**9
SECRET = keccak256(b"secret")
RECEIVER = bytes([0x33]) * 20


def act(world: World, anvil: Anvil, channels: list[int], dice: random.Random) -> None:
    """One random thing that may happen on a chain."""
    kind = dice.choice(["open", "expire", "close", "mine", "mine", "reorg", "rollback"])
    with contextlib.suppress(ChainRefused):  # not every act is possible for every channel
        match kind:
            case "open":
                channels.append(world.open())
            case "expire" if channels:
                world.do(world.merchant, calls.expire(dice.choice(channels)))
            case "close" if channels:
                world.do(world.customer, world.close_call(dice.choice(channels), SECRET))
            case "mine":
                anvil.mine(dice.randrange(1, 4))
            case "reorg":
                anvil.reorg(dice.randrange(1, 6))
            case "rollback":
                anvil.rollback(dice.randrange(1, 4))


async def equal(watch: Watch, world: World, channels: list[int]) -> None:
    """The store says of every channel what the contract says."""
    for channel in channels:
        assert (await watch.record(channel)).head == world.record(channel)


@pytest.mark.parametrize("seed", range(3))
async def test_random_histories(
    watch: Watch, world: World, anvil: Anvil, log: Log, seed: int
) -> None:
    """After any sequence of events, reorganisations and rollbacks the store equals the chain."""
    log.expect_error("final_blocks_reorganised")
    log.expect_error("chain_read_afresh")
    dice = random.Random(seed)
    anvil.mine(20)
    channels: list[int] = []
    for _ in range(12):
        for _ in range(dice.randrange(1, 7)):
            act(world, anvil, channels, dice)
        anvil.mine()  # a head that only went back says nothing yet
        while anvil.head() <= (0 if watch.follower.head is None else watch.follower.head.number):
            anvil.mine()
        await watch.follower.catch_up()
        await equal(watch, world, channels)


Tamper = Callable[[str, Any, Any], Any]


@contextlib.asynccontextmanager
async def liar(anvil: Anvil, tamper: Tamper) -> AsyncGenerator[str, None]:
    """A node whose answers pass through `tamper(method, params, result)`."""
    async with aiohttp.ClientSession() as session:

        async def handle(request: web.Request) -> web.Response:
            asked = await request.json()
            async with session.post(anvil.url, json=asked) as reply:
                answers = await reply.json()
            single = isinstance(asked, dict)
            if single:
                asked, answers = [asked], [answers]
            by_id = {answer["id"]: answer for answer in answers}
            for question in asked:
                answer = by_id[question["id"]]
                if "result" in answer:
                    changed = tamper(question["method"], question["params"], answer["result"])
                    answer["result"] = changed
                    if isinstance(changed, ChainRefused):
                        del answer["result"]
                        answer["error"] = {"code": -32005, "message": str(changed)}
            return web.Response(text=json.dumps(answers[0] if single else answers))

        application = web.Application()
        application.router.add_post("/", handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def absurd_head(method: str, params: Any, result: Any) -> Any:
    """A head that is far in the future."""
    if method == "eth_getBlockByNumber" and params[0] == "latest":
        return result | {"number": hex(2**62)}
    return result


def no_blocks(method: str, params: Any, result: Any) -> Any:
    """A node that has lost its blocks."""
    return None if method == "eth_getBlockByNumber" and params[0] != "latest" else result


def logs_of_another_branch(method: str, params: Any, result: Any) -> Any:
    """Logs in blocks that are not on the chain."""
    if method == "eth_getLogs":
        return [log | {"blockHash": "0x" + "ab" * 32} for log in result]
    return result


def logs_outside(method: str, params: Any, result: Any) -> Any:
    """Logs of blocks that were not asked for."""
    if method == "eth_getLogs":
        return [log | {"blockNumber": hex(2**40)} for log in result]
    return result


def logs_of_nobody(method: str, params: Any, result: Any) -> Any:
    """Logs that no escrow can emit."""
    if method == "eth_getLogs":
        return [log | {"topics": ["0x" + "77" * 32]} for log in result]
    return result


def broken_logs(method: str, params: Any, result: Any) -> Any:
    """Logs whose data is cut off."""
    if method == "eth_getLogs":
        return [log | {"data": log["data"][:-2]} for log in result]
    return result


def other_hashes(method: str, params: Any, result: Any) -> Any:
    """Blocks that do not follow each other."""
    if method == "eth_getBlockByNumber" and result and params[0] not in ("latest", "finalized"):
        return result | {"parentHash": "0x" + "cd" * 32, "hash": "0x" + params[0][2:].zfill(64)}
    return result


LIES = [
    absurd_head,
    no_blocks,
    logs_of_another_branch,
    logs_outside,
    logs_of_nobody,
    broken_logs,
    other_hashes,
]


@pytest.mark.parametrize("lie", LIES)
async def test_lying_node(store: ChainStore, anvil: Anvil, world: World, lie: Tamper) -> None:
    """A lie that can be seen changes nothing and ends in a typed error; then truth is read."""
    honest = {"now": True}

    def tamper(method: str, params: Any, result: Any) -> Any:
        return result if honest["now"] else lie(method, params, result)

    async with (
        liar(anvil, tamper) as url,
        contextlib.aclosing(ChainClient([url])) as client,
    ):
        watch = Watch(client, store, world)
        await store.watch(world.escrow.address, since=0)
        channel = world.open()
        await watch.follower.catch_up()
        world.do(world.merchant, calls.expire(channel))
        world.chain.mine(3)
        honest["now"] = False
        with pytest.raises((ChainFailure, MovedError)):
            await watch.follower.catch_up()
        assert (await watch.record(channel)).head.status is ChannelStatus.OPEN
        honest["now"] = True
        again = Watch(client, ChainStore(store._database), world)
        await again.follower.catch_up()
        assert (await again.record(channel)).head == world.record(channel)


async def test_node_that_limits_ranges(store: ChainStore, anvil: Anvil, world: World) -> None:
    """A node that refuses logs of more than 50 blocks is asked for less, and nothing is lost."""
    largest: list[int] = []

    def tamper(method: str, params: Any, result: Any) -> Any:
        if method == "eth_getLogs" and "fromBlock" in params[0]:
            span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            if span > 50:
                return ChainRefused(-32005, "query exceeds max block range", None)
            largest.append(span)
        return result

    await store.watch(world.escrow.address, since=0)
    channels = [world.open()]
    anvil.mine(90)
    channels.append(world.open())
    world.do(world.merchant, calls.expire(channels[0]))
    anvil.mine(60)
    async with (
        liar(anvil, tamper) as url,
        contextlib.aclosing(ChainClient([url])) as client,
    ):
        watch = Watch(client, store, world)
        await watch.follower.catch_up()
        await equal(watch, world, channels)
    assert max(largest) <= 50


class Sender:
    """A lane to which everything happens that may."""

    def __init__(self, client: ChainClient, database: Database, anvil: Anvil) -> None:
        self.client, self.database, self.anvil = client, database, anvil
        self.purposes: list[str] = []
        self.lane = self.new_lane()

    def new_lane(self) -> Lane:
        """The lane of a new process."""
        policy = FeePolicy(tip_floor=GWEI, max_fee_cap=5000 * GWEI, patience=2)
        account = KeyAccount(DEV_KEYS[5])
        return Lane(self.client, self.database, account, name="customer", policy=policy)

    async def look(self) -> None:
        """Show the newest head to the lane."""
        head = await self.client.block("latest")
        assert head is not None
        await self.lane.on_head(head, max(head.number - 6, 0))

    async def act(self, dice: random.Random) -> None:
        """One random thing."""
        match dice.choice(["send", "send", "mine", "mine", "reorg", "drop", "spike", "restart"]):
            case "send":
                self.purposes.append(f"gift {len(self.purposes)}")
                await self.lane.submit(
                    self.purposes[-1], to=RECEIVER, value=1, data=b"", gas=21_000
                )
            case "mine":
                self.anvil.mine(dice.randrange(1, 3))
            case "reorg":
                self.anvil.reorg(max(min(dice.randrange(1, 5), self.anvil.head()), 1))
            case "drop":
                for row in await self.lane.open_rows():
                    self.anvil.drop_transaction(row.hash)
            case "spike":
                self.anvil.set_next_base_fee(dice.randrange(1, 30) * GWEI)
            case "restart":
                self.lane = self.new_lane()


@pytest.mark.parametrize("seed", range(3))
async def test_random_sending(
    client: ChainClient, database: Database, anvil: Anvil, seed: int
) -> None:
    """Whatever drops and delays its transactions, a lane makes every payment exactly once."""
    dice = random.Random(seed)
    anvil.set_automine(False)
    anvil.mine(5)
    sender = Sender(client, database, anvil)
    for _ in range(40):
        await sender.act(dice)
        if dice.random() < 0.7:
            await sender.look()
    async with asyncio.timeout(30):
        while await sender.lane.open_rows():
            anvil.mine()
            await sender.look()
    for purpose in sender.purposes:
        assert await sender.lane.state(purpose) is TransactionStatus.FINAL
    assert anvil.balance(RECEIVER) == len(sender.purposes)
