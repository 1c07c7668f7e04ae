"""The compiled contracts as committed: ABI, deployment data, recognition of deployed code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zkchannels.escrow.ethereum import ADDRESS_LENGTH, EthereumError

KEY_LENGTH = 1792

_CONTRACTS = ("Escrow", "TestToken")


@dataclass(frozen=True, slots=True)
class Artefact:
    """One compiled contract."""

    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime_bytecode: bytes
    immutables_length: int
    source_sha256: str
    compiler: str


@cache
def load(name: str) -> Artefact:
    """The committed artefact of `Escrow` or `TestToken`."""
    if name not in _CONTRACTS:
        raise EthereumError(f"no contract is called {name!r}")
    document = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    return Artefact(
        abi=document["abi"],
        bytecode=bytes.fromhex(document["bytecode"][2:]),
        runtime_bytecode=bytes.fromhex(document["runtime_bytecode"][2:]),
        immutables_length=document["immutables_length"],
        source_sha256=document["source_sha256"],
        compiler=document["compiler"],
    )


def deployment_data(merchant: bytes, token: bytes, unit: int, delay: int, key: bytes) -> bytes:
    """Data of the transaction that deploys an escrow.

    `token` is 20 zero bytes for the native coin, `unit` counts base units of the asset, `delay`
    seconds, `key` is `-g2 | X2 | Y2_1..5` in the encoding of EIP-2537.
    """
    if len(merchant) != ADDRESS_LENGTH or len(token) != ADDRESS_LENGTH:
        raise EthereumError("an address has 20 bytes")
    if len(key) != KEY_LENGTH:
        raise EthereumError(f"a key has {KEY_LENGTH} bytes")
    words = (merchant.rjust(32, b"\0"), token.rjust(32, b"\0"), unit.to_bytes(32))
    head = b"".join(words) + delay.to_bytes(32) + (160).to_bytes(32)
    return load("Escrow").bytecode + head + len(key).to_bytes(32) + key


def token_deployment_data() -> bytes:
    """Data of the transaction that deploys the test token."""
    return load("TestToken").bytecode


def matches_artefact(code: bytes) -> bool:
    """Whether deployed code is the escrow's, whatever its immutables.

    Vyper appends the immutables (merchant, asset, unit, delay, key) behind the code; the contract's
    views show them.
    """
    escrow = load("Escrow")
    length = len(escrow.runtime_bytecode)
    return code[:length] == escrow.runtime_bytecode and (
        len(code) == length + escrow.immutables_length
    )
