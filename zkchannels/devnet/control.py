"""Control of a development chain by blocking JSON-RPC calls: time, blocks, money, transactions."""

from __future__ import annotations

import http.client
import itertools
import json
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from zkchannels.devnet.accounts import CHAIN_ID, DEV_KEYS
from zkchannels.devnet.child import Child
from zkchannels.escrow.ethereum import PrivateKey, checksum
from zkchannels.escrow.transaction import Transaction

GAS = 8_000_000
TIP = 10**9


class ChainRefused(RuntimeError):
    """The node answered with an error; `reason` is the contract's, when a call reverted."""

    def __init__(self, code: int, message: str, data: object) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data

    @property
    def reason(self) -> str:
        """What follows "execution reverted" in the message, or the whole message."""
        return self.message.removeprefix("execution reverted").removeprefix(":").strip()


@dataclass(frozen=True, slots=True)
class MinedLog:
    """One log of a receipt."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class MinedReceipt:
    """The part of a receipt that matters here."""

    transaction_hash: bytes
    block_number: int
    succeeded: bool
    gas_used: int
    contract: bytes | None
    logs: tuple[MinedLog, ...]


class DevChain:
    """A running development chain and its control. A context manager that stops it."""

    chain_id = CHAIN_ID

    def __init__(self, child: Child, url: str) -> None:
        self._child = child
        self._ids = itertools.count(1)
        self.url = url
        self.ws_url = "ws" + url.removeprefix("http")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the node's process."""
        self._child.stop()

    def kill(self) -> None:
        """End the node's process without giving it a chance to notice."""
        self._child.kill()

    def call(self, method: str, *params: object) -> Any:
        """One JSON-RPC request; raises ChainRefused, or OSError when the node is not there."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            connection.request(
                "POST", "/", json.dumps(request), {"Content-Type": "application/json"}
            )
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            error = answer["error"]
            raise ChainRefused(error["code"], error["message"], error.get("data"))
        return answer["result"]

    # Time and blocks

    def head(self) -> int:
        """Number of the newest block."""
        return int(self.call("eth_blockNumber"), 16)

    def time(self) -> int:
        """Time of the newest block, seconds."""
        return int(self.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def mine(self, blocks: int = 1) -> None:
        """Append empty blocks."""
        for _ in range(blocks):
            self.call("evm_mine")

    def increase_time(self, seconds: int) -> None:
        """Move the chain's clock and append a block that shows it."""
        self.call("evm_increaseTime", hex(seconds))
        self.call("evm_mine")

    def set_next_time(self, timestamp: int) -> None:
        """Time of the block that comes next, seconds."""
        self.call("evm_setNextBlockTimestamp", hex(timestamp))

    def snapshot(self) -> str:
        """A name for the present state."""
        return str(self.call("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Back to a snapshot, which is used up by that."""
        self.call("evm_revert", snapshot)

    # Money and transactions

    def balance(self, address: bytes) -> int:
        """Native coin of an account, wei."""
        return int(self.call("eth_getBalance", checksum(address), "latest"), 16)

    def faucet(self, address: bytes, amount: int) -> None:
        """Send native coin from a development account, wei."""
        receipt = self.send(DEV_KEYS[-1], address, b"", value=amount)
        assert receipt.succeeded, "development accounts are rich"

    def send(
        self,
        key: PrivateKey,
        to: bytes | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int = GAS,
    ) -> MinedReceipt:
        """Sign, send and wait until mined; a reverted transaction has `succeeded` False."""
        # Not "pending": anvil's pool lags behind `revert`, and whoever sends here waits each time
        nonce = int(self.call("eth_getTransactionCount", checksum(key.address), "latest"), 16)
        head = self.call("eth_getBlockByNumber", "latest", False)
        transaction = Transaction(
            chain_id=self.chain_id,
            nonce=nonce,
            tip=TIP,
            max_fee=2 * int(head["baseFeePerGas"], 16) + TIP,
            gas=gas,
            to=to,
            value=value,
            data=data,
        )
        signature = key.sign_digest(transaction.signing_digest())
        return self.send_raw(transaction.with_signature(signature))

    def send_raw(self, raw: bytes) -> MinedReceipt:
        """Send a raw transaction and wait until mined (EIP-7966)."""
        return _receipt(self.call("eth_sendRawTransactionSync", "0x" + raw.hex()))

    def deploy(self, key: PrivateKey, data: bytes) -> bytes:
        """Deploy a contract; its address."""
        receipt = self.send(key, None, data)
        if not receipt.succeeded or receipt.contract is None:
            raise ChainRefused(3, "the deployment reverted", None)
        return receipt.contract

    def view(self, to: bytes, data: bytes, *, sender: bytes | None = None, value: int = 0) -> bytes:
        """What a call would return at the newest block; raises ChainRefused if it reverts."""
        request = {"to": checksum(to), "data": "0x" + data.hex(), "value": hex(value)}
        if sender is not None:
            request["from"] = checksum(sender)
        return bytes.fromhex(self.call("eth_call", request, "latest")[2:])

    def logs(self, address: bytes, *, from_block: int = 0) -> list[MinedLog]:
        """All logs of a contract, in order."""
        found = self.call(
            "eth_getLogs",
            {"address": checksum(address), "fromBlock": hex(from_block), "toBlock": "latest"},
        )
        return [_log(entry) for entry in found]


def _log(entry: dict[str, Any]) -> MinedLog:
    topics: Sequence[str] = entry["topics"]
    return MinedLog(
        address=bytes.fromhex(entry["address"][2:]),
        topics=tuple(bytes.fromhex(topic[2:]) for topic in topics),
        data=bytes.fromhex(entry["data"][2:]),
    )


def _receipt(entry: dict[str, Any]) -> MinedReceipt:
    contract = entry.get("contractAddress")
    return MinedReceipt(
        transaction_hash=bytes.fromhex(entry["transactionHash"][2:]),
        block_number=int(entry["blockNumber"], 16),
        succeeded=int(entry["status"], 16) == 1,
        gas_used=int(entry["gasUsed"], 16),
        contract=bytes.fromhex(contract[2:]) if contract else None,
        logs=tuple(_log(log) for log in entry["logs"]),
    )
