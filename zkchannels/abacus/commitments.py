"""Commitments to a state and its close state, and the opening of a lock commitment."""

from __future__ import annotations

from collections.abc import Sequence

from zkchannels.abacus._backend import Point, current_backend
from zkchannels.abacus._tables import combine
from zkchannels.abacus.errors import InvalidEncoding
from zkchannels.abacus.generators import Generators, generators
from zkchannels.abacus.keys import KeyPoints, SecretKey, fold, points_of
from zkchannels.abacus.parameters import HASH_BITS, R


def commit_pair(
    points: KeyPoints, blindings: tuple[int, int], state: Sequence[int], close_tag: int
) -> tuple[Point, Point]:
    """Commit to the five values of a state, and to the same with a tag in the nonce's place.

    Returns (b1 g1 + sum m_i Y1_i, the same with b2 and close_tag). The terms that both have in
    common are computed once.
    """
    channel_id, nonce, lock, customer_balance, merchant_balance = state
    y_channel, y_nonce, y_lock, y_customer, y_merchant = points.y1
    g1 = points.generators.g1
    common = combine(
        (y_channel, channel_id),
        (y_lock, lock),
        (y_customer, customer_balance),
        (y_merchant, merchant_balance),
    )
    first = common + combine((g1, blindings[0]), (y_nonce, nonce))
    second = common + combine((g1, blindings[1]), (y_nonce, close_tag))
    return first, second


def commit_pair_as_owner(
    key: SecretKey, blindings: tuple[int, int], state: Sequence[int], close_tag: int
) -> tuple[Point, Point]:
    """Compute the same as commit_pair from the secret key: one multiple of g1 each.

    The scalars mix the secret key with values that the customer picks, so a look-up in a table
    would be an oracle on the key: only the multiplication for secrets will do.
    """
    backend = points_of(key.public).backend
    channel_id, _, lock, customer_balance, merchant_balance = state
    first = fold(key, 0, state) + blindings[0]
    close = (channel_id, close_tag, lock, customer_balance, merchant_balance)
    second = fold(key, 0, close) + blindings[1]
    return (
        backend.multiply_secret(backend.g1, first % R),
        backend.multiply_secret(backend.g1, second % R),
    )


def commit_lock(bases: Generators, blinding: int, lock: int) -> Point:
    """Return blinding * L0 + lock * L1."""
    return combine((bases.lock_blinding, blinding), (bases.lock_value, lock))


def verify_lock_opening(lock_commitment: bytes, lock_blinding: int, lock: int) -> bool:
    """Tell whether a lock commitment of a pay proof opens to a blinding and a lock.

    Args:
        lock_commitment: 48 bytes, as in the proof
        lock_blinding: in [0, R); anything else is refused
        lock: Keccak-256 of the revocation secret without its three lowest bits
    """
    if not 0 <= lock_blinding < R or not 0 <= lock < 2**HASH_BITS:
        return False
    backend = current_backend()
    try:
        backend.decode_g1(lock_commitment)
    except InvalidEncoding:
        return False
    expected = commit_lock(generators(backend), lock_blinding, lock)
    return backend.encode_g1(expected) == lock_commitment
