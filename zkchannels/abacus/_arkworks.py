"""The second backend: arkworks, independent of the first, to check it and to take its place."""

from __future__ import annotations

from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from zkchannels.abacus._backend import Backend, Point, check_scalar
from zkchannels.abacus.encoding import random_scalar
from zkchannels.abacus.errors import InvalidEncoding
from zkchannels.abacus.parameters import R


class ArkworksBackend(Backend):
    """Group arithmetic of the arkworks library; its multiplications are not constant-time."""

    name = "arkworks"

    def __init__(self) -> None:
        self.zero_g1: Any = G1Point.identity()
        self.zero_g2: Any = G2Point.identity()
        self.g1: Any = G1Point()
        self.g2: Any = G2Point()

    def encode_g1(self, point: Any) -> bytes:
        """See Backend."""
        return bytes(point.to_compressed_bytes())

    def encode_g2(self, point: Any) -> bytes:
        """See Backend."""
        return bytes(point.to_compressed_bytes())

    def multiply_g1(self, point: Any, scalar: int) -> Point:
        """See Backend."""
        check_scalar(scalar)
        product: Point = point * Scalar.from_be_bytes(scalar.to_bytes(32, "big"))
        return product

    multiply_g2 = multiply_g1

    def multiply_secret(self, point: Any, scalar: int) -> Point:
        """See Backend.

        The time of one multiplication tells the weight of its scalar, so the secret is split into
        two scalars that are uniform each.
        """
        check_scalar(scalar)
        share = random_scalar()
        return self.multiply_g1(point, (scalar - share) % R) + self.multiply_g1(point, share)

    def hash_to_g1(self, message: bytes, tag: bytes) -> Point:
        """See Backend."""
        point: Point = G1Point.hash_to_curve(message, tag)
        return point

    def pairings_equal(self, a: Any, b: Any, c: Any, d: Any) -> bool:
        """See Backend."""
        return bool(GT.pairing_check([a, -c], [b, d]))

    def _decompress_g1(self, data: bytes) -> Point:
        return _decompress(G1Point, data)

    def _decompress_g2(self, data: bytes) -> Point:
        return _decompress(G2Point, data)


def _decompress(group: Any, data: bytes) -> Point:
    try:
        point: Point = group.from_compressed_bytes(data)
    except ValueError as error:
        raise InvalidEncoding("a point is not in the group") from error
    return point


ARKWORKS = ArkworksBackend()
