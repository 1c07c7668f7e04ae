"""Blind signatures as no honest merchant makes them: each a way to cheat, to break or to mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zkchannels.abacus import R, SecretKey
from zkchannels.abacus._backend import current_backend
from zkchannels.abacus.keys import fold

FIELD = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
IDENTITY = bytes([0xC0]) + bytes(47)


@dataclass(frozen=True, slots=True)
class Honest:
    """What an honest merchant would answer, and what it takes to answer something else."""

    key: SecretKey
    commitment: bytes
    first: bytes
    second: bytes


FORGERIES: dict[str, Callable[[Honest], bytes]] = {
    "identity": lambda honest: IDENTITY + IDENTITY,
    "identity in front": lambda honest: IDENTITY + honest.second,
    "outside of the subgroup": lambda honest: honest.first + _outside_of_the_subgroup(),
    "off the curve": lambda honest: honest.first + bytes([0x80]) + bytes(46) + b"\x01",
    "not canonical": lambda honest: (
        honest.first + bytes([honest.second[0] & 0x7F]) + honest.second[1:]
    ),
    "swapped": lambda honest: honest.second + honest.first,
    "another h": lambda honest: _small_multiple() + honest.second,
    "negated": lambda honest: honest.first + bytes([honest.second[0] ^ 0x20]) + honest.second[1:],
    "a bit": lambda honest: honest.first + honest.second[:-1] + bytes([honest.second[-1] ^ 1]),
    # One unit moved from the customer to the merchant: only who has the key can sign that.
    "other balances": lambda honest: _on_another(honest, (0, 0, 0, R - 1, 1)),
    "another channel": lambda honest: _on_another(honest, (1, 0, 0, 0, 0)),
    "another key": lambda honest: SecretKey.generate().blind_sign(honest.commitment),
    "zeros": lambda honest: bytes(96),
}


def forged(how: str, key: SecretKey, commitment: bytes, honest: bytes) -> bytes:
    """Return 96 bytes in the place of an honest blind signature on a commitment."""
    return FORGERIES[how](Honest(key, commitment, honest[:48], honest[48:]))


def _on_another(honest: Honest, by: tuple[int, ...]) -> bytes:
    """Sign the commitment with its hidden messages moved."""
    backend = current_backend()
    shift = backend.multiply_secret(backend.g1, fold(honest.key, 0, by))
    moved = backend.decode_g1(honest.commitment) + shift
    return honest.key.blind_sign(backend.encode_g1(moved))


def _small_multiple() -> bytes:
    backend = current_backend()
    return backend.encode_g1(backend.multiply_secret(backend.g1, 7))


def _outside_of_the_subgroup() -> bytes:
    """Return a point of the curve y^2 = x^3 + 4 of small x; the subgroup is a 2^126th of it."""
    x = next(x for x in range(1, 50) if pow(x**3 + 4, (FIELD - 1) // 2, FIELD) == 1)
    return bytes([0x80]) + x.to_bytes(47)
