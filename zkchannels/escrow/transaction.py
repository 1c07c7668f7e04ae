"""Transactions of type 2 (EIP-1559): encoding, signing digest and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zkchannels.escrow.ethereum import (
    ADDRESS_LENGTH,
    SIGNATURE_LENGTH,
    EthereumError,
    keccak256,
    recover,
)

TYPE = b"\x02"
DEEPEST = 4  # an access list is three lists deep; without a bound hostile bytes exhaust the stack

RlpItem: TypeAlias = "int | bytes | Sequence[RlpItem]"
RlpTree: TypeAlias = "bytes | list[RlpTree]"


class InvalidTransaction(EthereumError):
    """The bytes are not a signed transaction of type 2 in its only encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What an account signs. Amounts in wei; `to` is None for a deployment."""

    chain_id: int
    nonce: int
    tip: int
    max_fee: int
    gas: int
    to: bytes | None
    value: int
    data: bytes

    def signing_digest(self) -> bytes:
        """The 32 bytes that the sender signs."""
        return keccak256(TYPE + rlp_encode(self._fields()))

    def with_signature(self, signature: bytes) -> bytes:
        """Raw transaction, ready for `eth_sendRawTransaction`, from a signature r|s|v."""
        if len(signature) != SIGNATURE_LENGTH or signature[64] not in (27, 28):
            raise InvalidTransaction("a signature has 65 bytes and v is 27 or 28")
        scalars = (int.from_bytes(signature[:32]), int.from_bytes(signature[32:64]))
        return TYPE + rlp_encode([*self._fields(), signature[64] - 27, *scalars])

    def _fields(self) -> list[RlpItem]:
        fees = [self.tip, self.max_fee, self.gas]
        return [self.chain_id, self.nonce, *fees, self.to or b"", self.value, self.data, []]


def transaction_hash(raw: bytes) -> bytes:
    """The 32 bytes by which the chain knows a raw transaction."""
    return keccak256(raw)


def decode_raw(raw: bytes) -> tuple[Transaction, bytes]:
    """The transaction inside a raw one, and its sender's address.

    Raises InvalidTransaction for anything but a canonical transaction of type 2 with an empty
    access list, which is all this project makes, and InvalidEcdsaSignature if nobody signed it.
    """
    if raw[:1] != TYPE:
        raise InvalidTransaction("not a transaction of type 2")
    fields = rlp_decode(raw[1:])
    if not isinstance(fields, list) or len(fields) != 12 or fields[8] != []:
        raise InvalidTransaction("not the fields of a transaction without access list")
    numbers = [_number(fields[i]) for i in (0, 1, 2, 3, 4, 6, 9, 10, 11)]
    to, data = fields[5], fields[7]
    if not isinstance(to, bytes) or len(to) not in (0, ADDRESS_LENGTH):
        raise InvalidTransaction("bad receiver")
    if not isinstance(data, bytes):
        raise InvalidTransaction("bad data")
    chain_id, nonce, tip, max_fee, gas, value, parity, r, s = numbers
    transaction = Transaction(
        chain_id=chain_id,
        nonce=nonce,
        tip=tip,
        max_fee=max_fee,
        gas=gas,
        to=to or None,
        value=value,
        data=data,
    )
    if parity > 1:
        raise InvalidTransaction("bad signature parity")
    signature = r.to_bytes(32) + s.to_bytes(32) + bytes([27 + parity])
    return transaction, recover(transaction.signing_digest(), signature)


def rlp_encode(item: RlpItem) -> bytes:
    """Recursive length prefix (yellow paper, appendix B) of bytes, non-negative ints and lists."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8)
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _prefix(len(item), 0x80) + item
    body = b"".join(rlp_encode(part) for part in item)
    return _prefix(len(body), 0xC0) + body


def rlp_decode(data: bytes) -> RlpTree:
    """The only tree whose encoding is exactly these bytes; raises InvalidTransaction."""
    tree, rest = _decode_one(data, depth=0)
    if rest or rlp_encode(tree) != data:
        raise InvalidTransaction("not canonical RLP")
    return tree


def _prefix(length: int, offset: int) -> bytes:
    if length < 56:
        return bytes([offset + length])
    digits = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([offset + 55 + len(digits)]) + digits


def _decode_one(data: bytes, *, depth: int) -> tuple[RlpTree, bytes]:
    if not data:
        raise InvalidTransaction("truncated RLP")
    if depth > DEEPEST:
        raise InvalidTransaction("RLP nested too deep")
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    offset = 0x80 if first < 0xC0 else 0xC0
    length, start = first - offset, 1
    if length > 55:
        start += length - 55
        length = int.from_bytes(data[1:start])
    body, rest = data[start : start + length], data[start + length :]
    if len(body) != length:
        raise InvalidTransaction("truncated RLP")
    if offset == 0x80:
        return body, rest
    parts: list[RlpTree] = []
    while body:
        part, body = _decode_one(body, depth=depth + 1)
        parts.append(part)
    return parts, rest


def _number(field: RlpTree) -> int:
    if not isinstance(field, bytes) or len(field) > 32 or field[:1] == b"\0":
        raise InvalidTransaction("bad number")
    return int.from_bytes(field)
