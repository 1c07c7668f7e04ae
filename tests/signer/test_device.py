"""What the signer asks of a small device: little memory, and none of the daemon's libraries."""

from __future__ import annotations

from pathlib import Path

from tests.signer.daemon import Daemon, caller, listening, running
from tests.signer.support import Channel, Merchant
from tests.signer.test_process import WALLET, folder
from zkchannels.wire import signer as wire

__all__ = ["folder"]

HEAVY = {"aiohttp", "psycopg", "psycopg_pool", "rich.console", "web3", "eth_account", "vyper"}
MEBIBYTES = 80


async def test_the_running_signer_is_light(folder: Path) -> None:
    """A signer that made a payment has imported no database and no HTTP, and fits 80 MiB."""
    daemon, merchant = Daemon(), Merchant()
    async with (
        listening(folder / "signer.sock", daemon),
        running(folder, PYTHONPROFILEIMPORTTIME="1") as process,
    ):
        call = caller(await daemon.attached())
        await call(wire.ESCROW, merchant.registration)
        channel = Channel(call, merchant, WALLET.account.address)
        await channel.establish()
        await channel.pay(10)
        resident = memory_of(process.pid)
        imported = {
            line.rsplit("|", 1)[1].strip()
            for line in process.output.splitlines()
            if line.startswith("import time:")
        }
    assert {"customersigner", "asyncio", "sqlite3"} <= imported
    assert imported & HEAVY == set()
    assert resident <= MEBIBYTES * 1024


def memory_of(pid: int) -> int:
    """A process' resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
