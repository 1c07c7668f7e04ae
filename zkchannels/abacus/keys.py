"""The merchant's key: secret scalars, public elements in both groups, and the checks on them."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from zkchannels.abacus import eip2537
from zkchannels.abacus._backend import Backend, Point, current_backend
from zkchannels.abacus._tables import FixedBase
from zkchannels.abacus.encoding import (
    decode_scalar,
    encode_scalar,
    random_nonzero_scalar,
)
from zkchannels.abacus.errors import AbacusError, InvalidEncoding, InvalidKey
from zkchannels.abacus.generators import Generators, generators
from zkchannels.abacus.parameters import (
    G1_HALF_LENGTH,
    G1_LENGTH,
    G2_LENGTH,
    MESSAGES,
    PUBLIC_KEY_LENGTH,
    SCALAR_LENGTH,
    SECRET_KEY_LENGTH,
    R,
)
from zkchannels.abacus.states import CloseState, State
from zkchannels.abacus.transcript import Transcript
from zkchannels.recent import Recent

_ESCROW_POINT_LENGTH = 256
_REMEMBERED_CHECKS = 1024
_EXPECTED_SIGNATURES = 64
ESCROW_KEY_LENGTH = (MESSAGES + 2) * _ESCROW_POINT_LENGTH


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeyPoints:
    """The elements of a key with their tables, for the modules of this package only."""

    backend: Backend
    generators: Generators
    y1: tuple[FixedBase, ...]
    x2: FixedBase
    y2: tuple[FixedBase, ...]
    checked: Recent[None]
    """Digests of checks that passed."""
    expected: Recent[Point]
    """Of signatures to come, by blinding and messages: the element of G2 that they are for."""


class PublicKey:
    """A merchant's public key: Y1_1..5 in G1, X2 and Y2_1..5 in G2, every element checked.

    A key is bound to the backend that was current when it was made, and so is all that is done
    with it. Multiples of its elements are tabulated at first use and kept with it.

    Attributes:
        digest: what ties a proof to this key, 64 bytes
    """

    def __init__(self, data: bytes) -> None:
        backend = current_backend()
        g1_half, g2_half = _split_public(data)
        y1 = [backend.decode_g1(part) for part in g1_half]
        x2, *y2 = [backend.decode_g2(part) for part in g2_half]
        _check_halves(backend, y1, y2)
        self._data = bytes(data)
        self._points = KeyPoints(
            backend=backend,
            generators=generators(backend),
            y1=tuple(FixedBase(point, backend.zero_g1) for point in y1),
            x2=FixedBase(x2, backend.zero_g2),
            y2=tuple(FixedBase(point, backend.zero_g2) for point in y2),
            checked=Recent(_REMEMBERED_CHECKS),
            expected=Recent(_EXPECTED_SIGNATURES),
        )
        self.digest = _digest(self._points, g1_half, g2_half)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the key Y1_1..5 | X2 | Y2_1..5, compressed, 816 bytes.

        Raises InvalidEncoding for an element that the strict decoder refuses and InvalidKey where
        e(Y1_i, g2) differs from e(g1, Y2_i): such a Y1_i would make proofs fail or not according
        to hidden values, and so mark a customer.
        """
        return cls(data)

    @classmethod
    def from_escrow(cls, g1_half: bytes, escrow_key: bytes) -> Self:
        """Return the key whose G2 half is the escrow contract's.

        Args:
            g1_half: Y1_1..5 compressed, 240 bytes, from anywhere
            escrow_key: -g2 | X2 | Y2_1..5 in EIP-2537 form, 1,792 bytes, from the contract

        Raises:
            InvalidEncoding: a point is malformed
            InvalidKey: the contract's -g2 is not the standard one, or the halves disagree
        """
        if len(escrow_key) != ESCROW_KEY_LENGTH:
            raise InvalidEncoding(f"the escrow's key has {ESCROW_KEY_LENGTH} bytes")
        if len(g1_half) != G1_HALF_LENGTH:
            raise InvalidEncoding(f"the G1 half of a key has {G1_HALF_LENGTH} bytes")
        negated, *rest = _parts(escrow_key, _ESCROW_POINT_LENGTH)
        backend = current_backend()
        if negated != eip2537.expand_g2(backend.encode_g2(-backend.g2)):
            raise InvalidKey("the escrow's -g2 is not the negated standard generator")
        return cls(g1_half + b"".join(eip2537.compress_g2(part) for part in rest))

    def to_bytes(self) -> bytes:
        """Return Y1_1..5 | X2 | Y2_1..5, compressed, 816 bytes."""
        return self._data

    def g1_half(self) -> bytes:
        """Return Y1_1..5, compressed, 240 bytes: the part that is not on chain."""
        return self._data[:G1_HALF_LENGTH]

    def to_escrow_key(self) -> bytes:
        """Return -g2 | X2 | Y2_1..5 in EIP-2537 form, 1,792 bytes, for the contract."""
        backend = self._points.backend
        negated = backend.encode_g2(-backend.g2)
        parts = [negated, *_parts(self._data[G1_HALF_LENGTH:], G2_LENGTH)]
        return b"".join(eip2537.expand_g2(part) for part in parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicKey):
            return NotImplemented
        return self._data == other._data

    def __hash__(self) -> int:
        return hash(self._data)

    def __repr__(self) -> str:
        return f"PublicKey(digest={self.digest.hex()[:16]}..)"


