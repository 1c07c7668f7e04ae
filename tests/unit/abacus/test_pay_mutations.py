"""An honest pay proof, changed in one place or asked about something else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest

from zkchannels.abacus import (
    CLOSE,
    MAX_BALANCE,
    PAY_PROOF_LENGTH,
    InvalidProof,
    PublicKey,
    R,
    SecretKey,
    context,
    prove_pay,
    use_backend,
    verify_pay,
)
from zkchannels.abacus.keys import points_of

from .support import CHAIN, CONTEXT, ESCROW, Customer, Tokened, Verifier

AMOUNT = 100
G1_FIELDS = [*range(0, 288, 48), *range(384, 528, 48)]
TOKEN_MASK = 288
CHALLENGE = 528
RESPONSES = list(range(544, 896, 32))
DIGITS = list(range(896, PAY_PROOF_LENGTH, 32))
INFINITY = b"\xc0" + bytes(47)


@pytest.fixture(scope="session")
def proof(merchant: SecretKey, opened: Tokened) -> bytes:
    """Return an honest pay proof."""
    customer = Customer(merchant)
    new, blindings = customer.next_state(opened.state, AMOUNT)
    return prove_pay(
        merchant.public,
        CONTEXT,
        opened.state,
        opened.token,
        opened.blinding,
        new,
        AMOUNT,
        blindings,
    )


def put(proof: bytes, at: int, data: bytes) -> bytes:
    """Return the proof with other bytes at a place."""
    return proof[:at] + data + proof[at + len(data) :]


def swap(proof: bytes, first: int, second: int, length: int) -> bytes:
    """Return the proof with two fields exchanged."""
    one, two = proof[first : first + length], proof[second : second + length]
    return put(put(proof, first, two), second, one)


def negated(proof: bytes, at: int) -> bytes:
    """Return the proof with the point at a place negated: the sign bit of its encoding."""
    return put(proof, at, bytes([proof[at] ^ 0x20]))


def scalars(proof: bytes) -> Iterator[tuple[int, int]]:
    """Yield place and value of every response."""
    for at in (*RESPONSES, *DIGITS):
        yield at, int.from_bytes(proof[at : at + 32], "big")


def refused(verifier: Verifier, token: Tokened, proof: bytes) -> None:
    """Fail unless the proof is refused, with the one message of all refusals."""
    with pytest.raises(InvalidProof, match=r"^the proof is not valid$"):
        verify_pay(verifier, CONTEXT, token.state.nonce, AMOUNT, proof)


def test_the_honest_proof_is_accepted(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """The proof that the other tests change is accepted, and its commitments are returned."""
    commitments = verify_pay(verifier, CONTEXT, opened.state.nonce, AMOUNT, proof)
    assert commitments.state + commitments.close + commitments.lock == proof[96:240]


def test_changed_scalars_are_refused(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """Every response plus one, and plus the group order, is refused."""
    for at, value in scalars(proof):
        refused(verifier, opened, put(proof, at, ((value + 1) % R).to_bytes(32, "big")))
        refused(verifier, opened, put(proof, at, (value + R).to_bytes(32, "big")))


def test_swapped_scalars_are_refused(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """Responses exchanged pairwise are refused."""
    neighbours = pairwise(DIGITS)
    for first, second in (*combinations(RESPONSES, 2), *neighbours, (RESPONSES[-1], DIGITS[0])):
        refused(verifier, opened, swap(proof, first, second, 32))


def test_changed_points_are_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, proof: bytes
) -> None:
    """Every point negated, replaced by the identity or moved by g1 is refused."""
    points = points_of(merchant.public)
    for at in G1_FIELDS:
        refused(verifier, opened, negated(proof, at))
        refused(verifier, opened, put(proof, at, INFINITY))
        moved = points.backend.decode_g1(proof[at : at + 48]) + points.backend.g1
        refused(verifier, opened, put(proof, at, points.backend.encode_g1(moved)))
    refused(verifier, opened, negated(proof, TOKEN_MASK))
    refused(verifier, opened, put(proof, TOKEN_MASK, b"\xc0" + bytes(95)))
    mask = points.backend.decode_g2(proof[TOKEN_MASK : TOKEN_MASK + 96]) + points.backend.g2
    refused(verifier, opened, put(proof, TOKEN_MASK, points.backend.encode_g2(mask)))


def test_swapped_points_are_refused(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """Points exchanged pairwise are refused."""
    for first, second in combinations(G1_FIELDS, 2):
        refused(verifier, opened, swap(proof, first, second, 48))


def test_other_challenges_are_refused(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """A challenge of zero, and one more than the right one, are refused."""
    x = int.from_bytes(proof[CHALLENGE : CHALLENGE + 16], "big")
    refused(verifier, opened, put(proof, CHALLENGE, bytes(16)))
    refused(verifier, opened, put(proof, CHALLENGE, ((x + 1) % 2**128).to_bytes(16, "big")))


def test_a_proof_of_nothing_with_a_zero_challenge_is_refused(
    verifier: Verifier, opened: Tokened
) -> None:
    """With x = 0 all equations but the hash hold for zeros: such a proof is refused at once."""
    empty = put(bytes(PAY_PROOF_LENGTH), 0, INFINITY)
    refused(verifier, opened, empty)


@pytest.mark.parametrize("length", [0, 1, PAY_PROOF_LENGTH - 32, PAY_PROOF_LENGTH - 1])
def test_other_lengths_are_refused(
    verifier: Verifier, opened: Tokened, proof: bytes, length: int
) -> None:
    """A proof that is shorter or longer is refused."""
    refused(verifier, opened, proof[:length])
    refused(verifier, opened, proof + proof[length : length + 1])


def test_another_statement_is_refused(verifier: Verifier, opened: Tokened, proof: bytes) -> None:
    """The proof holds for one nonce, one amount and one context only."""
    nonce = opened.state.nonce
    for other in (nonce + 1, nonce + R, nonce - R, CLOSE, CLOSE + R, 0, -1, R, 2**256):
        with pytest.raises(InvalidProof):
            verify_pay(verifier, CONTEXT, other, AMOUNT, proof)
    for amount in (99, 101, -100, 0, 100 - R, 100 + R, MAX_BALANCE + 1, -(2**63), 2**200):
        with pytest.raises(InvalidProof):
            verify_pay(verifier, CONTEXT, nonce, amount, proof)
    for changed in (
        context(CHAIN + 1, ESCROW, b"\x44" * 16),
        context(CHAIN, b"\x12" * 20, b"\x44" * 16),
        context(CHAIN, ESCROW, b"\x45" * 16),
        CONTEXT[:-1],
    ):
        with pytest.raises(InvalidProof):
            verify_pay(verifier, changed, nonce, AMOUNT, proof)


def test_another_key_is_refused(opened: Tokened, proof: bytes) -> None:
    """The proof holds under one key only, in both modes."""
    other = SecretKey.generate()
    for key in (other, other.public):
        with pytest.raises(InvalidProof):
            verify_pay(key, CONTEXT, opened.state.nonce, AMOUNT, proof)


def test_one_key_in_two_escrows_shares_no_proof(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, proof: bytes
) -> None:
    """Even where a key were used for two escrows, a proof made for one fails in the other."""
    with pytest.raises(InvalidProof):
        verify_pay(
            verifier,
            context(CHAIN, b"\x99" * 20, b"\x44" * 16),
            opened.state.nonce,
            AMOUNT,
            proof,
        )


def test_backends_and_modes_agree_on_changed_proofs(
    merchant: SecretKey, opened: Tokened, proof: bytes
) -> None:
    """Four verifiers (two backends, two modes) accept and refuse the same proofs."""
    with use_backend("arkworks"):
        second = SecretKey.from_bytes(merchant.to_bytes())
        public = PublicKey.from_bytes(merchant.public.to_bytes())
    candidates = [proof, put(proof, CHALLENGE, bytes(16)), swap(proof, 0, 48, 48)]
    candidates += [negated(proof, at) for at in (*G1_FIELDS, TOKEN_MASK)]
    candidates += [put(proof, at, bytes(32)) for at in (*RESPONSES, DIGITS[0], DIGITS[31])]
    for candidate in candidates:
        results = set()
        for key in (merchant, merchant.public, second, public):
            try:
                verify_pay(key, CONTEXT, opened.state.nonce, AMOUNT, candidate)
                results.add(True)
            except InvalidProof:
                results.add(False)
        assert results == {candidate == proof}
