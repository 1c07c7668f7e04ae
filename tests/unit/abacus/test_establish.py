"""Establish proofs: honest ones, changed ones, and lies about what the commitments hold."""

from __future__ import annotations

import pytest

from zkchannels.abacus import (
    CLOSE,
    ESTABLISH_PROOF_LENGTH,
    MAX_BALANCE,
    EstablishBlindings,
    InvalidProof,
    InvalidStatement,
    R,
    SecretKey,
    State,
    context,
    prove_establish,
    verify_establish,
)
from zkchannels.abacus._tables import combine
from zkchannels.abacus.encoding import random_scalars
from zkchannels.abacus.establish import EstablishCommitments, _challenge
from zkchannels.abacus.keys import PublicKey, points_of

from .support import CHAIN, CONTEXT, ESCROW, Customer, Verifier

STATE = State(7, 11, 13, 1000, 500)
BLINDINGS = EstablishBlindings(17, 19)
Values = tuple[int, int, int, int, int]


@pytest.fixture(scope="session")
def proof(merchant: SecretKey) -> bytes:
    """Return an honest establish proof."""
    return prove_establish(merchant.public, CONTEXT, STATE, BLINDINGS)


def refused(verifier: Verifier, proof: bytes, *public: int) -> None:
    """Fail unless the proof is refused for these public values."""
    with pytest.raises(InvalidProof, match=r"^the proof is not valid$"):
        verify_establish(verifier, CONTEXT, *(public or (7, 1000, 500)), proof)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("customer", "merchant_balance"),
    [(0, 0), (1, 0), (0, 1), (MAX_BALANCE, 0), (0, MAX_BALANCE), (2**62, 2**62 - 1)],
)
def test_honest_proofs_are_accepted(
    merchant: SecretKey, verifier: Verifier, customer: int, merchant_balance: int
) -> None:
    """All deposits whose sum is at most 2**63 - 1 can be proven."""
    state = State(7, 11, 13, customer, merchant_balance)
    proof = prove_establish(merchant.public, CONTEXT, state, BLINDINGS)
    commitments = verify_establish(verifier, CONTEXT, 7, customer, merchant_balance, proof)
    assert commitments.state + commitments.close == proof[:96]


def test_every_changed_byte_is_refused(verifier: Verifier, proof: bytes) -> None:
    """A proof with one byte changed is refused, whichever byte it is."""
    for at in range(ESTABLISH_PROOF_LENGTH):
        refused(verifier, proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :])


def test_changed_fields_are_refused(verifier: Verifier, proof: bytes) -> None:
    """Points negated, swapped or the identity, scalars + 1, + R or swapped, and x = 0 fail."""
    infinity = b"\xc0" + bytes(47)
    points, rest = proof[:96], proof[96:]
    refused(verifier, proof[48:96] + proof[:48] + rest)
    for at in (0, 48):
        refused(verifier, proof[:at] + bytes([proof[at] ^ 0x20]) + proof[at + 1 :])
        refused(verifier, proof[:at] + infinity + proof[at + 48 :])
    refused(verifier, points + bytes(16) + proof[112:])
    for at in range(112, 240, 32):
        value = int.from_bytes(proof[at : at + 32], "big")
        for changed in ((value + 1) % R, value + R):
            refused(verifier, proof[:at] + changed.to_bytes(32, "big") + proof[at + 32 :])
        for other in range(at + 32, 240, 32):
            swapped = bytearray(proof)
            swapped[at : at + 32], swapped[other : other + 32] = (
                proof[other : other + 32],
                proof[at : at + 32],
            )
            refused(verifier, bytes(swapped))
    refused(verifier, proof[:-1])
    refused(verifier, proof + b"\0")
    refused(verifier, b"")


def test_other_public_values_are_refused(verifier: Verifier, proof: bytes) -> None:
    """Another channel, other balances, a channel id plus R and values out of range are refused."""
    for public in (
        (8, 1000, 500),
        (7 + R, 1000, 500),
        (7 - R, 1000, 500),
        (7, 1001, 500),
        (7, 1000, 501),
        (7, 500, 1000),
        (7, -1, 500),
        (7, 1000, -1),
        (7, 1000 + R, 500),
        (7, 1000 - R, 500),
        (7, 2**63, 500),
        (7, MAX_BALANCE, 1),
        (7, 2**62, 2**62),
    ):
        refused(verifier, proof, *public)


def test_another_context_or_key_is_refused(verifier: Verifier, proof: bytes) -> None:
    """The proof holds for one session of one escrow on one chain, under one key."""
    for other in (
        context(CHAIN, ESCROW, b"\x45" * 16),
        context(CHAIN, b"\x12" * 20, b"\x44" * 16),
        context(CHAIN + 1, ESCROW, b"\x44" * 16),
    ):
        with pytest.raises(InvalidProof):
            verify_establish(verifier, other, 7, 1000, 500, proof)
    stranger = SecretKey.generate()
    for key in (stranger, stranger.public):
        with pytest.raises(InvalidProof):
            verify_establish(key, CONTEXT, 7, 1000, 500, proof)


