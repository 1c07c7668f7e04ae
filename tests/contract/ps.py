"""The merchant's signatures once more, on arkworks alone: every scalar is the test's choice."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from py_arkworks_bls12381 import G1Point, G2Point, Scalar

R = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f624"
    "1eabfffeb153ffffb9feffffffffaaab",
    16,
)
CLOSE = 0x434C4F5345


def scalar(value: int) -> Scalar:
    """A number as arkworks wants it."""
    return Scalar.from_be_bytes((value % R).to_bytes(32))


def encode(point: G1Point | G2Point) -> bytes:
    """A point in the encoding of EIP-2537."""
    data = point.to_xy_bytes_be()
    return b"".join(bytes(16) + data[i : i + 48] for i in range(0, len(data), 48))


class Key:
    """A merchant's key; random unless its six scalars are given."""

    def __init__(self, scalars: Sequence[int] | None = None) -> None:
        self.scalars = list(scalars or [secrets.randbelow(R - 1) + 1 for _ in range(6)])
        generator = G2Point()
        self.public = encode(-generator) + b"".join(
            encode(generator * scalar(value)) for value in self.scalars
        )

    def exponent(self, messages: Sequence[int]) -> int:
        """x + sum of y_i m_i."""
        x, *y = self.scalars
        return (x + sum(a * b for a, b in zip(y, messages, strict=True))) % R

    def sign(self, messages: Sequence[int], *, u: int | None = None) -> bytes:
        """sigma1 | sigma2 on any five numbers; `u` fixes the signature's randomness."""
        base = G1Point() * scalar(u or secrets.randbelow(R - 1) + 1)
        return encode(base) + encode(base * scalar(self.exponent(messages)))

    def close(self, channel: int, lock: int, customer: int, merchant: int) -> bytes:
        """A signature on a close state."""
        return self.sign([channel, CLOSE, lock, customer, merchant])
