"""Scalars and small integers as bytes: one form each, refused and never repaired."""

from __future__ import annotations

import os
import secrets

from zkchannels.abacus.errors import InvalidEncoding
from zkchannels.abacus.parameters import MAX_BALANCE, SCALAR_LENGTH, R


def encode_scalar(value: int) -> bytes:
    """Return the 32 bytes of a scalar, big-endian.

    Raises InvalidEncoding unless 0 <= value < R: an integer is never reduced silently.
    """
    if not 0 <= value < R:
        raise InvalidEncoding("a scalar lies outside [0, R)")
    return value.to_bytes(SCALAR_LENGTH, "big")


def decode_scalar(data: bytes) -> int:
    """Return the scalar of 32 big-endian bytes.

    Raises InvalidEncoding for another length or a value of R or more.
    """
    if len(data) != SCALAR_LENGTH:
        raise InvalidEncoding(f"a scalar has 32 bytes, not {len(data)}")
    value = int.from_bytes(data, "big")
    if value >= R:
        raise InvalidEncoding("a scalar lies outside [0, R)")
    return value


def encode_amount(amount: int) -> bytes:
    """Return the 8 bytes of a signed amount, two's complement.

    Raises InvalidEncoding unless abs(amount) <= MAX_BALANCE; -2**63 has no negation and is refused.
    """
    if not -MAX_BALANCE <= amount <= MAX_BALANCE:
        raise InvalidEncoding("an amount lies outside [-(2**63 - 1), 2**63 - 1]")
    return amount.to_bytes(8, "big", signed=True)


def random_scalar() -> int:
    """Return a scalar uniform in [0, R) from the operating system's generator."""
    return secrets.randbelow(R)


def random_nonzero_scalar() -> int:
    """Return a scalar uniform in [1, R) from the operating system's generator."""
    return 1 + secrets.randbelow(R - 1)


def random_scalars(count: int) -> list[int]:
    """Return `count` independent scalars uniform in [0, R), with few calls to the system.

    Candidates of 255 bits are rejected while they are R or more, hence no bias.
    """
    scalars: list[int] = []
    while len(scalars) < count:
        pool = os.urandom(SCALAR_LENGTH * (count - len(scalars) + 4))
        for start in range(0, len(pool), SCALAR_LENGTH):
            candidate = int.from_bytes(pool[start : start + SCALAR_LENGTH], "big") >> 1
            if candidate < R:
                scalars.append(candidate)
    return scalars[:count]
