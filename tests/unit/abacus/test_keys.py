"""Merchant keys: what a customer refuses, and why it must."""

from __future__ import annotations

import pytest

from zkchannels.abacus import (
    AbacusError,
    EstablishBlindings,
    InvalidEncoding,
    InvalidKey,
    InvalidProof,
    InvalidSignature,
    PublicKey,
    R,
    SecretKey,
    State,
    context,
    prove_establish,
    prove_pay,
    verify_establish,
    verify_pay,
)
from zkchannels.abacus._backend import Backend, current_backend
from zkchannels.abacus.eip2537 import P, expand_g2
from zkchannels.abacus.keys import points_of

from .support import CHAIN, CONTEXT, Customer

G1_HALF = 240
KEY_LENGTH = 816


def replaced(data: bytes, at: int, part: bytes) -> bytes:
    """Return bytes with a part replaced."""
    return data[:at] + part + data[at + len(part) :]


def test_a_key_is_read_back_from_each_form(merchant: SecretKey) -> None:
    """816 bytes, and 240 bytes beside the escrow's 1,792, give the same key and digest."""
    public = merchant.public
    again = PublicKey.from_bytes(public.to_bytes())
    from_escrow = PublicKey.from_escrow(public.g1_half(), public.to_escrow_key())
    assert again == public == from_escrow
    assert again.digest == public.digest == from_escrow.digest
    assert len(public.digest) == 64
    assert SecretKey.from_bytes(merchant.to_bytes()).public == public
    assert hash(again) == hash(public)
    assert public != "a key"


def test_a_shifted_first_half_is_refused(backend: Backend) -> None:
    """Y1_i moved by a known offset is refused for every i: see the oracle it would be."""
    key = SecretKey.generate().public
    for index in range(5):
        at = 48 * index
        moved = backend.decode_g1(key.to_bytes()[at : at + 48]) + backend.g1
        with pytest.raises(InvalidKey):
            PublicKey.from_bytes(replaced(key.to_bytes(), at, backend.encode_g1(moved)))


