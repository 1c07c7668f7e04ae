"""A merchant whose word is not what stands in its escrow: no channel is opened with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.adversary.arena import Arena
from zkchannels.abacus import SecretKey
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.escrow.artefact import deployment_data
from zkchannels.escrow.ethereum import ZERO_ADDRESS, checksum
from zkchannels.wire import merchant as wire

UNIT = 10**9
FALSE: dict[str, dict[str, Any]] = {
    "another key": {"g1_half": SecretKey.generate().public.g1_half()},
    "a key outside of the group": {"g1_half": (bytes([0x80]) + bytes(46) + b"\x02") * 5},
    "another unit": {"unit": 1},
    "a longer delay": {"delay": 10**6},
    "another token": {"token": b"\x11" * 20},
    "another chain": {"chain_id": 1},
}


def welcome(arena: Arena, key: SecretKey, **changed: Any) -> dict[str, Any]:
    """Return what the merchant says of an escrow with this key, in JSON's types."""
    said: dict[str, Any] = {
        "version": wire.PROTOCOL_VERSION,
        "chain_id": arena.network.chain.chain_id,
        "token": ZERO_ADDRESS,
        "symbol": "ETH",
        "decimals": 18,
        "unit": UNIT,
        "delay": arena.network.delay,
        "confirmations": 1,
        "minimum_deposit": 1,
        "maximum_deposit": 2**63 - 1,
        "g1_half": key.public.g1_half(),
    }
    built: dict[str, Any] = msgspec.to_builtins({**said, **changed})
    return built


def deployed(arena: Arena, key: SecretKey) -> bytes:
    """Deploy an escrow with this key."""
    merchant = DEV_KEYS[3]
    data = deployment_data(
        merchant.address, ZERO_ADDRESS, UNIT, arena.network.delay, key.public.to_escrow_key()
    )
    return arena.network.chain.deploy(merchant, data)


def at(arena: Arena, escrow: bytes) -> str:
    """Return the address of the adversary with another escrow."""
    return arena.network.merchants["coffee"].address.rpartition("/")[0] + "/" + checksum(escrow)


def test_terms_that_are_not_the_escrows_are_refused(arena: Arena) -> None:
    """Another key, unit, delay, token or chain than the contract's: no channel is opened."""
    key = SecretKey.generate()
    escrow = deployed(arena, key)
    known = arena.network.merchants["coffee"].address
    arena.establish("1 ETH")
    for what, changed in FALSE.items():
        arena.order(hello={"do": "answer", "result": welcome(arena, key, **changed)})
        for address in (at(arena, escrow), known):
            refusal = arena.refused("establish", merchant=address, deposit="1 ETH", label="false")
            assert refusal["kind"] == "merchant_misbehaved", (what, refusal)
    assert arena.network.chain.logs(escrow) == []
    assert arena.refused("show", label="false")["kind"] == "not_found"
    arena.unhurt()
    arena.others_pay()


@pytest.mark.parametrize("place", [100, 4000])
def test_code_that_is_not_the_escrows_is_refused(arena: Arena, place: int) -> None:
    """One other byte in the contract's code, and it is no escrow."""
    key = SecretKey.generate()
    chain = arena.network.chain
    code = bytearray.fromhex(
        chain.call("eth_getCode", checksum(deployed(arena, key)), "latest")[2:]
    )
    code[place] ^= 1
    # A constructor that does nothing but return what follows it.
    constructor = bytes([0x61, *len(code).to_bytes(2), *bytes.fromhex("80600a3d393df3")])
    other = chain.deploy(DEV_KEYS[3], constructor + code)
    arena.order(hello={"do": "answer", "result": welcome(arena, key)})
    refusal = arena.refused("establish", merchant=at(arena, other), deposit="1 ETH", label="code")
    assert refusal["kind"] == "invalid_address", refusal
    arena.unhurt()
