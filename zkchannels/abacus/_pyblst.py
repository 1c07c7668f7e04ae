"""The default backend: blst through pyblst, whose scalar multiplication is constant-time."""

from __future__ import annotations

from typing import Any

import pyblst

from zkchannels.abacus._backend import Backend, Point, check_scalar
from zkchannels.abacus.errors import InvalidEncoding

_GENERATOR_G1 = bytes.fromhex(
    "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac58"
    "6c55e83ff97a1aeffb3af00adb22c6bb"
)
_GENERATOR_G2 = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049"
    "334cf11213945d57e5ac7d055d042b7e024aa2b2f08f0a91260805272dc51051"
    "c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)


class PyblstBackend(Backend):
    """Group arithmetic of the blst library."""

    name = "pyblst"

    def __init__(self) -> None:
        self.zero_g1: Any = pyblst.BlstP1Element()
        self.zero_g2: Any = pyblst.BlstP2Element()
        self.g1 = self.decode_g1(_GENERATOR_G1)
        self.g2 = self.decode_g2(_GENERATOR_G2)

    def encode_g1(self, point: Any) -> bytes:
        """See Backend."""
        return bytes(point.compress())

    def encode_g2(self, point: Any) -> bytes:
        """See Backend."""
        return bytes(point.compress())

    def multiply_g1(self, point: Any, scalar: int) -> Point:
        """See Backend."""
        check_scalar(scalar)
        product: Point = point.scalar_mul(scalar)
        return product

    multiply_g2 = multiply_g1
    multiply_secret = multiply_g1

    def hash_to_g1(self, message: bytes, tag: bytes) -> Point:
        """See Backend."""
        point: Point = self.zero_g1.hash_to_group(message, tag)
        return point

    def pairings_equal(self, a: Any, b: Any, c: Any, d: Any) -> bool:
        """See Backend."""
        return bool(pyblst.final_verify(pyblst.miller_loop(a, b), pyblst.miller_loop(c, d)))

    def _decompress_g1(self, data: bytes) -> Point:
        return _decompress(self.zero_g1, data)

    def _decompress_g2(self, data: bytes) -> Point:
        return _decompress(self.zero_g2, data)


def _decompress(group: Any, data: bytes) -> Point:
    try:
        point: Point = group.uncompress(data)
    except ValueError as error:
        raise InvalidEncoding("a point is not in the group") from error
    return point


PYBLST = PyblstBackend()
