"""An Ethereum chain in memory on py-evm, answering the JSON-RPC methods that a daemon uses.

Every transaction (of type 2) gets a block at once. There is no pool, no fee market and no
reorganisation but `evm_revert`; anvil has those.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rlp  # type: ignore[import-untyped]
from eth.abc import ReceiptAPI, SignedTransactionAPI
from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.constants import BLANK_ROOT_HASH, POST_MERGE_DIFFICULTY, POST_MERGE_NONCE, ZERO_HASH32
from eth.db import get_db_backend
from eth.exceptions import UnrecognizedTransactionType, VMError
from eth.vm.spoof import SpoofTransaction
from eth_typing import BlockNumber
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

from zkchannels.devnet.accounts import CHAIN_ID, DEV_BALANCE, DEV_KEYS
from zkchannels.devnet.precompiles import DevVM
from zkchannels.escrow import abi
from zkchannels.escrow.ethereum import ZERO_ADDRESS, EthereumError, keccak256, parse_address
from zkchannels.escrow.transaction import rlp_encode

GAS_LIMIT = 30_000_000
SUGGESTED_TIP = 10**9
SAFE_LAG = 1
FINALITY_LAG = 2
ESTIMATE_TOLERANCE = 500
DYNAMIC_FEE_TYPE = 2

REVERTED = 3
SERVER_ERROR = -32000
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

_ERROR_SELECTOR = abi.selector("Error", ("string",))


class Refused(Exception):
    """The answer to a request is this error."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class _Mined:
    """A block and the receipts of its transactions."""

    block: Any
    receipts: tuple[ReceiptAPI, ...]


class _Chain(MiningChain):
    """Prague from the first block on, blocks sealed by nobody, gas limit constant."""

    chain_id = CHAIN_ID
    vm_configuration = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, DevVM),))

    def create_header_from_parent(self, parent_header: Any, **header_params: Any) -> Any:
        return super().create_header_from_parent(
            parent_header, **{**header_params, "gas_limit": parent_header.gas_limit}
        )


