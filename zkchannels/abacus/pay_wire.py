"""The bytes of a pay proof and the transcript that both parties hash."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

from zkchannels.abacus.encoding import decode_scalar, encode_amount, encode_scalar
from zkchannels.abacus.errors import InvalidEncoding
from zkchannels.abacus.keys import PublicKey
from zkchannels.abacus.parameters import (
    CHALLENGE_LENGTH,
    DIGITS,
    G1_LENGTH,
    G2_LENGTH,
    SCALAR_LENGTH,
)
from zkchannels.abacus.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Commitments:
    """The points of the first message that are sent, compressed: all in G1, 48 bytes each.

    Attributes:
        token1: the token's first half, made new
        token2: the token's second half, made new and blinded
        state: commitment to the new state
        close: commitment to the new close state
        lock: commitment to the old lock
        digits: commitment to the digits of the balance that decreases
    """

    token1: bytes
    token2: bytes
    state: bytes
    close: bytes
    lock: bytes
    digits: bytes


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks' points, compressed; the verifier computes all but `token` again.

    Attributes:
        digits, state, close, lock: in G1, 48 bytes each
        token: in G2, 96 bytes
    """

    digits: bytes
    state: bytes
    close: bytes
    lock: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class Responses:
    """The prover's answers to the challenge x, in the order of the wire: scalars in [0, R)."""

    channel_id: int
    nonce: int
    new_lock: int
    old_lock: int
    state: int
    close: int
    lock: int
    token: int
    digits: int
    coefficients: int
    other_balance: int


_POINTS: Final = len(fields(Commitments))
_RESPONSES: Final = len(fields(Responses))
_COEFFICIENT_POINTS: Final = 3
_TOKEN_MASK_AT: Final = _POINTS * G1_LENGTH
_COEFFICIENTS_AT: Final = _TOKEN_MASK_AT + G2_LENGTH
_CHALLENGE_AT: Final = _COEFFICIENTS_AT + _COEFFICIENT_POINTS * G1_LENGTH
_RESPONSES_AT: Final = _CHALLENGE_AT + CHALLENGE_LENGTH
PAY_PROOF_LENGTH: Final = _RESPONSES_AT + (_RESPONSES + DIGITS) * SCALAR_LENGTH


@dataclass(frozen=True, slots=True)
class PayProof:
    """A pay proof in parts.

    Attributes:
        commitments: six points of the first message
        token_mask: the only mask that is sent, in G2, 96 bytes
        coefficients: K1, K2, K3, 48 bytes each
        challenge: the short challenge x, not zero
        responses: eleven scalars
        digits: f_0..f_31, scalars
    """

    commitments: Commitments
    token_mask: bytes
    coefficients: tuple[bytes, ...]
    challenge: int
    responses: Responses
    digits: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the 1,920 bytes of the proof."""
        points = [getattr(self.commitments, field.name) for field in fields(Commitments)]
        scalars = [getattr(self.responses, field.name) for field in fields(Responses)]
        return b"".join(
            [
                *points,
                self.token_mask,
                *self.coefficients,
                self.challenge.to_bytes(CHALLENGE_LENGTH, "big"),
                *map(encode_scalar, scalars),
                *map(encode_scalar, self.digits),
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the parts of 1,920 bytes; points are not decoded yet.

        Raises InvalidEncoding for another length, a scalar of R or more, or a zero challenge.
        """
        if len(data) != PAY_PROOF_LENGTH:
            raise InvalidEncoding(f"a pay proof has {PAY_PROOF_LENGTH} bytes")
        challenge = int.from_bytes(data[_CHALLENGE_AT:_RESPONSES_AT], "big")
        if challenge == 0:
            raise InvalidEncoding("the challenge is zero")
        scalars = [decode_scalar(part) for part in _parts(data[_RESPONSES_AT:], SCALAR_LENGTH)]
        return cls(
            commitments=Commitments(*_parts(data[:_TOKEN_MASK_AT], G1_LENGTH)),
            token_mask=data[_TOKEN_MASK_AT:_COEFFICIENTS_AT],
            coefficients=tuple(_parts(data[_COEFFICIENTS_AT:_CHALLENGE_AT], G1_LENGTH)),
            challenge=challenge,
            responses=Responses(*scalars[:_RESPONSES]),
            digits=tuple(scalars[_RESPONSES:]),
        )


class PayTranscript:
    """The transcript of a pay proof, in its two steps."""

    def __init__(self, key: PublicKey, context: bytes, nonce: int, amount: int) -> None:
        self._transcript = Transcript(b"zkchannels/abacus/pay/1")
        self._transcript.absorb(b"key", key.digest)
        self._transcript.absorb(b"context", context)
        self._transcript.absorb(b"nonce", encode_scalar(nonce))
        self._transcript.absorb(b"amount", encode_amount(amount))

    def digits_challenge(self, commitments: Commitments, masks: Masks) -> int:
        """Return y, which combines the polynomials of all digits into one."""
        for label, data in (
            (b"token1", commitments.token1),
            (b"token2", commitments.token2),
            (b"state", commitments.state),
            (b"close", commitments.close),
            (b"lock", commitments.lock),
            (b"digits", commitments.digits),
            (b"digits-mask", masks.digits),
            (b"state-mask", masks.state),
            (b"close-mask", masks.close),
            (b"lock-mask", masks.lock),
            (b"token-mask", masks.token),
        ):
            self._transcript.absorb(label, data)
        return self._transcript.wide_challenge(b"y")

    def challenge(self, coefficients: list[bytes]) -> int:
        """Return x, after the four commitments to the coefficients, K0 first."""
        for index, data in enumerate(coefficients):
            self._transcript.absorb(b"k%d" % index, data)
        return self._transcript.short_challenge(b"x")


def _parts(data: bytes, length: int) -> list[bytes]:
    return [data[start : start + length] for start in range(0, len(data), length)]
