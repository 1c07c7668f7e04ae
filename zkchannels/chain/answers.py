"""Turn a node's JSON into values, refusing whatever does not have the documented form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from zkchannels.chain.errors import (
    ChainError,
    InsufficientFunds,
    MalformedAnswer,
    Reverted,
)
from zkchannels.chain.model import Block, FeeSuggestion, Log, Receipt, SendOutcome

T = TypeVar("T")

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_ERROR_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_REVERTED = 3  # code that geth, reth and anvil give to a revert

_INSUFFICIENT = re.compile(r"\binsufficient (funds|balance)\b", re.IGNORECASE)

# What the nodes in use (geth, reth, nethermind, anvil, py-evm) say. "Unknown transaction type" is
# none of it: hence the word boundaries.
_REFUSALS = tuple(
    (outcome, re.compile(pattern, re.IGNORECASE))
    for outcome, pattern in (
        (SendOutcome.ALREADY_KNOWN, r"\b(already (known|imported)|known transaction)\b"),
        (SendOutcome.NONCE_TOO_LOW, r"\b(nonce (is )?too low|oldnonce)\b"),
        (
            SendOutcome.UNDERPRICED,
            r"\b(underpriced|less than block base fee|feecap too low|fee too low)\b",
        ),
    )
)


class ErrorObject(msgspec.Struct):
    """The `error` member of a JSON-RPC answer."""

    code: int
    message: str
    data: object = None


class Answer(msgspec.Struct):
    """A JSON-RPC answer whose result is still text."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorObject | None = None


class _Block(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str
    base_fee_per_gas: str = "0x0"


class _Log(msgspec.Struct, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str


class _Receipt(msgspec.Struct, rename="camel"):
    transaction_hash: str
    block_number: str
    block_hash: str
    status: str
    gas_used: str
    effective_gas_price: str = "0x0"
    contract_address: str | None = None


class _FeeHistory(msgspec.Struct, rename="camel"):
    base_fee_per_gas: list[str]
    reward: list[list[str]] | None = None


def quantity(text: str) -> int:
    """Return the integer of a hexadecimal quantity of at most 256 bits."""
    if not _QUANTITY.fullmatch(text):
        raise MalformedAnswer("not a hexadecimal quantity")
    return int(text, 16)


def counter(text: str) -> int:
    """Return a quantity that counts something and fits the database's integers (63 bits)."""
    value = quantity(text)
    if value >> 63:
        raise MalformedAnswer("a counter that large is none")
    return value


def binary(text: str, length: int | None = None) -> bytes:
    """Return the bytes of `0x` text, of exactly `length` bytes when that is given."""
    try:
        if not text.startswith("0x"):
            raise ValueError
        value = bytes.fromhex(text[2:])
    except ValueError:
        raise MalformedAnswer("not hexadecimal data") from None
    if length is not None and len(value) != length:
        raise MalformedAnswer(f"{len(value)} bytes where {length} belong")
    return value


def plain(form: type[T]) -> Callable[[msgspec.Raw], T]:
    """Return a reader of results that have exactly the given type."""

    def read(raw: msgspec.Raw) -> T:
        try:
            return msgspec.json.decode(raw, type=form)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedAnswer(str(error)) from None

    return read


def as_quantity(raw: msgspec.Raw) -> int:
    """Read a result that is one quantity."""
    return quantity(plain(str)(raw))


def as_binary(raw: msgspec.Raw) -> bytes:
    """Read a result that is hexadecimal data of any length."""
    return binary(plain(str)(raw))


def as_block(raw: msgspec.Raw) -> Block | None:
    """Read a block; None when the node does not have it."""
    found = _optional_block(raw)
    if found is None:
        return None
    return Block(
        number=counter(found.number),
        hash=binary(found.hash, 32),
        parent_hash=binary(found.parent_hash, 32),
        timestamp=counter(found.timestamp),
        base_fee=counter(found.base_fee_per_gas),
    )


def as_logs(raw: msgspec.Raw) -> list[Log]:
    """Read the logs that `eth_getLogs` gives, in the order of the chain."""
    return [
        Log(
            address=binary(log.address, 20),
            topics=tuple(binary(topic, 32) for topic in log.topics),
            data=binary(log.data),
            block_number=counter(log.block_number),
            block_hash=binary(log.block_hash, 32),
            transaction_hash=binary(log.transaction_hash, 32),
            log_index=counter(log.log_index),
        )
        for log in _logs(raw)
    ]


def as_receipt(raw: msgspec.Raw) -> Receipt | None:
    """Read a receipt; None while the transaction is in no block the node knows."""
    found = _optional_receipt(raw)
    if found is None:
        return None
    return Receipt(
        transaction_hash=binary(found.transaction_hash, 32),
        block_number=counter(found.block_number),
        block_hash=binary(found.block_hash, 32),
        succeeded=quantity(found.status) == 1,
        gas_used=counter(found.gas_used),
        gas_price=quantity(found.effective_gas_price),
        contract=None if found.contract_address is None else binary(found.contract_address, 20),
    )


def as_fees(raw: msgspec.Raw) -> FeeSuggestion:
    """Read `eth_feeHistory` with one percentile: next base fee, median of the blocks' tips."""
    history = _fee_history(raw)
    if not history.base_fee_per_gas:
        raise MalformedAnswer("a fee history without base fees")
    tips = sorted(quantity(row[0]) for row in history.reward or [] if row)
    return FeeSuggestion(
        base_fee=quantity(history.base_fee_per_gas[-1]),
        tip=tips[len(tips) // 2] if tips else 0,
    )


def chain_error(error: ErrorObject) -> ChainError:
    """Return the exception for an error object; a revert comes with the contract's reason."""
    if _INSUFFICIENT.search(error.message):
        return InsufficientFunds(error.code, error.message, error.data)
    if error.code != _REVERTED and "revert" not in error.message.lower():
        return ChainError(error.code, error.message, error.data)
    reason = _revert_reason(error.data)
    return Reverted(error.code, error.message, error.data, reason)


def send_outcome(error: ChainError) -> SendOutcome | None:
    """Return which ordinary refusal of a transaction this is; None for any other error."""
    if isinstance(error, InsufficientFunds):
        return SendOutcome.INSUFFICIENT_FUNDS
    for outcome, pattern in _REFUSALS:
        if pattern.search(error.message):
            return outcome
    return None


def _revert_reason(data: object) -> str:
    """Decode Error(string) of the Solidity ABI; empty for anything else."""
    if not isinstance(data, str):
        return ""
    try:
        raw = binary(data)
    except MalformedAnswer:
        return ""
    if raw[:4] != _ERROR_SELECTOR or len(raw) < 68:
        return ""
    length = int.from_bytes(raw[36:68], "big")
    return raw[68 : 68 + min(length, 1024)].decode("utf-8", "replace")


_optional_block = plain(_Block | None)  # type: ignore[arg-type]  # a union is no class
_optional_receipt = plain(_Receipt | None)  # type: ignore[arg-type]  # a union is no class
_logs = plain(list[_Log])
_fee_history = plain(_FeeHistory)
