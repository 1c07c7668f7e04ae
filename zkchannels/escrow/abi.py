"""The part of the contract ABI that the escrow and ERC-20 tokens use: words and byte strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from zkchannels.escrow.ethereum import ADDRESS_LENGTH, EthereumError, keccak256

WORD = 32

Value: TypeAlias = int | bytes | bool


class InvalidAbi(EthereumError):
    """Bytes that are no canonical encoding of the expected types, or a value out of its range."""


def selector(name: str, types: Sequence[str]) -> bytes:
    """First four bytes of a call."""
    return keccak256(f"{name}({','.join(types)})".encode())[:4]


def topic(name: str, types: Sequence[str]) -> bytes:
    """First topic of an event."""
    return keccak256(f"{name}({','.join(types)})".encode())


def encode(types: Sequence[str], values: Sequence[Value]) -> bytes:
    """Arguments of a call or data of an event. Raises InvalidAbi for values out of range."""
    head, tail = [], b""
    for kind, value in zip(types, values, strict=True):
        if kind != "bytes":
            head.append(_word(kind, value))
            continue
        if not isinstance(value, bytes):
            raise InvalidAbi("bytes expected")
        head.append((WORD * len(types) + len(tail)).to_bytes(WORD))
        tail += len(value).to_bytes(WORD) + value + bytes(-len(value) % WORD)
    return b"".join(head) + tail


def decode(types: Sequence[str], data: bytes) -> tuple[Value, ...]:
    """Values of a canonical encoding; raises InvalidAbi for any other bytes."""
    if len(data) < WORD * len(types):
        raise InvalidAbi("too short")
    values: list[Value] = []
    for index, kind in enumerate(types):
        word = data[WORD * index : WORD * (index + 1)]
        values.append(_tail(data, word) if kind == "bytes" else _value(kind, word))
    if encode(types, values) != data:
        raise InvalidAbi("not canonical")
    return tuple(values)


def _tail(data: bytes, word: bytes) -> bytes:
    start = int.from_bytes(word) + WORD
    length = int.from_bytes(data[start - WORD : start])
    if start > len(data) or length > len(data) - start:
        raise InvalidAbi("too short")
    return data[start : start + length]


def _word(kind: str, value: Value) -> bytes:
    if kind in ("address", "bytes32"):
        length = ADDRESS_LENGTH if kind == "address" else WORD
        if not isinstance(value, bytes) or len(value) != length:
            raise InvalidAbi(f"{kind} has {length} bytes")
        return value.rjust(WORD, b"\0")
    if not isinstance(value, int) or not 0 <= value < _limit(kind):
        raise InvalidAbi(f"out of the range of {kind}")
    return value.to_bytes(WORD)


def _value(kind: str, word: bytes) -> Value:
    if kind == "bytes32":
        return word
    if kind == "address":
        return word[-ADDRESS_LENGTH:]
    number = int.from_bytes(word)
    if number >= _limit(kind):
        raise InvalidAbi(f"out of the range of {kind}")
    return bool(number) if kind == "bool" else number


def _limit(kind: str) -> int:
    return 2 if kind == "bool" else 1 << int(kind.removeprefix("uint"))
