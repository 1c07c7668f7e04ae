"""The public generators that belong to no merchant, with their tables, once per backend."""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import add

from zkchannels.abacus._backend import Backend, Point
from zkchannels.abacus._tables import BucketSum, FixedBase
from zkchannels.abacus.parameters import DIGITS

HASH_TAG = b"ZKCHANNELS-ABACUS-V1-BLS12381G1_XMD:SHA-256_SSWU_RO_"
NAMES = (
    b"lock/blinding",
    b"lock/value",
    b"range/blinding",
    b"range/coefficient",
    *(b"range/digit/%d" % j for j in range(DIGITS)),
)


class Generators:
    """g1 and g2 of the curve and the 36 points hashed from the names above.

    Nobody knows a relation between them; they are the same for every merchant, so that no choice
    of generators can mark a customer's proofs.
    """

    def __init__(self, backend: Backend) -> None:
        hashed = [backend.hash_to_g1(name, HASH_TAG) for name in NAMES]
        zero = backend.zero_g1
        self.g1 = FixedBase(backend.g1, zero)
        self.g2 = FixedBase(backend.g2, backend.zero_g2)
        self.lock_blinding, self.lock_value, self.range_blinding, self.range_coefficient = (
            FixedBase(point, zero) for point in hashed[:4]
        )
        digits = hashed[4:]
        self.range_sum = BucketSum([hashed[2], *digits], zero)
        self.digit_rows = [_first_multiples(point) for point in digits]
        self.digit_offset = -reduce(add, digits)
        self.encoded = b"".join(backend.encode_g1(point) for point in [backend.g1, *hashed])


def _first_multiples(point: Point) -> tuple[Point, Point, Point, Point]:
    double = point + point
    return point, double, double + point, double + double


@lru_cache(maxsize=8)
def generators(backend: Backend) -> Generators:
    """Return the generators of a backend; tables are built at their first use and kept."""
    return Generators(backend)