class SecretKey:
    """A merchant's secret key x, y_1..y_5 with its public key; one key serves exactly one escrow.

    It signs nothing outside this protocol.
    """

    def __init__(self, scalars: Sequence[int]) -> None:
        if len(scalars) != MESSAGES + 1 or not all(0 < scalar < R for scalar in scalars):
            raise InvalidKey("a secret key is six scalars in [1, R)")
        backend = current_backend()
        self._x, *y = scalars
        self._y = tuple(y)
        self._x1 = backend.multiply_secret(backend.g1, self._x)
        g1_half = [backend.encode_g1(backend.multiply_secret(backend.g1, scalar)) for scalar in y]
        # Made once, where nobody times it, so the plain multiplication in G2 is good enough.
        g2_half = [backend.encode_g2(backend.multiply_g2(backend.g2, scalar)) for scalar in scalars]
        self.public = PublicKey(b"".join(g1_half + g2_half))

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's generator."""
        return cls([random_nonzero_scalar() for _ in range(MESSAGES + 1)])

    @classmethod
    def from_bytes(cls, data: bytes, *, expected: bytes | None = None) -> Self:
        """Return the key of 192 bytes, x | y_1..y_5, with all public elements computed anew.

        Raises InvalidKey for malformed bytes, a zero scalar, or when the computed public key is
        not the `expected` one (816 bytes).
        """
        if len(data) != SECRET_KEY_LENGTH:
            raise InvalidKey(f"a secret key has {SECRET_KEY_LENGTH} bytes")
        try:
            key = cls([decode_scalar(part) for part in _parts(data, SCALAR_LENGTH)])
        except AbacusError:
            # Without the cause: what is wrong with a secret key stays inside this frame.
            raise InvalidKey("a secret key is six scalars in [1, R)") from None
        if expected is not None and not hmac.compare_digest(expected, key.public.to_bytes()):
            raise InvalidKey("the secret key does not belong to the expected public key")
        return key

    def to_bytes(self) -> bytes:
        """Return x | y_1..y_5, 192 bytes, secret."""
        return b"".join(encode_scalar(scalar) for scalar in (self._x, *self._y))

    def blind_sign(self, commitment: bytes) -> bytes:
        """Return the blind signature (u g1, u (X1 + C)) on a commitment of 48 bytes: 96 bytes.

        u is fresh for every call: two commitments under one u would give away u y_i, and with
        them every future signature. Raises InvalidEncoding for a malformed commitment.
        """
        return self._blind_sign(commitment, random_nonzero_scalar())

    def _blind_sign(self, commitment: bytes, u: int) -> bytes:
        backend = points_of(self.public).backend
        blinded = self._x1 + backend.decode_g1(commitment)
        first = backend.multiply_secret(backend.g1, u)
        second = backend.multiply_secret(blinded, u)
        return backend.encode_g1(first) + backend.encode_g1(second)

    def sign(self, message: State | CloseState) -> bytes:
        """Return a signature on an open message, without blinding: 96 bytes."""
        backend = points_of(self.public).backend
        exponent = fold(self, 1, message.messages)
        first = backend.multiply_secret(backend.g1, random_nonzero_scalar())
        second = backend.multiply_secret(first, exponent)
        return backend.encode_g1(first) + backend.encode_g1(second)

    def __repr__(self) -> str:
        return f"SecretKey({self.public!r})"


def points_of(key: PublicKey) -> KeyPoints:
    """Return the elements of a key, for the modules of this package."""
    return key._points


def fold(key: SecretKey, times_x: int, values: Sequence[int]) -> int:
    """Return times_x * x + sum values[i] * y_i mod R: a secret, for `multiply_secret` alone."""
    total = sum(y * value for y, value in zip(key._y, values, strict=True))
    return (times_x * key._x + total) % R


def _parts(data: bytes, length: int) -> list[bytes]:
    return [data[start : start + length] for start in range(0, len(data), length)]


def _split_public(data: bytes) -> tuple[list[bytes], list[bytes]]:
    if len(data) != PUBLIC_KEY_LENGTH:
        raise InvalidEncoding(f"a public key has {PUBLIC_KEY_LENGTH} bytes")
    return _parts(data[:G1_HALF_LENGTH], G1_LENGTH), _parts(data[G1_HALF_LENGTH:], G2_LENGTH)


def _check_halves(backend: Backend, y1: Sequence[Point], y2: Sequence[Point]) -> None:
    for first, second in zip(y1, y2, strict=True):
        if not backend.pairings_equal(first, backend.g2, backend.g1, second):
            raise InvalidKey("the two halves of the key disagree")


def _digest(points: KeyPoints, g1_half: list[bytes], g2_half: list[bytes]) -> bytes:
    transcript = Transcript(b"zkchannels/abacus/key/1")
    transcript.absorb(b"generators", points.generators.encoded)
    transcript.absorb(b"g2", points.backend.encode_g2(points.backend.g2))
    for part in g1_half:
        transcript.absorb(b"y1", part)
    transcript.absorb(b"x2", g2_half[0])
    for part in g2_half[1:]:
        transcript.absorb(b"y2", part)
    return transcript.digest()
