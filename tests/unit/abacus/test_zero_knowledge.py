"""What a proof shows: a simulator without any secret makes proofs that look the same."""

from __future__ import annotations

import pytest

from zkchannels.abacus import (
    CLOSE,
    PAY_PROOF_LENGTH,
    EstablishBlindings,
    InvalidProof,
    PayBlindings,
    PublicKey,
    R,
    SecretKey,
    State,
    prove_establish,
    prove_pay,
    verify_establish,
    verify_pay,
)
from zkchannels.abacus._tables import combine
from zkchannels.abacus.encoding import random_nonzero_scalar, random_scalar, random_scalars
from zkchannels.abacus.keys import points_of
from zkchannels.abacus.parameters import DIGITS
from zkchannels.abacus.pay_wire import Commitments, PayProof, Responses
from zkchannels.abacus.transcript import Transcript

from .adversary import weighted
from .support import CONTEXT, Customer, Tokened, Verifier


def simulate(key: PublicKey, nonce: int, amount: int, x: int) -> bytes:
    """Return a pay proof for a programmed challenge x, made without token, state or balance."""
    points = points_of(key)
    backend = points.backend

    def random_point() -> bytes:
        return backend.encode_g1(backend.multiply_g1(backend.g1, random_nonzero_scalar()))

    base = backend.multiply_g1(backend.g1, random_nonzero_scalar())
    ratio = random_nonzero_scalar()
    responses = Responses(*random_scalars(11))
    digits = tuple(random_scalars(DIGITS))
    falling, other = weighted(digits), responses.other_balance
    customer, merchant = (falling, other) if amount >= 0 else (other, falling)
    token_mask = combine(
        (points.x2, x),
        (points.y2[0], responses.channel_id),
        (points.y2[1], x * nonce % R),
        (points.y2[2], responses.old_lock),
        (points.y2[3], (customer + x * amount) % R),
        (points.y2[4], (merchant - x * amount) % R),
        (points.generators.g2, (responses.token - x * ratio) % R),
    )
    return PayProof(
        commitments=Commitments(
            backend.encode_g1(base),
            backend.encode_g1(backend.multiply_g1(base, ratio)),
            *(random_point() for _ in range(4)),
        ),
        token_mask=backend.encode_g2(token_mask),
        coefficients=tuple(random_point() for _ in range(3)),
        challenge=x,
        responses=responses,
        digits=digits,
    ).to_bytes()


@pytest.mark.parametrize("amount", [100, 0, -100, 2**63 - 1])
def test_the_simulator_is_accepted_with_programmed_challenges(
    merchant: SecretKey, verifier: Verifier, monkeypatch: pytest.MonkeyPatch, amount: int
) -> None:
    """For given challenges a proof is made from public values alone, hence it shows no others."""
    y, x = random_scalar(), random_nonzero_scalar() >> 127
    proof = simulate(merchant.public, 11, amount, x)
    with pytest.raises(InvalidProof):
        verify_pay(verifier, CONTEXT, 11, amount, proof)
    monkeypatch.setattr(Transcript, "wide_challenge", lambda *_: y)
    monkeypatch.setattr(Transcript, "short_challenge", lambda *_: x)
    verify_pay(verifier, CONTEXT, 11, amount, proof)


def test_the_establish_simulator_is_accepted_with_a_programmed_challenge(
    merchant: SecretKey, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any two points and four responses are an establish proof for a given challenge."""
    backend = points_of(merchant.public).backend
    points = [
        backend.encode_g1(backend.multiply_g1(backend.g1, random_nonzero_scalar()))
        for _ in range(2)
    ]
    responses = [scalar.to_bytes(32, "big") for scalar in random_scalars(4)]
    proof = b"".join([*points, (9).to_bytes(16, "big"), *responses])
    with pytest.raises(InvalidProof):
        verify_establish(verifier, CONTEXT, 7, 1000, 500, proof)
    monkeypatch.setattr(Transcript, "short_challenge", lambda *_: 9)
    verify_establish(verifier, CONTEXT, 7, 1000, 500, proof)


def test_a_challenge_of_zero_is_refused_even_if_the_hash_gave_it(
    merchant: SecretKey, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With x = 0 no equation binds a commitment: whatever the transcript says, it is refused."""
    monkeypatch.setattr(Transcript, "short_challenge", lambda *_: 0)
    with pytest.raises(InvalidProof):
        verify_pay(verifier, CONTEXT, 11, 5, simulate(merchant.public, 11, 5, 0))
    points = merchant.public.to_bytes()[:96]
    responses = [scalar.to_bytes(32, "big") for scalar in random_scalars(4)]
    with pytest.raises(InvalidProof):
        verify_establish(verifier, CONTEXT, 7, 1000, 500, b"".join([points, bytes(16), *responses]))


def pay_fields(proof: bytes) -> set[bytes]:
    """Return the points and scalars of a pay proof."""
    points = [proof[at : at + 48] for at in range(0, 528, 48)]
    scalars = [proof[at : at + 32] for at in range(544, PAY_PROOF_LENGTH, 32)]
    return {*points, proof[528:544], *scalars}


def test_two_proofs_of_one_statement_share_their_commitments_only(
    merchant: SecretKey, opened: Tokened
) -> None:
    """A proof made again has the same C1, C2, C3 and no other field in common."""
    customer = Customer(merchant)
    new, blindings = customer.next_state(opened.state, 100)

    def prove(chosen: PayBlindings) -> bytes:
        return prove_pay(
            merchant.public,
            CONTEXT,
            opened.state,
            opened.token,
            opened.blinding,
            new,
            100,
            chosen,
        )

    first, second = prove(blindings), prove(blindings)
    commitments = {first[at : at + 48] for at in (96, 144, 192)}
    assert pay_fields(first) & pay_fields(second) == commitments
    other = prove(PayBlindings(*random_scalars(3)))
    assert not pay_fields(first) & pay_fields(other)


def test_two_establish_proofs_share_their_commitments_only(merchant: SecretKey) -> None:
    """An establish proof made again differs in everything but C1 and C2."""
    state, blindings = State(7, 11, 13, 1000, 500), EstablishBlindings(17, 19)
    first, second = (prove_establish(merchant.public, CONTEXT, state, blindings) for _ in range(2))
    assert first[:96] == second[:96]
    for at in range(112, 240, 32):
        assert first[at : at + 32] != second[at : at + 32]


def test_a_proof_holds_nothing_that_the_merchant_sent(merchant: SecretKey, opened: Tokened) -> None:
    """Neither half of the token, nor nonce, lock or channel id, is found in the proof."""
    new = State(7, 1, 1, 900, 600)
    proof = prove_pay(
        merchant.public,
        CONTEXT,
        opened.state,
        opened.token,
        opened.blinding,
        new,
        100,
        PayBlindings(2, 3, 4),
    )
    known = {opened.token[:48], opened.token[48:]}
    known |= {value.to_bytes(32, "big") for value in (*opened.state.messages, CLOSE)}
    assert not known & pay_fields(proof)