def test_the_prover_refuses_a_sum_out_of_range(merchant: SecretKey) -> None:
    """No proof is made for deposits whose sum is 2**63 or more."""
    state = State(7, 11, 13, MAX_BALANCE, 1)
    with pytest.raises(InvalidStatement):
        prove_establish(merchant.public, CONTEXT, state, BLINDINGS)


def forge(key: PublicKey, state: Values, close: Values, public: tuple[int, int, int]) -> bytes:
    """Return a proof whose commitments hold anything, everything else in it being honest."""
    points = points_of(key)
    encode = points.backend.encode_g1
    t_state, t_close, t_nonce, t_lock = random_scalars(4)
    g1 = points.generators.g1
    commitments = EstablishCommitments(
        *(
            encode(combine(*zip(points.y1, (value % R for value in values), strict=True)))
            for values in (state, close)
        )
    )
    masks = [
        encode(combine((g1, t_state), (points.y1[1], t_nonce), (points.y1[2], t_lock))),
        encode(combine((g1, t_close), (points.y1[2], t_lock))),
    ]
    x = _challenge(key, CONTEXT, public, commitments, masks)
    responses = (t_state, t_close, t_nonce + x * state[1], t_lock + x * state[2])
    return (
        commitments.state
        + commitments.close
        + x.to_bytes(16, "big")
        + b"".join((response % R).to_bytes(32, "big") for response in responses)
    )


HONEST: Values = (7, 11, 13, 1000, 500)
CLOSED: Values = (7, CLOSE, 13, 1000, 500)
ESTABLISH_LIES = {
    "hidden balance": ((7, 11, 13, 10**6, 500), (7, CLOSE, 13, 10**6, 500)),
    "hidden balance in the state only": ((7, 11, 13, 10**6, 500), CLOSED),
    "hidden balance in the close state only": (HONEST, (7, CLOSE, 13, 10**6, 500)),
    "hidden balance of the merchant": ((7, 11, 13, 1000, 5000), (7, CLOSE, 13, 1000, 5000)),
    "another channel": ((8, 11, 13, 1000, 500), (8, CLOSE, 13, 1000, 500)),
    "another channel in the close state": (HONEST, (8, CLOSE, 13, 1000, 500)),
    "another lock in the close state": (HONEST, (7, CLOSE, 14, 1000, 500)),
    "no CLOSE tag": (HONEST, HONEST),
}


def test_the_cheating_prover_is_believed_when_it_tells_the_truth(
    merchant: SecretKey, verifier: Verifier
) -> None:
    """The attacker of these tests is able: without a lie its proof is accepted."""
    proof = forge(merchant.public, HONEST, CLOSED, (7, 1000, 500))
    assert verify_establish(verifier, CONTEXT, 7, 1000, 500, proof)


@pytest.mark.parametrize("lie", ESTABLISH_LIES.values(), ids=ESTABLISH_LIES)
def test_lies_are_refused(
    merchant: SecretKey, verifier: Verifier, lie: tuple[Values, Values]
) -> None:
    """A commitment to anything but the public values is refused (second older forgery included)."""
    refused(verifier, forge(merchant.public, *lie, (7, 1000, 500)))


@pytest.mark.parametrize(
    "public", [(7, 2**62, 2**62), (7, MAX_BALANCE, 1), (7, 2**63, 0), (7, 0, 2**63), (2**253, 1, 1)]
)
def test_true_statements_about_values_out_of_range_are_refused(
    merchant: SecretKey, verifier: Verifier, public: tuple[int, int, int]
) -> None:
    """A proof that is right in itself is refused for a sum of 2**63 or an id of 2**253."""
    channel, customer, other = public
    state = (channel, 11, 13, customer, other)
    proof = forge(merchant.public, state, (channel, CLOSE, 13, customer, other), public)
    refused(verifier, proof, *public)


def test_a_hidden_balance_cannot_be_explained_after_the_challenge(
    merchant: SecretKey, verifier: Verifier
) -> None:
    """Moving the difference into the blinding's or nonce's response needs a logarithm: refused."""
    proof = forge(merchant.public, *ESTABLISH_LIES["hidden balance"], (7, 1000, 500))
    x = int.from_bytes(proof[96:112], "big")
    for at in range(112, 240, 32):
        value = int.from_bytes(proof[at : at + 32], "big") + x * (10**6 - 1000)
        refused(verifier, proof[:at] + (value % R).to_bytes(32, "big") + proof[at + 32 :])


def test_a_second_establish_of_a_channel_shows_other_commitments(
    merchant: SecretKey, verifier: Verifier
) -> None:
    """Two proofs for one channel id are both true; their commitments tell them apart."""
    customer = Customer(merchant)
    proofs = []
    for attempt in range(2):
        state = customer.secrets.state(0, attempt, 1000, 500)
        blindings = customer.secrets.establish_blindings(attempt=attempt)
        proofs.append(prove_establish(merchant.public, CONTEXT, state, blindings))
    first, second = (verify_establish(verifier, CONTEXT, 7, 1000, 500, proof) for proof in proofs)
    assert first.state != second.state
    assert first.close != second.close
