"""What the customer checks before the next secret leaves, and what the merchant must not sign."""

from __future__ import annotations

import pytest

from zkchannels.abacus import (
    CLOSE,
    CloseState,
    InvalidEncoding,
    InvalidSignature,
    R,
    SecretKey,
    State,
    check_blinded,
    closing_authorization,
    expect_signature,
    verify_closing,
)
from zkchannels.abacus.commitments import commit_pair
from zkchannels.abacus.eip2537 import P, expand_g1
from zkchannels.abacus.keys import points_of

STATE = State(7, 11, 13, 1000, 500)
CLOSED = STATE.close_state()
BLINDING = 2**200 + 1
INFINITY = b"\xc0" + bytes(47)


@pytest.fixture(scope="session")
def blinded(merchant: SecretKey) -> bytes:
    """Return a blind signature on the close state."""
    points = points_of(merchant.public)
    _, close = commit_pair(points, (0, BLINDING), STATE.messages, CLOSE)
    return merchant.blind_sign(points.backend.encode_g1(close))


def point_moved(merchant: SecretKey, data: bytes) -> bytes:
    """Return another point near the one that is encoded."""
    backend = points_of(merchant.public).backend
    return backend.encode_g1(backend.decode_g1(data) + backend.g1)


def test_a_blind_signature_is_checked_with_its_blinding(
    merchant: SecretKey, blinded: bytes
) -> None:
    """The signature holds for its message under its blinding."""
    check_blinded(merchant.public, blinded, CLOSED, BLINDING)


def test_an_expected_signature_is_checked_as_any_other(merchant: SecretKey, blinded: bytes) -> None:
    """What was computed ahead serves one check, and lets nothing else pass."""
    key = merchant.public
    expect_signature(key, CLOSED, BLINDING)
    with pytest.raises(InvalidSignature):
        check_blinded(key, point_moved(merchant, blinded[:48]) + blinded[48:], CLOSED, BLINDING)
    for _ in range(2):
        expect_signature(key, CLOSED, BLINDING)
        check_blinded(key, blinded, CLOSED, BLINDING)
        check_blinded(key, blinded, CLOSED, BLINDING)
    for message in WRONG_MESSAGES.values():
        expect_signature(key, message, BLINDING)
        check_blinded(key, blinded, CLOSED, BLINDING)
        with pytest.raises(InvalidSignature):
            check_blinded(key, blinded, message, BLINDING)


WRONG_MESSAGES = {
    "channel": CloseState(8, 13, 1000, 500),
    "lock": CloseState(7, 14, 1000, 500),
    "customer's balance": CloseState(7, 13, 999, 500),
    "merchant's balance": CloseState(7, 13, 1000, 501),
    "nonce": STATE,
}


@pytest.mark.parametrize("message", WRONG_MESSAGES.values(), ids=WRONG_MESSAGES)
def test_a_signature_on_another_message_is_refused(
    merchant: SecretKey, blinded: bytes, message: State | CloseState
) -> None:
    """Customer stops: a signature on anything but its own values raises."""
    with pytest.raises(InvalidSignature):
        check_blinded(merchant.public, blinded, message, BLINDING)


def test_tampered_signatures_are_refused(merchant: SecretKey, blinded: bytes) -> None:
    """Customer stops: identity, tampered, swapped, cut or foreign halves raise."""
    h, s = blinded[:48], blinded[48:]
    candidates = [
        INFINITY + s,
        h + INFINITY,
        INFINITY + INFINITY,
        h + point_moved(merchant, s),
        point_moved(merchant, h) + s,
        s + h,
        h + h,
        blinded[:-1],
        blinded + b"\0",
        b"",
        bytes(96),
        SecretKey.generate().sign(CLOSED),
    ]
    for signature in candidates:
        with pytest.raises(InvalidSignature):
            check_blinded(merchant.public, signature, CLOSED, BLINDING)
        with pytest.raises(InvalidSignature):
            closing_authorization(merchant.public, signature, BLINDING, CLOSED)
    for blinding in (BLINDING + 1, 0):
        with pytest.raises(InvalidSignature):
            closing_authorization(merchant.public, blinded, blinding, CLOSED)
    with pytest.raises(InvalidEncoding):
        check_blinded(merchant.public, blinded, CLOSED, BLINDING + R)