class Machine:
    """The chain. `request` answers one JSON-RPC request; blocks are appended only inside it."""

    def __init__(self) -> None:
        genesis: dict[str, Any] = {
            "coinbase": ZERO_ADDRESS,
            "difficulty": POST_MERGE_DIFFICULTY,
            "extra_data": b"",
            "gas_limit": GAS_LIMIT,
            "mix_hash": ZERO_HASH32,
            "nonce": POST_MERGE_NONCE,
            "receipt_root": BLANK_ROOT_HASH,
            "timestamp": int(time.time()),
            "transaction_root": BLANK_ROOT_HASH,
        }
        account = {"balance": DEV_BALANCE, "nonce": 0, "code": b"", "storage": {}}
        accounts: Any = {key.address: account for key in DEV_KEYS}
        # py-evm's own types are too narrow to be of use here
        self._chain: Any = _Chain.from_genesis(get_db_backend(), genesis, accounts)
        self._blocks = [_Mined(self._chain.get_canonical_block_by_number(BlockNumber(0)), ())]
        self._numbers: dict[bytes, int] = {self._blocks[0].block.hash: 0}
        self._transactions: dict[bytes, tuple[int, int]] = {}
        self._ahead = 0
        self._next_time: int | None = None
        self._snapshots: list[int] = []
        self._methods: dict[str, Callable[..., Any]] = {
            name.removeprefix("_do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_do_")
        }

    @property
    def head(self) -> int:
        """Number of the newest block."""
        return len(self._blocks) - 1

    def request(self, method: str, params: list[Any]) -> Any:
        """The result of one request; raises Refused."""
        answer = self._methods.get(method)
        if answer is None:
            raise Refused(METHOD_NOT_FOUND, f"the method {method} does not exist")
        try:
            return answer(*params)
        except ValidationError as error:
            raise Refused(SERVER_ERROR, str(error)) from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Refused(INVALID_PARAMS, f"invalid parameters: {error}") from error

    # The chain

    def _do_eth_chainId(self) -> str:  # noqa: N802  (JSON-RPC names)
        return hex(CHAIN_ID)

    def _do_net_version(self) -> str:
        return str(CHAIN_ID)

    def _do_web3_clientVersion(self) -> str:  # noqa: N802
        return "zkchannels-devnet/py-evm"

    def _do_eth_syncing(self) -> bool:
        return False

    def _do_eth_blockNumber(self) -> str:  # noqa: N802
        return hex(self.head)

    def _do_eth_getBlockByNumber(self, tag: str, full: bool = False) -> Any:  # noqa: N802
        number = self._number(tag)
        return self._block(number, full) if number <= self.head else None

    def _do_eth_getBlockByHash(self, block_hash: str, full: bool = False) -> Any:  # noqa: N802
        number = self._numbers.get(_bytes(block_hash))
        return None if number is None else self._block(number, full)

    def _do_eth_getTransactionByHash(self, transaction_hash: str) -> Any:  # noqa: N802
        found = self._transactions.get(_bytes(transaction_hash))
        return None if found is None else self._transaction(*found)

    def _do_eth_getTransactionReceipt(self, transaction_hash: str) -> Any:  # noqa: N802
        found = self._transactions.get(_bytes(transaction_hash))
        return None if found is None else self._receipt(*found)

    def _do_eth_getLogs(self, wanted: dict[str, Any]) -> list[Any]:  # noqa: N802
        if "blockHash" in wanted:
            number = self._numbers.get(_bytes(wanted["blockHash"]))
            if number is None:
                raise Refused(SERVER_ERROR, "unknown block")
            numbers = range(number, number + 1)
        else:
            first = self._number(wanted.get("fromBlock", "latest"))
            last = self._number(wanted.get("toBlock", "latest"))
            numbers = range(first, min(last, self.head) + 1)
        addresses = wanted.get("address")
        if isinstance(addresses, str):
            addresses = [addresses]
        chosen = None if addresses is None else {parse_address(text) for text in addresses}
        topics = wanted.get("topics") or []
        return [
            log
            for number in numbers
            for log in self._logs(number)
            if (chosen is None or bytes.fromhex(log["address"][2:]) in chosen)
            and _topics_match(log["topics"], topics)
        ]

    # State

    def _do_eth_getBalance(self, address: str, tag: str = "latest") -> str:  # noqa: N802
        return hex(self._state(tag).get_balance(parse_address(address)))

    def _do_eth_getCode(self, address: str, tag: str = "latest") -> str:  # noqa: N802
        return _hex(self._state(tag).get_code(parse_address(address)))

    def _do_eth_getTransactionCount(self, address: str, tag: str = "latest") -> str:  # noqa: N802
        return hex(self._state(tag).get_nonce(parse_address(address)))

    def _do_eth_getStorageAt(self, address: str, slot: str, tag: str = "latest") -> str:  # noqa: N802
        value = self._state(tag).get_storage(parse_address(address), int(slot, 16))
        return _hex(value.to_bytes(32))

    def _do_eth_call(self, call: dict[str, Any], tag: str = "latest") -> str:
        computation, _ = self._execute(self._free_state(tag), call, GAS_LIMIT)
        if computation.is_error:
            raise _reverted(computation.error)
        return _hex(computation.output)

    def _do_eth_estimateGas(self, call: dict[str, Any], tag: str = "latest") -> str:  # noqa: N802
        """The least gas that suffices, within a tolerance; refunds and 63/64 make it a search."""
        state = self._free_state(tag)
        computation, intrinsic = self._execute(state, call, GAS_LIMIT)
        if computation.is_error:
            raise _reverted(computation.error)
        used = computation.get_gas_used() + intrinsic
        too_little, enough = used - 1, GAS_LIMIT
        guess = min(GAS_LIMIT, used + used // 16)
        while enough - too_little > ESTIMATE_TOLERANCE:
            if self._suffices(state, call, guess):
                enough = guess
            else:
                too_little = guess
            guess = (too_little + enough) // 2
        return hex(enough)

    # Transactions

    def _do_eth_sendRawTransaction(self, raw: str) -> str:  # noqa: N802
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(_bytes(raw))
            sender = transaction.sender
        except (RLPException, UnrecognizedTransactionType, ValidationError, ValueError) as error:
            raise Refused(INVALID_PARAMS, f"not a transaction: {error}") from error
        self._admit(transaction, sender)
        self._stamp()
        _, receipt, _ = self._chain.apply_transaction(transaction)
        self._append((receipt,))
        self._transactions[transaction.hash] = (self.head, 0)
        return _hex(transaction.hash)

    def _do_eth_sendRawTransactionSync(self, raw: str) -> Any:  # noqa: N802
        return self._do_eth_getTransactionReceipt(self._do_eth_sendRawTransaction(raw))

    def _do_eth_gasPrice(self) -> str:  # noqa: N802
        return hex(self._base_fee() + SUGGESTED_TIP)

    def _do_eth_maxPriorityFeePerGas(self) -> str:  # noqa: N802
        return hex(SUGGESTED_TIP)

    def _do_eth_feeHistory(self, count: Any, newest: str, percentiles: Any = ()) -> Any:  # noqa: N802
        last = self._number(newest)
        first = max(0, last + 1 - (int(count, 16) if isinstance(count, str) else int(count)))
        headers = [mined.block.header for mined in self._blocks[first : last + 1]]
        following = self._blocks[last + 1].block.header if last < self.head else self._chain.header
        rewards = [self._tip(number) for number in range(first, last + 1)]
        return {
            "oldestBlock": hex(first),
            "baseFeePerGas": [hex(header.base_fee_per_gas) for header in (*headers, following)],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [[hex(reward)] * len(percentiles) for reward in rewards],
        }

    # Control

    def _do_evm_mine(self, *_: Any) -> str:
        self._stamp()
        self._append(())
        return "0x0"

    def _do_evm_increaseTime(self, seconds: Any) -> str:  # noqa: N802
        step = int(seconds, 16) if isinstance(seconds, str) else int(seconds)
        # The head runs ahead of the clock when blocks come faster than one in a second
        self._ahead = max(self._ahead, self._head_time() - int(time.time())) + step
        return hex(self._ahead)

    def _do_evm_setNextBlockTimestamp(self, timestamp: Any) -> None:  # noqa: N802
        wanted = int(timestamp, 16) if isinstance(timestamp, str) else int(timestamp)
        if wanted <= self._head_time():
            raise Refused(INVALID_PARAMS, "a block is later than its parent")
        self._next_time = wanted
        self._ahead = wanted - int(time.time())

    def _do_evm_snapshot(self) -> str:
        self._snapshots.append(self.head)
        return hex(len(self._snapshots) - 1)

    def _do_evm_revert(self, snapshot: str) -> bool:
        number = int(snapshot, 16)
        if number >= len(self._snapshots):
            return False
        head = self._snapshots[number]
        del self._snapshots[number:]
        for mined in self._blocks[head + 1 :]:
            del self._numbers[mined.block.hash]
            for transaction in mined.block.transactions:
                del self._transactions[transaction.hash]
        del self._blocks[head + 1 :]
        parent = self._blocks[head].block.header
        self._chain.header = self._chain.create_header_from_parent(parent)
        return True

    # Parts

    def _number(self, tag: str) -> int:
        if tag in ("latest", "pending"):
            return self.head
        if tag == "safe":
            return max(0, self.head - SAFE_LAG)
        if tag == "finalized":
            return max(0, self.head - FINALITY_LAG)
        return 0 if tag == "earliest" else int(tag, 16)

    def _header(self, tag: str) -> Any:
        """The header whose state root is the state after a block."""
        number = self._number(tag)
        if number > self.head:
            raise Refused(SERVER_ERROR, "header not found")
        if number == self.head:
            self._stamp()
            return self._chain.header
        return self._blocks[number].block.header

    def _state(self, tag: str) -> Any:
        return self._chain.get_vm(self._header(tag)).state

    def _free_state(self, tag: str) -> Any:
        """State in which gas costs nothing, so that a caller needs no money."""
        return self._chain.get_vm(self._header(tag).copy(base_fee_per_gas=0, gas_used=0)).state

    def _suffices(self, state: Any, call: dict[str, Any], gas: int) -> bool:
        try:
            return not self._execute(state, call, gas)[0].is_error
        except ValidationError:  # less than the price of the data alone
            return False

    def _execute(self, state: Any, call: dict[str, Any], gas: int) -> tuple[Any, int]:
        """Run a call and undo it; py-evm's computation and the intrinsic gas."""
        sender = parse_address(call["from"]) if call.get("from") else ZERO_ADDRESS
        builder = self._chain.get_vm().get_transaction_builder()
        unsigned = builder.new_unsigned_dynamic_fee_transaction(
            chain_id=CHAIN_ID,
            nonce=state.get_nonce(sender),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=gas,
            to=parse_address(call["to"]) if call.get("to") else b"",
            value=int(call.get("value") or "0x0", 16),
            data=_bytes(call.get("input") or call.get("data") or "0x"),
            access_list=(),
        )
        snapshot = state.snapshot()
        try:
            computation = state.apply_transaction(SpoofTransaction(unsigned, from_=sender))
            return computation, unsigned.intrinsic_gas
        finally:
            state.revert(snapshot)

    def _admit(self, transaction: SignedTransactionAPI, sender: bytes) -> None:
        """Refuse, in the words of common nodes, what cannot be mined now."""
        if getattr(transaction, "type_id", None) != DYNAMIC_FEE_TYPE:
            raise Refused(INVALID_PARAMS, "this chain takes transactions of type 2 only")
        if transaction.chain_id != CHAIN_ID:
            raise Refused(SERVER_ERROR, "invalid chain id for signer")
        if transaction.hash in self._transactions:
            raise Refused(SERVER_ERROR, "already known")
        state = self._state("latest")
        nonce = state.get_nonce(sender)
        if transaction.nonce < nonce:
            raise Refused(
                SERVER_ERROR, f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}"
            )
        if transaction.nonce > nonce:
            raise Refused(SERVER_ERROR, "nonce too high: this chain has no pool")
        if int(transaction.max_fee_per_gas) < self._base_fee():
            raise Refused(SERVER_ERROR, "max fee per gas less than block base fee")
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if state.get_balance(sender) < cost:
            raise Refused(SERVER_ERROR, "insufficient funds for gas * price + value")

    def _stamp(self) -> None:
        """Give the block in the making its time."""
        earliest = self._head_time() + 1
        wanted = self._next_time or int(time.time()) + self._ahead
        self._chain.set_header_timestamp(max(earliest, wanted))

    def _append(self, receipts: tuple[ReceiptAPI, ...]) -> None:
        block = self._chain.mine_block(mix_hash=os.urandom(32), blob_gas_used=0)
        self._blocks.append(_Mined(block, receipts))
        self._numbers[block.hash] = block.number
        self._next_time = None

    def _head_time(self) -> int:
        return int(self._blocks[-1].block.header.timestamp)

    def _base_fee(self) -> int:
        return int(self._chain.header.base_fee_per_gas)

    def _tip(self, number: int) -> int:
        block = self._blocks[number].block
        base_fee = block.header.base_fee_per_gas
        tips = [_effective_price(each, base_fee) - base_fee for each in block.transactions]
        return min(tips, default=0)

    # What requests are answered with

    def _block(self, number: int, full: bool) -> dict[str, Any]:
        block = self._blocks[number].block
        header: Any = block.header
        return {
            "number": hex(number),
            "hash": _hex(block.hash),
            "parentHash": _hex(header.parent_hash),
            "nonce": _hex(header.nonce),
            "sha3Uncles": _hex(header.uncles_hash),
            "logsBloom": _hex(header.bloom.to_bytes(256)),
            "transactionsRoot": _hex(header.transaction_root),
            "stateRoot": _hex(header.state_root),
            "receiptsRoot": _hex(header.receipt_root),
            "miner": _hex(header.coinbase),
            "difficulty": hex(header.difficulty),
            "totalDifficulty": hex(header.difficulty),
            "extraData": _hex(header.extra_data),
            "size": hex(len(rlp.encode(block))),
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "timestamp": hex(header.timestamp),
            "mixHash": _hex(header.mix_hash),
            "baseFeePerGas": hex(header.base_fee_per_gas),
            "blobGasUsed": hex(header.blob_gas_used),
            "excessBlobGas": hex(header.excess_blob_gas),
            "parentBeaconBlockRoot": _hex(header.parent_beacon_block_root),
            "requestsHash": _hex(header.requests_hash),
            "withdrawals": [],
            "withdrawalsRoot": _hex(header.withdrawals_root),
            "uncles": [],
            "transactions": [
                self._transaction(number, index) if full else _hex(transaction.hash)
                for index, transaction in enumerate(block.transactions)
            ],
        }

    def _transaction(self, number: int, index: int) -> dict[str, Any]:
        block = self._blocks[number].block
        transaction: Any = block.transactions[index]
        return {
            "type": hex(DYNAMIC_FEE_TYPE),
            "hash": _hex(transaction.hash),
            "chainId": hex(CHAIN_ID),
            "nonce": hex(transaction.nonce),
            "blockHash": _hex(block.hash),
            "blockNumber": hex(number),
            "transactionIndex": hex(index),
            "from": _hex(transaction.sender),
            "to": _hex(transaction.to) if transaction.to else None,
            "value": hex(transaction.value),
            "gas": hex(transaction.gas),
            "gasPrice": hex(_effective_price(transaction, block.header.base_fee_per_gas)),
            "maxFeePerGas": hex(transaction.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(transaction.max_priority_fee_per_gas),
            "input": _hex(transaction.data),
            "accessList": [],
            "v": hex(transaction.y_parity),
            "yParity": hex(transaction.y_parity),
            "r": hex(transaction.r),
            "s": hex(transaction.s),
        }

    def _receipt(self, number: int, index: int) -> dict[str, Any]:
        mined = self._blocks[number]
        transaction: Any = mined.block.transactions[index]
        receipt: Any = mined.receipts[index]
        created = keccak256(rlp_encode([transaction.sender, transaction.nonce]))[12:]
        return {
            "type": hex(DYNAMIC_FEE_TYPE),
            "status": "0x1" if receipt.state_root == b"\x01" else "0x0",
            "transactionHash": _hex(transaction.hash),
            "transactionIndex": hex(index),
            "blockHash": _hex(mined.block.hash),
            "blockNumber": hex(number),
            "from": _hex(transaction.sender),
            "to": _hex(transaction.to) if transaction.to else None,
            "contractAddress": None if transaction.to else _hex(created),
            "gasUsed": hex(receipt.gas_used),
            "cumulativeGasUsed": hex(receipt.gas_used),
            "effectiveGasPrice": hex(
                _effective_price(transaction, mined.block.header.base_fee_per_gas)
            ),
            "logsBloom": _hex(receipt.bloom.to_bytes(256)),
            "logs": self._logs(number),
        }

    def _logs(self, number: int) -> list[dict[str, Any]]:
        """The logs of a block; it has one transaction at most."""
        mined = self._blocks[number]
        return [
            {
                "address": _hex(log.address),
                "topics": [_hex(topic.to_bytes(32)) for topic in log.topics],
                "data": _hex(log.data),
                "blockNumber": hex(number),
                "blockHash": _hex(mined.block.hash),
                "transactionHash": _hex(mined.block.transactions[0].hash),
                "transactionIndex": "0x0",
                "logIndex": hex(index),
                "removed": False,
            }
            for receipt in mined.receipts
            for index, log in enumerate(receipt.logs)
        ]


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError("hexadecimal digits after 0x expected")
    return bytes.fromhex(text[2:])


def _topics_match(topics: list[str], wanted: list[Any]) -> bool:
    if len(wanted) > len(topics):
        return False
    return all(
        choice is None or topic in (choice if isinstance(choice, list) else [choice])
        for topic, choice in zip(topics, wanted, strict=False)
    )


def _effective_price(transaction: Any, base_fee: int) -> int:
    tip = min(transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas - base_fee)
    return int(base_fee + tip)


def _reverted(error: VMError) -> Refused:
    data = error.args[0] if error.args and isinstance(error.args[0], bytes) else None
    if data is None:
        return Refused(SERVER_ERROR, f"execution failed: {error}")
    message = "execution reverted"
    if data[:4] == _ERROR_SELECTOR:
        try:
            (reason,) = abi.decode(("bytes",), data[4:])
        except EthereumError:
            reason = b""
        assert isinstance(reason, bytes)
        message += f": {reason.decode(errors='replace')}"
    return Refused(REVERTED, message, _hex(data))
