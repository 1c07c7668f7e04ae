"""The merchant's side of a payment: a pay proof verified, by anybody or by the key's owner."""

from __future__ import annotations

from dataclasses import dataclass

from zkchannels.abacus._backend import Backend, Point
from zkchannels.abacus._tables import combine
from zkchannels.abacus.commitments import commit_lock, commit_pair, commit_pair_as_owner
from zkchannels.abacus.digits import evaluate, recompose
from zkchannels.abacus.encoding import random_nonzero_scalar
from zkchannels.abacus.errors import InvalidEncoding, InvalidProof
from zkchannels.abacus.keys import PublicKey, SecretKey, fold, points_of
from zkchannels.abacus.parameters import CLOSE, MAX_BALANCE, R
from zkchannels.abacus.pay_wire import Masks, PayProof, PayTranscript


@dataclass(frozen=True, slots=True)
class PayCommitments:
    """Commitments of an accepted pay proof, 48 bytes each.

    Attributes:
        state: to the new state, signed once the old lock is revoked
        close: to the new close state, signed first
        lock: to the old lock, opened at revocation
    """

    state: bytes
    close: bytes
    lock: bytes


@dataclass(frozen=True, slots=True)
class _Points:
    """The decoded points of a proof."""

    token1: Point
    token2: Point
    state: Point
    close: Point
    lock: Point
    digits: Point
    token_mask: Point
    coefficients: tuple[Point, ...]


def verify_pay(
    key: PublicKey | SecretKey, context: bytes, nonce: int, amount: int, proof: bytes
) -> PayCommitments:
    """Verify a pay proof, as anybody or as the owner of the key, with the same result.

    Args:
        key: the merchant's key; with the secret key the work is less
        context: from `context`, with the merchant's own session id
        nonce: the nonce of the state that is spent, as received
        amount: the amount agreed in the session; positive: the customer pays
        proof: 1,920 bytes

    Returns:
        the commitments of the proof

    Raises:
        InvalidProof: whatever is wrong, a nonce or amount out of range included
    """
    # A close state has CLOSE for its nonce: a closing authorization must not pass for a token.
    if not 0 <= nonce < R or nonce == CLOSE or abs(amount) > MAX_BALANCE:
        raise InvalidProof
    public_key = key.public if isinstance(key, SecretKey) else key
    try:
        parts = PayProof.from_bytes(proof)
        points = _decode(points_of(public_key).backend, parts)
    except InvalidEncoding as error:
        raise InvalidProof from error
    customer, merchant = _balance_responses(parts, amount)
    masks = _masks(key, parts, points, customer, merchant)
    _check_challenge(
        public_key, PayTranscript(public_key, context, nonce, amount), parts, points, masks
    )
    token_messages = (
        parts.responses.channel_id,
        parts.challenge * nonce % R,
        parts.responses.old_lock,
        (customer + parts.challenge * amount) % R,
        (merchant - parts.challenge * amount) % R,
    )
    if not _token_holds(key, parts, points, token_messages):
        raise InvalidProof
    sent = parts.commitments
    return PayCommitments(state=sent.state, close=sent.close, lock=sent.lock)


def _decode(backend: Backend, parts: PayProof) -> _Points:
    sent = parts.commitments
    g1 = backend.decode_g1
    return _Points(
        token1=g1(sent.token1),
        token2=g1(sent.token2),
        state=g1(sent.state),
        close=g1(sent.close),
        lock=g1(sent.lock),
        digits=g1(sent.digits),
        token_mask=backend.decode_g2(parts.token_mask),
        coefficients=tuple(g1(data) for data in parts.coefficients),
    )


def _balance_responses(parts: PayProof, amount: int) -> tuple[int, int]:
    """Return the responses of the customer's and the merchant's new balance."""
    falling, other = recompose(parts.digits), parts.responses.other_balance
    return (falling, other) if amount >= 0 else (other, falling)


def _masks(
    key: PublicKey | SecretKey, parts: PayProof, received: _Points, customer: int, merchant: int
) -> Masks:
    """Return the masks' points that answer the responses, whatever the prover had."""
    points = points_of(key.public if isinstance(key, SecretKey) else key)
    backend, bases = points.backend, points.generators
    responses, x = parts.responses, parts.challenge
    blindings = (responses.state, responses.close)
    values = (responses.channel_id, responses.nonce, responses.new_lock, customer, merchant)
    if isinstance(key, SecretKey):
        state, close = commit_pair_as_owner(key, blindings, values, x * CLOSE % R)
    else:
        state, close = commit_pair(points, blindings, values, x * CLOSE % R)
    lock = commit_lock(bases, responses.lock, responses.old_lock)
    digits = bases.range_sum.combine((responses.digits, *parts.digits))

    def without(total: Point, commitment: Point) -> bytes:
        return backend.encode_g1(total + -backend.multiply_g1(commitment, x))

    return Masks(
        digits=without(digits, received.digits),
        state=without(state, received.state),
        close=without(close, received.close),
        lock=without(lock, received.lock),
        token=parts.token_mask,
    )


def _check_challenge(
    key: PublicKey, transcript: PayTranscript, parts: PayProof, received: _Points, masks: Masks
) -> None:
    """Raise InvalidProof unless the transcript leads to the challenge that was answered."""
    points = points_of(key)
    backend, bases = points.backend, points.generators
    x = parts.challenge
    y = transcript.digits_challenge(parts.commitments, masks)
    opened = combine(
        (bases.range_blinding, parts.responses.coefficients),
        (bases.range_coefficient, evaluate(parts.digits, x, y)),
    )
    k1, k2, k3 = received.coefficients
    rest = backend.multiply_g1(k3, x) + k2
    rest = backend.multiply_g1(rest, x) + k1
    k0 = opened + -backend.multiply_g1(rest, x)
    if transcript.challenge([backend.encode_g1(k0), *parts.coefficients]) != x:
        raise InvalidProof


def _token_holds(
    key: PublicKey | SecretKey, parts: PayProof, received: _Points, messages: tuple[int, ...]
) -> bool:
    """Tell whether the responses answer for a signature on the old state."""
    if isinstance(key, SecretKey):
        return _token_holds_for_owner(key, parts, received, messages)
    points = points_of(key)
    x = parts.challenge
    total = combine(
        (points.generators.g2, parts.responses.token),
        (points.x2, x),
        *zip(points.y2, messages, strict=True),
    )
    return points.backend.pairings_equal(
        received.token1,
        total + -received.token_mask,
        points.backend.multiply_g1(received.token2, x),
        points.backend.g2,
    )


def _token_holds_for_owner(
    key: SecretKey, parts: PayProof, received: _Points, messages: tuple[int, ...]
) -> bool:
    """Check the same equation with the sum over G2 folded into one secret scalar.

    The scalar depends on the key and on values that the customer picks; times a fresh factor it is
    uniform, so that neither the points nor the time of their computation tell anything.
    """
    points = points_of(key.public)
    backend = points.backend
    x = parts.challenge
    exponent = fold(key, x, messages) + parts.responses.token
    factor = random_nonzero_scalar()
    first = backend.multiply_g1(received.token1, factor)
    second = backend.multiply_g1(received.token1, factor * exponent % R)
    third = backend.multiply_g1(received.token2, factor * x % R)
    return backend.pairings_equal(first, received.token_mask, second + -third, backend.g2)
