"""The fixed test vectors, byte for byte, with each backend and in both verifier modes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zkchannels.abacus import (
    CloseState,
    SecretKey,
    State,
    check_blinded,
    verify_closing,
    verify_establish,
    verify_lock_opening,
    verify_pay,
)
from zkchannels.abacus._backend import Backend
from zkchannels.abacus.transcript import Transcript

from .support import draws
from .vectors import (
    CASES,
    CHANNEL,
    ESTABLISH_CONTEXT,
    LOCKS,
    PAY_CONTEXT,
    compute,
    merchant_key,
    sha256,
)

FROZEN: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())


def test_each_backend_computes_the_frozen_vectors(backend: Backend) -> None:
    """What one backend made and was committed, both compute again to the last byte."""
    assert compute() == FROZEN


def test_the_numbers_of_the_specification() -> None:
    """Keys, hashes, nonce, challenges and proofs equal the values of the specification."""
    generators = FROZEN["generators"]
    case = FROZEN["cases"]["payment"]
    assert sha256(generators) == "70a4db8eb224d2402bf6eb8a86ffcf1750c787024adb08485cdcf642c8499274"
    assert generators[96:192] == (
        "8a8173c04353afa245c8e2e4d78cd95ebad3a35856d9c0315852d02e3a9041bc"
        "090781d672fb606bfd23a7d584639552"
    )
    assert generators[-96:] == (
        "b28f758e5699ed23aa1bfe4b03d7ddfccf1f47875eb156c5d55e61bc1210432f"
        "1abead23f0d8acf3117fc26f41680991"
    )
    assert sha256(FROZEN["public_key"]) == (
        "ccce192c0df1eba9dd5a4c0f9bae7fe266958761164b86bea6426707ff67a5b0"
    )
    assert FROZEN["key_digest"] == (
        "1f0cd9f805454098acb1345e60aba6d951d092668ed1d48c9c6efae9b7065eae"
        "be6998d7e63991b70a793fc1b01604ffa0a7310b59364c2f4f3d3c8c522a3af2"
    )
    assert FROZEN["channel_id"] == (
        "0dc36e6e76ec626f681393630c57c01eb3507b7869167993f521d0d6eb507cc2"
    )
    assert FROZEN["locks"] == [
        "115c354b2ff428dd7a75459dbbe6c0cd1bd4bca4cacfd256064302d49d12b7a5",
        "157991400ffbc63db3985911e055c427a3b738ef2d9ada479ec7565e219ddec5",
    ]
    assert case["establish_proof"][192:224] == "a527c7bfa66d13834d2368d36b31f25d"
    assert sha256(case["establish_proof"]) == (
        "8f7509a7d551a6852e1c5552b60409a5a8749437913a471e171d192498da1d82"
    )
    assert sha256(case["token"]) == (
        "d92a5d393eb1a236d17863e1279afa76e31eab26bec0a678ee174d8c2b40d72b"
    )
    assert case["nonce"] == "044d7f2519aee1d9679fe2d7b5664bb7893575bec4f05f053baf9060d46de7e6"
    assert case["pay_proof"][1056:1088] == "2eb5bd888c8d451789980d09f1044ec7"
    assert sha256(case["pay_proof"]) == (
        "3d5a0cdaae07ca0afb96f25cb883db05792e1de9fed518ea5058a8091fca8307"
    )


def test_the_transcript_of_the_specification() -> None:
    """A wide and then a short challenge equal the values of the specification."""
    transcript = Transcript(b"test")
    transcript.absorb(b"a", b"")
    transcript.absorb(b"b", b"\x01\x02")
    wide = 0x4EE9AD7A1CB9FB20553045145E0C8A3FDC3CE37E348699D28CDDFEEFC695C9EE
    assert transcript.wide_challenge(b"y") == wide
    assert transcript.short_challenge(b"x") == 0xBA21826547A86D656D50A778C033372F


@pytest.mark.parametrize("mode", ["public", "owner"])
@pytest.mark.parametrize("name", CASES)
def test_the_frozen_vectors_are_accepted(backend: Backend, mode: str, name: str) -> None:
    """Every proof and signature of the vectors is accepted, and nothing but the stated values."""
    case = FROZEN["cases"][name]
    key = merchant_key(draws())
    verifier = key if mode == "owner" else key.public
    customer, merchant, amount = CASES[name]
    first = State(CHANNEL, int(case["nonce"], 16), LOCKS[0], customer, merchant)
    close = CloseState(CHANNEL, LOCKS[1], customer - amount, merchant + amount)
    token = bytes.fromhex(case["token"])

    verify_establish(
        verifier,
        ESTABLISH_CONTEXT,
        CHANNEL,
        customer,
        merchant,
        bytes.fromhex(case["establish_proof"]),
    )
    check_blinded(key.public, token, first, int(case["token_blinding"], 16))
    commitments = verify_pay(
        verifier, PAY_CONTEXT, first.nonce, amount, bytes.fromhex(case["pay_proof"])
    )
    answer = bytes.fromhex(case["closing_answer"])
    check_blinded(key.public, answer, close, int(case["close_blinding"], 16))
    assert verify_lock_opening(commitments.lock, int(case["lock_blinding"], 16), LOCKS[0])
    assert verify_closing(key.public, close, bytes.fromhex(case["closing_authorization"]))


def test_a_key_survives_its_bytes(backend: Backend) -> None:
    """Secret and public keys, and the escrow's form of the latter, are read back equal."""
    key = SecretKey.from_bytes(
        bytes.fromhex(FROZEN["secret_key"]), expected=bytes.fromhex(FROZEN["public_key"])
    )
    escrow_key = bytes.fromhex(FROZEN["escrow_key"])
    again = type(key.public).from_escrow(key.public.g1_half(), escrow_key)
    assert again == key.public
    assert again.to_escrow_key() == escrow_key
