"""The one small interface to group arithmetic on BLS12-381, and the choice of what is behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, Self

from zkchannels.abacus.errors import InvalidEncoding
from zkchannels.abacus.parameters import G1_LENGTH, G2_LENGTH, R

_COMPRESSED = 0x80
_INFINITY = 0x40


class Point(Protocol):
    """A group element of some backend; immutable, and of no use outside this package."""

    def __add__(self, other: Self, /) -> Self: ...
    def __neg__(self) -> Self: ...


class Backend(ABC):
    """Group arithmetic of one library, with the traps of such libraries closed.

    Points come out of the decoder, the hash or arithmetic, never out of unchecked bytes; scalars
    outside [0, R) are refused, never reduced; the pairing equation always has two sides.
    Addition and negation are the operators of the points themselves.
    """

    name: str
    g1: Point
    g2: Point
    zero_g1: Point
    zero_g2: Point

    def decode_g1(self, data: bytes) -> Point:
        """Return the G1 point of 48 compressed bytes; raises InvalidEncoding.

        Refused besides malformed input: the identity in any form, points off the curve or outside
        the subgroup, and every input that is not the canonical encoding of its point.
        """
        _check_flags(data, G1_LENGTH)
        point = self._decompress_g1(data)
        if self.encode_g1(point) != data:
            raise InvalidEncoding("a point is not in its canonical form")
        return point

    def decode_g2(self, data: bytes) -> Point:
        """Return the G2 point of 96 compressed bytes; raises InvalidEncoding as decode_g1 does."""
        _check_flags(data, G2_LENGTH)
        point = self._decompress_g2(data)
        if self.encode_g2(point) != data:
            raise InvalidEncoding("a point is not in its canonical form")
        return point

    @abstractmethod
    def encode_g1(self, point: Point) -> bytes:
        """Return the 48 compressed bytes of a G1 point."""

    @abstractmethod
    def encode_g2(self, point: Point) -> bytes:
        """Return the 96 compressed bytes of a G2 point."""

    @abstractmethod
    def multiply_g1(self, point: Point, scalar: int) -> Point:
        """Return scalar * point; the time taken may depend on the scalar."""

    @abstractmethod
    def multiply_g2(self, point: Point, scalar: int) -> Point:
        """Return scalar * point; the time taken may depend on the scalar."""

    @abstractmethod
    def multiply_secret(self, point: Point, scalar: int) -> Point:
        """Return scalar * point in G1 for a scalar that depends on the merchant's secret key."""

    @abstractmethod
    def hash_to_g1(self, message: bytes, tag: bytes) -> Point:
        """RFC 9380 hash_to_curve, suite BLS12381G1_XMD:SHA-256_SSWU_RO_, with the tag as DST."""

    @abstractmethod
    def pairings_equal(self, a: Point, b: Point, c: Point, d: Point) -> bool:
        """Tell whether e(a, b) = e(c, d), with a and c in G1, b and d in G2."""

    @abstractmethod
    def _decompress_g1(self, data: bytes) -> Point: ...

    @abstractmethod
    def _decompress_g2(self, data: bytes) -> Point: ...


def check_scalar(scalar: int) -> None:
    """Raise InvalidEncoding unless 0 <= scalar < R: libraries would reduce it without a word."""
    if not 0 <= scalar < R:
        raise InvalidEncoding("a scalar lies outside [0, R)")


def _check_flags(data: bytes, length: int) -> None:
    if len(data) != length:
        raise InvalidEncoding(f"a point has {length} bytes, not {len(data)}")
    if not data[0] & _COMPRESSED:
        raise InvalidEncoding("a point is not in compressed form")
    if data[0] & _INFINITY:
        raise InvalidEncoding("the identity is refused")


def load_backend(name: str) -> Backend:
    """Return the backend "pyblst" or "arkworks"; raises ValueError for another name."""
    # Imported here: a process loads the library of the backend that it uses; arkworks besides only
    # to expand a point (eip2537.py).
    if name == "pyblst":
        from zkchannels.abacus._pyblst import PYBLST  # noqa: PLC0415

        return PYBLST
    if name == "arkworks":
        from zkchannels.abacus._arkworks import ARKWORKS  # noqa: PLC0415

        return ARKWORKS
    raise ValueError(f"no backend is named {name!r}")


_chosen: ContextVar[Backend | None] = ContextVar("abacus_backend", default=None)


def current_backend() -> Backend:
    """Return the backend that keys made now are bound to; pyblst unless chosen otherwise."""
    return _chosen.get() or load_backend("pyblst")


@contextmanager
def use_backend(backend: str | Backend) -> Iterator[Backend]:
    """Bind keys that are made inside the block, and everything done with them, to a backend."""
    chosen = load_backend(backend) if isinstance(backend, str) else backend
    token = _chosen.set(chosen)
    try:
        yield chosen
    finally:
        _chosen.reset(token)