def test_the_selective_failure_oracle_is_closed(
    merchant: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a shifted Y1_4 a merchant could test a guessed balance; the key check ends that."""
    points = points_of(merchant.public)
    backend = points.backend
    shifted = backend.encode_g1(points.y1[3].point + backend.g1)
    marked = replaced(merchant.public.to_bytes(), 3 * 48, shifted)
    with pytest.raises(InvalidKey):
        PublicKey.from_bytes(marked)

    # The attack itself, with the check taken away: a commitment under the marked key is corrected
    # for a guess, and becomes an honest commitment exactly if the guess is right.
    monkeypatch.setattr("zkchannels.abacus.keys._check_halves", lambda *_: None)
    victim = PublicKey.from_bytes(marked)
    state = State(7, 11, 13, 1000, 500)
    proof = prove_establish(victim, CONTEXT, state, EstablishBlindings(17, 19))
    commitment = backend.decode_g1(proof[:48])
    honest = prove_establish(merchant.public, CONTEXT, state, EstablishBlindings(17, 19))[:48]
    for guess in (999, 1000, 1001):
        corrected = commitment + -backend.multiply_g1(backend.g1, guess)
        assert (backend.encode_g1(corrected) == honest) is (guess == 1000)


def test_a_second_half_of_another_key_is_refused(merchant: SecretKey) -> None:
    """The halves of two keys make no key, in bytes or beside the escrow."""
    other = SecretKey.generate().public
    mixed = merchant.public.to_bytes()[:G1_HALF] + other.to_bytes()[G1_HALF:]
    with pytest.raises(InvalidKey):
        PublicKey.from_bytes(mixed)
    with pytest.raises(InvalidKey):
        PublicKey.from_escrow(merchant.public.g1_half(), other.to_escrow_key())


def test_identity_elements_are_refused(backend: Backend) -> None:
    """No element of a key may be the identity."""
    data = SecretKey.generate().public.to_bytes()
    for at in range(0, G1_HALF, 48):
        with pytest.raises(InvalidEncoding):
            PublicKey.from_bytes(replaced(data, at, b"\xc0" + bytes(47)))
    for at in range(G1_HALF, KEY_LENGTH, 96):
        with pytest.raises(InvalidEncoding):
            PublicKey.from_bytes(replaced(data, at, b"\xc0" + bytes(95)))


def test_elements_outside_the_subgroup_are_refused(backend: Backend) -> None:
    """A G2 element outside the subgroup, which would make every close fail, is refused."""
    key = SecretKey.generate().public
    outside = g2_outside_subgroup()
    for index in range(6):
        with pytest.raises(InvalidEncoding):
            PublicKey.from_bytes(replaced(key.to_bytes(), G1_HALF + 96 * index, outside))
        escrow_key = replaced(key.to_escrow_key(), 256 * (index + 1), expand_g2(outside))
        with pytest.raises(InvalidEncoding):
            PublicKey.from_escrow(key.g1_half(), escrow_key)


def g2_outside_subgroup() -> bytes:
    """Return a point on the curve of G2 that is not in the subgroup, compressed."""
    for x in range(1, 100):
        data = bytes([0x80]) + bytes(47) + x.to_bytes(48, "big")
        try:
            expand_g2(data)
        except InvalidEncoding:
            continue
        return data
    raise AssertionError("one in two candidates is on the curve")


def test_another_g2_is_refused(merchant: SecretKey) -> None:
    """The escrow's first element must be the negated standard generator, and nothing else."""
    backend = current_backend()
    key = merchant.public
    for point in (backend.g2, -(backend.g2 + backend.g2)):
        escrow_key = replaced(key.to_escrow_key(), 0, expand_g2(backend.encode_g2(point)))
        with pytest.raises(InvalidKey):
            PublicKey.from_escrow(key.g1_half(), escrow_key)


def test_malformed_escrow_keys_are_refused(merchant: SecretKey) -> None:
    """Wrong lengths, set padding, coordinates of P or more, and points off the curve fail."""
    key = merchant.public
    escrow_key, half = key.to_escrow_key(), key.g1_half()
    at = 256
    coordinate = int.from_bytes(escrow_key[at : at + 64], "big")
    for changed in (
        escrow_key[:-1],
        escrow_key + b"\0",
        replaced(escrow_key, at, b"\1"),
        replaced(escrow_key, at, (coordinate + P).to_bytes(64, "big")),
        replaced(escrow_key, at, (coordinate ^ 1).to_bytes(64, "big")),
        *(replaced(escrow_key, place, plus_p(escrow_key, place)) for place in range(at, 512, 64)),
        *(replaced(escrow_key, place, flipped(escrow_key, place)) for place in range(at, 512, 64)),
        replaced(escrow_key, at, bytes(256)),
    ):
        with pytest.raises(InvalidEncoding):
            PublicKey.from_escrow(half, changed)
    with pytest.raises(InvalidEncoding):
        PublicKey.from_escrow(half[:-1], escrow_key)
    with pytest.raises(InvalidEncoding):
        PublicKey.from_bytes(key.to_bytes()[:-1])


def plus_p(data: bytes, at: int) -> bytes:
    """Return the coordinate at a place plus the prime."""
    return (int.from_bytes(data[at : at + 64], "big") + P).to_bytes(64, "big")


def flipped(data: bytes, at: int) -> bytes:
    """Return the coordinate at a place with its lowest bit changed."""
    return (int.from_bytes(data[at : at + 64], "big") ^ 1).to_bytes(64, "big")


def test_a_key_made_with_another_g1_is_refused() -> None:
    """Y1 under a customer's own g1 has no consistent Y2 on chain: such a marked key is refused."""
    backend = current_backend()
    key = SecretKey.generate()
    marked = b"".join(
        backend.encode_g1(backend.multiply_g1(point.point, 3)) for point in points_of(key.public).y1
    )
    with pytest.raises(InvalidKey):
        PublicKey.from_escrow(marked, key.public.to_escrow_key())


def test_malformed_secret_keys_are_refused(merchant: SecretKey) -> None:
    """Zero scalars, scalars of R or more, wrong lengths and the wrong public half raise."""
    data = merchant.to_bytes()
    for changed in (
        data[:-1],
        data + b"\0",
        replaced(data, 0, bytes(32)),
        replaced(data, 160, bytes(32)),
        replaced(data, 32, R.to_bytes(32, "big")),
        b"",
    ):
        with pytest.raises(InvalidKey):
            SecretKey.from_bytes(changed)
    with pytest.raises(InvalidKey):
        SecretKey([1, 2, 3, 4, 5])
    other = SecretKey.generate().public.to_bytes()
    with pytest.raises(InvalidKey):
        SecretKey.from_bytes(data, expected=other)
    assert SecretKey.from_bytes(data, expected=merchant.public.to_bytes()).public.to_bytes()


def test_a_proof_under_one_key_says_nothing_under_another(merchant: SecretKey) -> None:
    """One key per escrow: the digest of the key is part of every proof."""
    other = SecretKey.generate()
    proof = prove_establish(
        merchant.public, CONTEXT, State(7, 11, 13, 1, 1), EstablishBlindings(2, 3)
    )
    with pytest.raises(AbacusError):
        verify_establish(other, CONTEXT, 7, 1, 1, proof)


def test_one_key_in_two_escrows_would_mix_their_money(merchant: SecretKey) -> None:
    """A token hides its escrow: under a shared key it buys in both, so keys are never shared."""
    token = Customer(merchant).establish(1000, 500)
    customer = Customer(merchant)
    new, blindings = customer.next_state(token.state, 1)
    elsewhere = context(CHAIN, b"\x99" * 20, b"\x44" * 16)
    proof = prove_pay(
        merchant.public, elsewhere, token.state, token.token, token.blinding, new, 1, blindings
    )
    assert verify_pay(merchant, elsewhere, token.state.nonce, 1, proof)

    separate = SecretKey.generate()
    with pytest.raises(InvalidProof):
        verify_pay(separate, elsewhere, token.state.nonce, 1, proof)
    with pytest.raises(InvalidSignature):
        prove_pay(
            separate.public, elsewhere, token.state, token.token, token.blinding, new, 1, blindings
        )
