"""anvil as a development chain: the real EVM of revm, with reorganisations, finality and a pool."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zkchannels.devnet.child import Child
from zkchannels.devnet.control import DevChain
from zkchannels.escrow.ethereum import checksum

ENVIRONMENT_VARIABLE = "ANVIL"

_LATE_BLOCKS = 4  # looked at below a reorganisation, whose depth anvil counts when it begins


class AnvilMissing(RuntimeError):
    """The environment variable ANVIL does not name anvil's executable."""


def executable() -> str:
    """Path of anvil itself, from ANVIL.

    Not of a wrapper script: those of package managers leave anvil running when they are killed.
    """
    path = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not Path(path).is_file():
        raise AnvilMissing(f"{ENVIRONMENT_VARIABLE} names no executable: {path!r}")
    return path


class Anvil(DevChain):
    """A running anvil, with the rules of Prague unless another hardfork is named.

    `finality` is how many blocks `finalized` lags behind the head (a multiple of 2; `safe` lags
    half as many). `state` is a file that keeps the chain from `stop` to `restart`. With
    `block_time` (seconds) blocks come at this interval only, else one for each transaction.
    """

    def __init__(
        self,
        *,
        finality: int = 2,
        block_time: float | None = None,
        state: Path | None = None,
        port: int = 0,
        hardfork: str = "prague",
    ) -> None:
        self._options = ["--hardfork", hardfork, "--slots-in-an-epoch", str(finality // 2)]
        self._options += ["--chain-id", str(self.chain_id), "--host", "127.0.0.1"]
        # Old states go to the user's home otherwise, and stay there when the node is killed.
        self._options += ["--max-persisted-states", "0"]
        if block_time is not None:
            self._options += ["--block-time", str(block_time)]
        self._state = state
        child, url = self._start(port)
        super().__init__(child, url)

    def restart(self) -> None:
        """Start again at the same address after `stop` or `kill`."""
        self._child, _ = self._start(int(self.url.rpartition(":")[2]))

    def _start(self, port: int) -> tuple[Child, str]:
        command = [executable(), "--port", str(port), *self._options]
        if self._state is not None and self._state.exists():
            command += ["--load-state", str(self._state)]
        child = Child(command, ready="Listening on ")
        return child, "http://" + child.ready_line.split()[-1]

    def stop(self) -> None:
        """End the node's process, its chain saved first if there is a state file."""
        if self._state is not None and self._child.running:
            # anvil's own saving at its exit is lost now and then
            dump = bytes.fromhex(self.call("anvil_dumpState")[2:])
            self._state.write_bytes(gzip.decompress(dump))
        super().stop()

    # What only anvil can do

    def reorg(self, depth: int, again: Sequence[tuple[str, int]] = ()) -> None:
        """Replace the newest blocks by as many; their transactions are dropped but for `again`.

        Those are raw transactions with the new block, from 0, that each comes in.
        """
        with self._nothing_mined():
            head = self.head()
            self.call("anvil_reorg", depth, [list(each) for each in again])
            self._mend(head - depth, head)

    def rollback(self, depth: int) -> None:
        """Remove the newest blocks; nothing is pushed to subscribers."""
        with self._nothing_mined():
            kept = self.head() - depth
            self.call("anvil_rollback", depth)
            self._mend(kept, kept)

    def _mend(self, kept: int, head: int) -> None:
        """Replace what was lost near block `kept` and above by empty blocks, `head` the newest.

        anvil takes a transaction's block from a queue of its own, so that one may come even though
        `_nothing_mined`: the blocks beside it are then lost for good, and no client can follow.
        """
        while (whole := self._whole_until(max(kept - _LATE_BLOCKS, 0))) is not None:
            self.call("anvil_rollback", self.head() - min(whole, kept))
            self.mine(max(head - self.head(), 0))

    def _whole_until(self, first: int) -> int | None:
        """The last block, from a number on, below which none is lost; None: none is at all."""
        latest = self._block("latest")
        if latest is None:
            return first
        whole, expected = None, latest["hash"]
        for number in range(int(latest["number"], 16), first - 1, -1):
            block = self._block(hex(number))
            if block is None or expected not in (None, block["hash"]):
                whole = number - 1
            expected = block and block["parentHash"]
        return whole

    def _block(self, number: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.call("eth_getBlockByNumber", number, False)
        return found

    @contextmanager
    def _nothing_mined(self) -> Iterator[None]:
        """Keep transactions from being mined; those that come meanwhile wait for the next block.

        A block mined in the middle of a reorganisation makes anvil lose others for good.
        """
        if not self.call("anvil_getAutomine"):
            yield
            return
        self.set_automine(False)
        head = -1
        while head != (head := self.head()):
            pass  # a block was under way
        try:
            yield
        finally:
            self.set_automine(True)

    def set_balance(self, address: bytes, amount: int) -> None:
        """Native coin of an account, wei."""
        self.call("anvil_setBalance", checksum(address), hex(amount))

    def set_automine(self, enabled: bool) -> None:
        """Whether each transaction gets a block at once; off, `mine` decides."""
        self.call("evm_setAutomine", enabled)

    def set_next_base_fee(self, fee: int) -> None:
        """Base fee of the next block, wei per gas."""
        self.call("anvil_setNextBlockBaseFeePerGas", hex(fee))

    def drop_transaction(self, transaction_hash: bytes) -> None:
        """Remove a transaction from the pool."""
        self.call("anvil_dropTransaction", "0x" + transaction_hash.hex())
