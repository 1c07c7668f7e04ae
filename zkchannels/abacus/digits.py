"""The range argument: a committed value is a sum of 31 digits of base 4 and one bit.

No trusted parameters and no pairings. The responses of the digits determine the response of the
value itself, which ties the argument to the commitment of a state (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from zkchannels.abacus._backend import Point
from zkchannels.abacus._tables import combine
from zkchannels.abacus.generators import Generators
from zkchannels.abacus.parameters import DIGITS, WEIGHTS, R

COEFFICIENTS = 4

# Elementary symmetric functions e1, e2, e3 of {d, d-1, d-2, d-3} for the digits d = 0..3; e4 = 0.
_SYMMETRIC = ((-6, 11, -6), (-2, -1, 2), (2, -1, -2), (6, 11, 6))


def decompose(value: int) -> list[int]:
    """Return the 32 digits of a value in [0, 2**63), lowest first; the last is 0 or 1."""
    return [value >> 2 * j & 3 for j in range(DIGITS)]


def recompose(digits: Sequence[int]) -> int:
    """Return sum w_j * digits[j] mod R, for digits, their masks or their responses."""
    return sum(weight * digit for weight, digit in zip(WEIGHTS, digits, strict=True)) % R


def commit_digits(bases: Generators, blinding: int, digits: Sequence[int]) -> Point:
    """Return blinding * H + sum digits[j] * G_j, with the same operations for every digit."""
    total = combine((bases.range_blinding, blinding)) + bases.digit_offset
    # Each row holds 1..4 times its base and the offset takes one away: no digit adds nothing.
    for row, digit in zip(bases.digit_rows, digits, strict=True):
        total = total + row[digit]
    return total


def blind_coefficients(bases: Generators, blindings: Sequence[int]) -> tuple[Point, ...]:
    """Return blindings[i] * H: the part of K_i that needs no coefficient."""
    return tuple(combine((bases.range_blinding, blinding)) for blinding in blindings)


def commit_coefficients(
    bases: Generators, blinded: Sequence[Point], coefficients: Sequence[int]
) -> list[Point]:
    """Return K_i = blindings[i] * H + coefficients[i] * F; `blinded` has the first halves."""
    return [
        point + combine((bases.range_coefficient, coefficient))
        for point, coefficient in zip(blinded, coefficients, strict=True)
    ]


def coefficients_of(digits: Sequence[int], masks: Sequence[int], y: int) -> list[int]:
    """Return the coefficients q_0..q_3 of Q(X) = sum y**j p_j(X), digits being in their sets.

    With f = masks[j] + digits[j] X the polynomial p_j is f (f-X) (f-2X) (f-3X) for the digits of
    base 4, and X**2 f (f-X) for the bit. Its coefficient of X**4 vanishes exactly for a digit that
    is in its set.
    """
    q0 = q1 = q2 = q3 = 0
    power = 1
    for digit, mask in zip(digits[:-1], masks[:-1], strict=True):
        e1, e2, e3 = _SYMMETRIC[digit]
        square = mask * mask % R
        weighted = power * square % R
        q0 += weighted * square
        q1 += weighted * mask * e1
        q2 += weighted * e2
        q3 += power * mask * e3
        power = power * y % R
    bit, mask = digits[-1], masks[-1]
    q2 += power * (mask * mask % R)
    q3 += power * (mask * (2 * bit - 1))
    return [q0 % R, q1 % R, q2 % R, q3 % R]


def evaluate(responses: Sequence[int], x: int, y: int) -> int:
    """Return Q(x), the sum of y**j p_j at x, with the responses f_j for masks[j] + digits[j] x."""
    bit = responses[-1]
    total = bit * (bit - x) % R * (x * x) % R
    for f in responses[-2::-1]:
        total = (total * y + f * (f - x) % R * ((f - 2 * x) * (f - 3 * x) % R)) % R
    return total
