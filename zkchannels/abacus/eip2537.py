"""Points in the form of the EVM's BLS12-381 precompiles (EIP-2537): affine, 64 bytes a coordinate.

A compressed point has one affine form. arkworks finds its square root, whichever backend computes:
blst's binding does not give coordinates. What is expanded is public, or becomes so on chain.
"""

from __future__ import annotations

from typing import Any, Final

from zkchannels.abacus.errors import InvalidEncoding

P: Final = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f624"
    "1eabfffeb153ffffb9feffffffffaaab",
    16,
)
"""Prime of the field that coordinates are in."""

_COORDINATE = 64
_SIGN = 0x20
_COMPRESSED = 0x80

Fp2 = tuple[int, int]


def expand_g1(compressed: bytes) -> bytes:
    """Return the 128 bytes x | y of a G1 point given in compressed form.

    Raises InvalidEncoding for what is on no curve. Membership in the subgroup is not looked at.
    """
    # Imported here: many a process never expands a point.
    from py_arkworks_bls12381 import G1Point  # noqa: PLC0415

    return _expand(G1Point, compressed)


def expand_g2(compressed: bytes) -> bytes:
    """Return the 256 bytes x.c0 | x.c1 | y.c0 | y.c1 of a G2 point; raises like expand_g1."""
    from py_arkworks_bls12381 import G2Point  # noqa: PLC0415

    return _expand(G2Point, compressed)


def compress_g1(data: bytes) -> bytes:
    """Return the 48 compressed bytes of a G1 point in EIP-2537 form.

    Raises InvalidEncoding for a wrong length, set padding, a coordinate of P or more, a point off
    the curve, or infinity. Membership in the subgroup is left to the decoder of the result.
    """
    x, y = _split(data, 2)
    if (y * y - x**3 - 4) % P:
        raise InvalidEncoding("a point is not on the curve")
    return _compress(_is_larger(y), x)


def compress_g2(data: bytes) -> bytes:
    """Return the 96 compressed bytes of a G2 point in EIP-2537 form; raises like compress_g1."""
    x0, x1, y0, y1 = _split(data, 4)
    if _square_fp2((y0, y1)) != _curve_g2((x0, x1)):
        raise InvalidEncoding("a point is not on the curve")
    return _compress(_is_larger_fp2((y0, y1)), x1, x0)


def _split(data: bytes, count: int) -> list[int]:
    if len(data) != count * _COORDINATE:
        raise InvalidEncoding(f"a point has {count * _COORDINATE} bytes, not {len(data)}")
    coordinates = [
        int.from_bytes(data[start : start + _COORDINATE], "big")
        for start in range(0, len(data), _COORDINATE)
    ]
    if any(coordinate >= P for coordinate in coordinates):
        raise InvalidEncoding("a coordinate is not below the prime")
    if not any(coordinates):
        raise InvalidEncoding("the identity is refused")
    return coordinates


def _expand(group: Any, compressed: bytes) -> bytes:
    try:
        affine = bytes(group.from_compressed_bytes_unchecked(compressed).to_xy_bytes_be())
    except ValueError as error:
        raise InvalidEncoding("a point is not on the curve") from error
    return b"".join(
        affine[start : start + 48].rjust(_COORDINATE, b"\0") for start in range(0, len(affine), 48)
    )


def _compress(larger: bool, *halves: int) -> bytes:
    data = bytearray(b"".join(half.to_bytes(48, "big") for half in halves))
    data[0] |= _COMPRESSED | (_SIGN if larger else 0)
    return bytes(data)


def _is_larger(y: int) -> bool:
    return 2 * y > P


def _is_larger_fp2(y: Fp2) -> bool:
    return _is_larger(y[1]) if y[1] else _is_larger(y[0])


def _square_fp2(a: Fp2) -> Fp2:
    return (a[0] + a[1]) * (a[0] - a[1]) % P, 2 * a[0] * a[1] % P


def _curve_g2(x: Fp2) -> Fp2:
    """Return x**3 + 4 (1 + u), the right side of the equation of the curve of G2."""
    c0, c1 = _square_fp2(x)
    return (c0 * x[0] - c1 * x[1] + 4) % P, (c0 * x[1] + c1 * x[0] + 4) % P