def test_a_closing_authorization_is_what_the_contract_accepts(
    merchant: SecretKey, blinded: bytes
) -> None:
    """Unblinded and in EIP-2537 form it holds for its close state and for no other."""
    signature = closing_authorization(merchant.public, blinded, BLINDING, CLOSED)
    assert len(signature) == 256
    assert verify_closing(merchant.public, CLOSED, signature)
    for message in WRONG_MESSAGES.values():
        if isinstance(message, CloseState):
            assert not verify_closing(merchant.public, message, signature)
    assert not verify_closing(SecretKey.generate().public, CLOSED, signature)


def test_malformed_closing_authorizations_are_refused(merchant: SecretKey, blinded: bytes) -> None:
    """Identity, set padding, coordinates of P or more, and points off the curve are refused."""
    signature = closing_authorization(merchant.public, blinded, BLINDING, CLOSED)
    x, y = (int.from_bytes(signature[at : at + 64], "big") for at in (0, 64))
    outside = expand_g1(outside_subgroup())
    for changed in (
        bytes(128) + signature[128:],
        signature[:128] + bytes(128),
        b"\1" + signature[1:],
        (x + P).to_bytes(64, "big") + signature[64:],
        signature[:64] + (y + P).to_bytes(64, "big") + signature[128:],
        signature[:64] + (y ^ 1).to_bytes(64, "big") + signature[128:],
        signature[:255] + bytes([signature[255] ^ 1]),
        signature[128:] + signature[:128],
        outside + signature[128:],
        signature[:-1],
        signature + b"\0",
    ):
        assert not verify_closing(merchant.public, CLOSED, changed)


def outside_subgroup() -> bytes:
    """Return the compressed form of a point on the curve that is not in G1."""
    x = next(x for x in range(1, 100) if pow(x**3 + 4, (P - 1) // 2, P) == 1)
    return bytes([0x80]) + x.to_bytes(47, "big")


def test_a_closing_authorization_shows_nothing_that_was_received(
    merchant: SecretKey, blinded: bytes
) -> None:
    """Each is made new: its first half is not the received one, and differs every time."""
    received = expand_g1(blinded[:48])
    made = [closing_authorization(merchant.public, blinded, BLINDING, CLOSED) for _ in range(4)]
    assert len({signature[:128] for signature in made} | {received}) == 5


def test_every_blind_signature_is_fresh(merchant: SecretKey, blinded: bytes) -> None:
    """The merchant's u differs between calls, even for one commitment."""
    commitment = merchant.sign(STATE)[:48]
    firsts = {merchant.blind_sign(commitment)[:48] for _ in range(5)}
    assert len(firsts) == 5


@pytest.mark.parametrize("commitment", [b"", bytes(48), INFINITY, b"\xff" * 48, bytes(96)])
def test_a_malformed_commitment_is_not_signed(merchant: SecretKey, commitment: bytes) -> None:
    """The merchant signs points of G1 only, and not the identity."""
    with pytest.raises(InvalidEncoding):
        merchant.blind_sign(commitment)


def test_a_token_closes_nothing_and_an_authorization_pays_nothing(merchant: SecretKey) -> None:
    """The CLOSE tag separates the two uses of one key."""
    with pytest.raises(InvalidSignature):
        check_blinded(merchant.public, merchant.sign(STATE), CLOSED, 0)
    with pytest.raises(InvalidSignature):
        check_blinded(merchant.public, merchant.sign(CLOSED), STATE, 0)
