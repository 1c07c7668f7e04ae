"""What following the chain costs per block, by number of channels, on a real PostgreSQL and anvil.

Beside it, from the same run: the two HTTP requests and the one commit that no follower can do
without. Run it as `python bench/watcher.py` (ANVIL names anvil), with `--json` for a program.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zkchannels.abacus import SecretKey
from zkchannels.chain.client import ChainClient
from zkchannels.chain.follower import Follower
from zkchannels.chain.store import COMPONENT, ChainStore
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.postgres import DURABLE, Cluster
from zkchannels.escrow import artefact, calls
from zkchannels.service.logging import configure
from zkchannels.store.database import Database
from zkchannels.store.migrate import migrate

TARGET_MS = 5.0  # per empty block at 1,000 channels
CHANNELS = (10, 1_000, 100_000)
CUSTOMER, MERCHANT = DEV_KEYS[0], DEV_KEYS[1]

# One channel is opened for real; the others are its event again, with ids of their own.
FILL = """
insert into chain_event (block_hash, log_index, block_number, transaction_hash, escrow, channel,
                         kind, topics, data)
select block_hash, 1000 + n, block_number, transaction_hash, escrow, id, kind,
       array[topics[1], id, topics[3]], data
  from (select * from chain_event limit 1) one,
       lateral (select n, sha256(int8send(n)) as id from generate_series(1, %s) n) many
"""


class Bench:
    """One escrow on one node, one database, one follower."""

    def __init__(self, anvil: Anvil, database: Database, blocks: int) -> None:
        self.anvil = anvil
        self.database = database
        self.blocks = blocks
        self.client = ChainClient([anvil.url])
        key = SecretKey.generate().public.to_escrow_key()
        self.escrow = anvil.deploy(
            CUSTOMER, artefact.deployment_data(MERCHANT.address, bytes(20), 1, 3600, key)
        )
        self.store = ChainStore(database)
        self.told = asyncio.Event()
        self.follower = Follower(
            self.client,
            self.store,
            lambda: frozenset({self.escrow}),
            self.on_change,
            poll=3600.0,
            stale_after=1e9,
        )

    async def on_change(self, channels: frozenset[bytes]) -> None:
        """Do what a watcher does first: read the records of what changed."""
        await self.store.records(channels)
        self.told.set()

    def open(self) -> None:
        """One channel, in a block of its own."""
        data = calls.open_(secrets.token_bytes(32), 0)
        assert self.anvil.send(CUSTOMER, self.escrow, data, value=1).succeeded

    async def fill(self, channels: int) -> None:
        """Store that many channels."""
        await self.store.watch(self.escrow, since=0)
        self.open()
        await self.follower.catch_up()
        self.anvil.mine(3)
        await self.follower.catch_up()

        async def write(connection: Any) -> None:
            await connection.execute(FILL, [channels - 1])

        await self.database.run(write)

    async def timed(self, before: Callable[[], None], act: Callable[[], Awaitable[object]]) -> Any:
        """Milliseconds of one act after each of many blocks, and of this process' processor."""
        times, processor = [], []
        for _ in range(self.blocks):
            before()
            began, worked = time.perf_counter(), time.process_time()
            await act()
            times.append(1000 * (time.perf_counter() - began))
            processor.append(1000 * (time.process_time() - worked))
        return summary(times) | {"processor": median(processor)}

    async def least(self) -> None:
        """Two HTTP requests and one commit: what any follower needs for a block."""
        head = await self.client.block("latest")
        assert head is not None
        await self.client.logs([self.escrow], block_hash=head.hash)

        async def write(connection: Any) -> None:
            await connection.execute("update chain_state set final = final")

        await self.database.run(write)

    async def push(self) -> Any:
        """Milliseconds from the inclusion of an event until it is stored and told."""
        times = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.follower.run())
            await self.follower.changed()
            for _ in range(min(self.blocks, 50)):
                self.told.clear()
                await asyncio.to_thread(self.open)
                began = time.perf_counter()
                await self.told.wait()
                times.append(1000 * (time.perf_counter() - began))
            task.cancel()
        return summary(times)


def summary(times: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    ordered = sorted(times)
    return {"median": median(ordered), "p99": ordered[int(0.99 * (len(ordered) - 1))]}


async def measure(channels: int, blocks: int, dsn: str) -> dict[str, Any]:
    """All figures for one number of channels, in milliseconds."""
    with Anvil() as anvil:
        async with Database(dsn, application_name="bench") as database:
            await migrate(database, [COMPONENT])
            bench = Bench(anvil, database, blocks)
            await bench.fill(channels)
            found = {
                "channels": channels,
                "empty block": await bench.timed(anvil.mine, bench.follower.catch_up),
                "block with an event": await bench.timed(bench.open, bench.follower.catch_up),
                "two requests and a commit": await bench.timed(anvil.mine, bench.least),
                "inclusion to told": await bench.push(),
            }
            await bench.client.aclose()
            return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--channels", type=int, nargs="+", default=list(CHANNELS))
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure("bench", level="warning")
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Cluster(Path(directory) / "pg", settings=DURABLE) as cluster,
    ):
        for number, channels in enumerate(options.channels):
            name = f"bench_{number}"
            cluster.create_database(name)
            results.append(asyncio.run(measure(channels, options.blocks, cluster.dsn(name))))
    if options.json:
        print(json.dumps({"unit": "ms", "target": TARGET_MS, "results": results}))
    else:
        show(results)
    judged = [row["empty block"]["median"] for row in results if row["channels"] == 1_000]
    return int(any(value > TARGET_MS for value in judged))


def show(results: list[dict[str, Any]]) -> None:
    names = [name for name in results[0] if name != "channels"]
    print(f"{'milliseconds, median (p99)':28}" + "".join(f"{name:>28}" for name in names))
    for row in results:
        cells = "".join(
            f"{row[name]['median']:>18.2f} ({row[name]['p99']:>6.2f})" + " " for name in names
        )
        print(f"{row['channels']:>10,} channels         {cells}")
    worked = ", ".join(f"{row['empty block']['processor']:.2f}" for row in results)
    print(f"processor time of an empty block: {worked} ms")
    print(f"target: an empty block at 1,000 channels in {TARGET_MS} ms")


if __name__ == "__main__":
    raise SystemExit(main())
