"""Deployment: what the constructor refuses, the views, and the artefact that is committed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.ps import Key, R, encode
from tests.contract.world import DELAY, UNIT, Escrow, World
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import ChainRefused, DevChain
from zkchannels.escrow import artefact, calls
from zkchannels.escrow import compile as compiler
from zkchannels.escrow.ethereum import checksum

MERCHANT = DEV_KEYS[1].address
COIN = bytes(20)


def _reason(chain: DevChain, data: bytes) -> str:
    request = {"from": checksum(DEV_KEYS[0].address), "data": "0x" + data.hex()}
    with pytest.raises(ChainRefused) as refused:
        chain.call("eth_call", request, "latest")
    return refused.value.reason


def test_the_views_show_what_was_deployed(world: World) -> None:
    """Merchant, asset, unit, delay and key can be read back."""
    chain, escrow = world.chain, world.escrow

    def view(data: bytes) -> bytes:
        return chain.view(escrow.address, data)

    assert calls.decode_address(view(calls.merchant())) == escrow.merchant.address
    assert calls.decode_address(view(calls.asset())) == escrow.token
    assert calls.decode_number(view(calls.unit())) == UNIT
    assert calls.decode_number(view(calls.delay())) == DELAY
    assert calls.decode_bytes(view(calls.key())) == escrow.key.public


def test_deployed_code_is_recognised(chain: DevChain) -> None:
    """Code deployed from the artefact matches it, with any immutables; other code does not."""
    for key in (Key(), Key()):
        address = Escrow.deploy(chain, key=key).address
        code = bytes.fromhex(chain.call("eth_getCode", checksum(address), "latest")[2:])
        assert artefact.matches_artefact(code)
        assert not artefact.matches_artefact(code[:-1])
        assert not artefact.matches_artefact(code + b"\0")
        assert not artefact.matches_artefact(bytes([code[0] ^ 1]) + code[1:])
    token = chain.deploy(DEV_KEYS[0], artefact.token_deployment_data())
    code = bytes.fromhex(chain.call("eth_getCode", checksum(token), "latest")[2:])
    assert not artefact.matches_artefact(code)
    assert not artefact.matches_artefact(b"")


@pytest.mark.parametrize(
    ("merchant", "unit", "delay", "reason"),
    [
        (COIN, 1, 1, "merchant"),
        (MERCHANT, 0, 1, "unit"),
        (MERCHANT, 2**128 + 1, 1, "unit"),
        (MERCHANT, 1, 0, "delay"),
        (MERCHANT, 1, 366 * 86400 + 1, "delay"),
    ],
)
def test_senseless_terms_are_refused(
    chain: DevChain, merchant: bytes, unit: int, delay: int, reason: str
) -> None:
    """A deployment without merchant, unit or delay, or with absurd ones, reverts."""
    data = artefact.deployment_data(merchant, COIN, unit, delay, Key().public)
    assert _reason(chain, data) == reason


@pytest.mark.parametrize("element", range(1, 7))
@pytest.mark.parametrize("fault", ["off the curve", "outside the subgroup", "padding"])
def test_a_malformed_key_is_refused(chain: DevChain, element: int, fault: str) -> None:
    """Every element of the key is a point of the group, or nobody could ever close."""
    key = bytearray(Key().public)
    start = 256 * element
    if fault == "off the curve":
        key[start + 255] ^= 1
    elif fault == "padding":
        key[start] = 1
    else:
        key[start : start + 256] = _outside_subgroup()
    data = artefact.deployment_data(MERCHANT, COIN, 1, 1, bytes(key))
    with pytest.raises(ChainRefused):
        chain.call(
            "eth_call", {"from": checksum(DEV_KEYS[0].address), "data": "0x" + data.hex()}, "latest"
        )


def _outside_subgroup() -> bytes:
    """A point of the twisted curve that is not in the group of order r: y^2 = x^3 + 4 (1 + u)."""
    from py_ecc.fields import optimized_bls12_381_FQ2 as Fq2
    from py_ecc.optimized_bls12_381 import optimized_curve as curve
    from py_ecc.optimized_bls12_381.optimized_swu import sqrt_division_FQ2

    for number in range(1, 50):
        x = Fq2([number, 1])
        square, root = sqrt_division_FQ2(x * x * x + curve.b2, Fq2.one())
        point = (x, root, Fq2.one())
        if (
            square
            and curve.is_on_curve(point, curve.b2)
            and not curve.is_inf(curve.multiply(point, curve.curve_order))
        ):
            coordinates = (*x.coeffs, *root.coeffs)
            return b"".join(int(value).to_bytes(64) for value in coordinates)
    raise AssertionError("half of all x have a point")


def test_another_generator_is_refused(chain: DevChain) -> None:
    """The key's first element is the negated standard generator and no multiple of it."""
    from py_arkworks_bls12381 import G2Point

    key = Key().public
    for other in (encode(G2Point()), encode(-(G2Point() + G2Point()))):
        data = artefact.deployment_data(MERCHANT, COIN, 1, 1, other + key[256:])
        assert _reason(chain, data) == "key"


def test_a_key_of_another_length_is_refused(chain: DevChain) -> None:
    """A key has exactly seven elements."""
    whole = artefact.deployment_data(MERCHANT, COIN, 1, 1, Key().public)
    length = len(artefact.load("Escrow").bytecode) + 160
    shorter = whole[:length] + (1536).to_bytes(32) + whole[length + 32 : -256]
    assert _reason(chain, shorter) == "key"


def test_a_chain_without_the_precompiles_is_refused() -> None:
    """Before Prague the pairing precompile answers nothing, successfully: deployment reverts."""
    with Anvil(hardfork="cancun") as chain:
        data = artefact.deployment_data(MERCHANT, COIN, 1, 1, Key().public)
        assert _reason(chain, data) == "no EIP-2537"


def test_missing_precompiles_prove_nothing(shared_anvil: Anvil) -> None:
    """If the precompiles vanished, no close would pass for verified, not even a senseless one."""
    escrow = Escrow.deploy(shared_anvil)
    code = shared_anvil.call("eth_getCode", checksum(escrow.address), "latest")
    with Anvil(hardfork="cancun") as chain:
        chain.call("anvil_setCode", checksum(escrow.address), code)
        world = World(Escrow(chain, escrow.address, COIN, escrow.key, escrow.merchant))
        channel = world.open()
        good = world.close_call(channel, bytes(32))
        assert world.refusal(world.customer, good) == "no EIP-2537"
        point = bytes(127) + b"\x01"
        senseless = calls.close(channel, 1, 700, 0, point + point)
        assert world.refusal(world.customer, senseless) == "no EIP-2537"


def test_no_price_of_a_precompile_is_written_down() -> None:
    """Gas is named for payouts alone: a repricing of the precompiles must not lock deposits."""
    source = Path(compiler.__file__).with_name("Escrow.vy").read_text(encoding="utf-8")
    assert re.findall(r"\bgas=\w+", source) == ["gas=PAYOUT_GAS"]


@pytest.mark.parametrize("name", compiler.CONTRACTS)
def test_the_artefact_is_the_source(name: str) -> None:
    """Compiling again gives the committed artefact, byte for byte."""
    source = Path(compiler.__file__).with_name(f"{name}.vy")
    committed = source.with_suffix(".json").read_text(encoding="utf-8")
    assert committed == compiler.rendered(compiler.compiled(source))


def test_scalars_are_below_the_order() -> None:
    """Channel ids and locks, below 2**253, are canonical scalars."""
    assert R > 2**253
