"""What a node tells us, as plain values: blocks, logs, receipts, fees."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header; hashes are 32 bytes, `timestamp` is seconds, `base_fee` is wei per gas."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    base_fee: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event as a contract emitted it; `(block_hash, log_index)` is unique on all forks."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a transaction was included and whether it succeeded; contract: what it created."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    gas_price: int
    contract: bytes | None


@dataclass(frozen=True, slots=True)
class FeeSuggestion:
    """Base fee of the next block and the usual tip, both in wei per gas."""

    base_fee: int
    tip: int


class SendOutcome(Enum):
    """What a node said to a signed transaction."""

    ACCEPTED = "accepted"
    ALREADY_KNOWN = "already known"
    NONCE_TOO_LOW = "nonce too low"
    UNDERPRICED = "underpriced"
    INSUFFICIENT_FUNDS = "insufficient funds"
