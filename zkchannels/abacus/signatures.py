"""Checking, unblinding and using the merchant's signatures (Pointcheval and Sanders, 2016)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zkchannels.abacus import eip2537
from zkchannels.abacus._backend import Point
from zkchannels.abacus._tables import combine
from zkchannels.abacus.encoding import encode_scalar, random_nonzero_scalar
from zkchannels.abacus.errors import InvalidEncoding, InvalidSignature
from zkchannels.abacus.keys import KeyPoints, PublicKey, points_of
from zkchannels.abacus.parameters import G1_LENGTH, SIGNATURE_LENGTH, R
from zkchannels.abacus.states import CloseState, State

_POINT_LENGTH = 128
CLOSING_LENGTH = 2 * _POINT_LENGTH


def check_blinded(
    key: PublicKey, signature: bytes, message: State | CloseState, blinding: int
) -> None:
    """Check a signature as received: e(h, X2 + sum m_i Y2_i + b g2) = e(S, g2).

    Args:
        key: the merchant's key
        signature: h | S, compressed, 96 bytes, still blinded
        message: what the commitment was made to
        blinding: blinding of that commitment; 0 for an open signature

    Raises:
        InvalidSignature: it is malformed or not the merchant's signature on the message
        InvalidEncoding: the blinding lies outside [0, R)
    """
    points = points_of(key)
    h, s = decode_signature(points, signature)
    if not _holds(points, h, s, message.messages, blinding):
        raise InvalidSignature("the signature does not hold for this message")
    points.checked.keep(_fingerprint(signature, message, blinding), None)


def expect_signature(key: PublicKey, message: State | CloseState, blinding: int) -> None:
    """Do the half of a check that needs no signature, while the signature is on its way.

    The next check of a signature on this message under this blinding is a third quicker.

    Raises:
        InvalidEncoding: the blinding lies outside [0, R)
    """
    points, messages = points_of(key), message.messages
    points.expected.keep((blinding, *messages), _signed_for(points, messages, blinding))


def ensure_checked(
    key: PublicKey, signature: bytes, message: State | CloseState, blinding: int
) -> None:
    """Do what check_blinded does, unless it was done before with this key object.

    A token is checked when it arrives and again when it is spent: the second time costs a hash.
    """
    if _fingerprint(signature, message, blinding) not in points_of(key).checked:
        check_blinded(key, signature, message, blinding)


def decode_signature(points: KeyPoints, signature: bytes) -> tuple[Point, Point]:
    """Return (h, S) of 96 bytes, neither of them the identity; raises InvalidSignature."""
    if len(signature) != SIGNATURE_LENGTH:
        raise InvalidSignature(f"a signature has {SIGNATURE_LENGTH} bytes")
    try:
        h = points.backend.decode_g1(signature[:G1_LENGTH])
        s = points.backend.decode_g1(signature[G1_LENGTH:])
    except InvalidEncoding as error:
        raise InvalidSignature("the signature is malformed") from error
    return h, s


def closing_authorization(
    key: PublicKey, signature: bytes, blinding: int, close_state: CloseState
) -> bytes:
    """Return the signature on a close state as the escrow contract takes it.

    It is unblinded and made new with a fresh multiplier, so that nothing on chain equals what the
    merchant sent in one particular payment. Keep the result for re-broadcasts.

    Args:
        key: the merchant's key
        signature: h | S as received, 96 bytes, blinded
        blinding: blinding of the commitment that was signed
        close_state: the close state that was signed

    Returns:
        sigma1 | sigma2 in EIP-2537 form, 256 bytes

    Raises:
        InvalidSignature: it is no signature on this close state under this blinding
        InvalidEncoding: the blinding lies outside [0, R)
    """
    points = points_of(key)
    h, s = decode_signature(points, signature)
    if not _holds(points, h, s, close_state.messages, blinding):
        raise InvalidSignature("the signature does not hold for this close state")
    return unblind(points, (h, s), blinding, random_nonzero_scalar())


def unblind(points: KeyPoints, signature: tuple[Point, Point], blinding: int, factor: int) -> bytes:
    """Return factor * (h, S - blinding * h) in EIP-2537 form, for this package and its vectors."""
    backend = points.backend
    h, s = signature
    sigma1 = backend.multiply_g1(h, factor)
    sigma2 = backend.multiply_g1(s, factor) + -backend.multiply_g1(h, factor * blinding % R)
    return b"".join(eip2537.expand_g1(backend.encode_g1(point)) for point in (sigma1, sigma2))


def verify_closing(key: PublicKey, close_state: CloseState, signature: bytes) -> bool:
    """Tell whether the escrow contract accepts a closing authorization of 256 bytes."""
    if len(signature) != CLOSING_LENGTH:
        return False
    points = points_of(key)
    try:
        h, s = (
            points.backend.decode_g1(eip2537.compress_g1(part))
            for part in (signature[:_POINT_LENGTH], signature[_POINT_LENGTH:])
        )
    except InvalidEncoding:
        return False
    return _holds(points, h, s, close_state.messages, 0)


def _holds(points: KeyPoints, h: Point, s: Point, messages: Sequence[int], blinding: int) -> bool:
    total = points.expected.take((blinding, *messages))
    if total is None:
        total = _signed_for(points, messages, blinding)
    return points.backend.pairings_equal(h, total, s, points.backend.g2)


def _signed_for(points: KeyPoints, messages: Sequence[int], blinding: int) -> Point:
    terms = zip(points.y2, messages, strict=True)
    return points.x2.point + combine((points.generators.g2, blinding), *terms)


def _fingerprint(signature: bytes, message: State | CloseState, blinding: int) -> bytes:
    scalars = b"".join(map(encode_scalar, (blinding, *message.messages)))
    return hashlib.sha256(signature + scalars).digest()
