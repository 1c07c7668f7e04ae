"""A prover without scruples: every value of the statement can be chosen, nothing is checked.

It is written apart from the prover under test: the polynomials are multiplied out for arbitrary
digits, and each commitment may hold other values than the responses claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zkchannels.abacus import CLOSE, R
from zkchannels.abacus._backend import Point
from zkchannels.abacus._tables import FixedBase, combine
from zkchannels.abacus.keys import KeyPoints, PublicKey, points_of
from zkchannels.abacus.parameters import DIGITS, WEIGHTS
from zkchannels.abacus.pay_prover import PayMasks
from zkchannels.abacus.pay_wire import Commitments, Masks, PayProof, PayTranscript, Responses

from .support import Tokened

Values = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Lie:
    """What a prover sends and commits to; `claim` and `token_claim` are behind the responses."""

    nonce: int
    amount: int
    token: bytes
    token_blinding: int
    token_lock: int
    state: Values
    close: Values
    lock: int
    claim: Values
    digits: tuple[int, ...]

    def change(self, **changes: object) -> Lie:
        """Return the same lie with other values."""
        return replace(self, **changes)  # type: ignore[arg-type]


def digits_of(value: int) -> tuple[int, ...]:
    """Return 31 digits of base 4 and what is left for the last weight."""
    return (*(value >> 2 * j & 3 for j in range(DIGITS - 1)), value >> 62)


def weighted(digits: Sequence[int]) -> int:
    """Return the value of digits that may be anything."""
    return sum(weight * digit for weight, digit in zip(WEIGHTS, digits, strict=True)) % R


def truth(old: Tokened, amount: int, *, nonce: int = 12345, lock: int = 54321) -> Lie:
    """Return the honest statement of a payment, whether or not a true one exists."""
    channel, old_nonce, old_lock, customer, merchant = old.state.messages
    new = (channel, nonce, lock, (customer - amount) % R, (merchant + amount) % R)
    falling = new[3] if amount >= 0 else new[4]
    return Lie(
        nonce=old_nonce,
        amount=amount,
        token=old.token,
        token_blinding=old.blinding,
        token_lock=old_lock,
        state=new,
        close=(channel, CLOSE, lock, new[3], new[4]),
        lock=old_lock,
        claim=new,
        digits=digits_of(falling % 2**64),
    )


def with_balances(lie: Lie, customer: int, merchant: int, digits: Sequence[int]) -> Lie:
    """Return the lie with other new balances everywhere, and given digits."""
    state = (*lie.state[:3], customer % R, merchant % R)
    return lie.change(
        state=state,
        close=(*lie.close[:3], customer % R, merchant % R),
        claim=state,
        digits=tuple(digits),
    )


def polynomials(digits: Sequence[int], masks: Sequence[int], y: int) -> list[int]:
    """Return q_0..q_4 of the combined polynomial, for digits of any value."""
    total = [0] * 5
    for j, (digit, mask) in enumerate(zip(digits, masks, strict=True)):
        if j < DIGITS - 1:
            product = [1]
            for k in range(4):
                product = _times(product, [mask, digit - k])
        else:
            product = _times([0, 0, 1], _times([mask, digit], [mask, digit - 1]))
        power = pow(y, j, R)
        total = [(old + power * term) % R for old, term in zip(total, product, strict=True)]
    return total


def _times(a: Sequence[int], b: Sequence[int]) -> list[int]:
    product = [0] * (len(a) + len(b) - 1)
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            product[i + j] = (product[i + j] + left * right) % R
    return product


class Attempt:
    """One first message of a cheating prover, from which proofs can be finished."""

    def __init__(self, key: PublicKey, context: bytes, lie: Lie) -> None:
        self.key, self.context, self.lie = key, context, lie
        self.masks = PayMasks.draw()
        points = points_of(key)
        self.commitments = self._commit(points)
        self.mask_points = self._mask(points)
        self.y = self._transcript().digits_challenge(self.commitments, self.mask_points)

    def finish(
        self,
        coefficients: Sequence[int] | None = None,
        blindings: Sequence[int] | None = None,
        alter: Callable[[PayProof], PayProof] = lambda proof: proof,
    ) -> PayProof:
        """Return a proof with honest coefficients (without q_4) or with given ones."""
        points = points_of(self.key)
        if coefficients is None:
            coefficients = polynomials(self.lie.digits, self.masks.digits, self.y)[:4]
        if blindings is None:
            blindings = self.masks.coefficients
        bases = points.generators
        encoded = [
            points.backend.encode_g1(
                combine((bases.range_blinding, k), (bases.range_coefficient, q % R))
            )
            for k, q in zip(blindings, coefficients, strict=True)
        ]
        transcript = self._transcript()
        transcript.digits_challenge(self.commitments, self.mask_points)
        x = transcript.challenge(encoded)
        return alter(self._answer(x, encoded, blindings))

    def _transcript(self) -> PayTranscript:
        return PayTranscript(self.key, self.context, self.lie.nonce, self.lie.amount)

    def _commit(self, points: KeyPoints) -> Commitments:
        lie, masks, bases = self.lie, self.masks, points.generators
        backend = points.backend
        h, s = (backend.decode_g1(lie.token[at : at + 48]) for at in (0, 48))
        token1 = backend.multiply_g1(h, masks.token_factor)
        shift = (masks.token_shift - lie.token_blinding) % R
        token2 = backend.multiply_g1(s, masks.token_factor) + backend.multiply_g1(token1, shift)
        digits = bases.range_sum.combine(
            (masks.digits_blinding, *(digit % R for digit in lie.digits))
        )
        # Blindings of the commitments to the states are zero here: secrecy is not the liar's goal.
        return Commitments(
            token1=backend.encode_g1(token1),
            token2=backend.encode_g1(token2),
            state=backend.encode_g1(_sum(points.y1, lie.state)),
            close=backend.encode_g1(_sum(points.y1, lie.close)),
            lock=backend.encode_g1(combine((bases.lock_value, lie.lock))),
            digits=backend.encode_g1(digits),
        )

    def _mask(self, points: KeyPoints) -> Masks:
        masks, bases, backend = self.masks, points.generators, points.backend
        falling, other = weighted(masks.digits), masks.other_balance
        customer, merchant = (falling, other) if self.lie.amount >= 0 else (other, falling)
        state = (masks.channel_id, masks.nonce, masks.new_lock, customer, merchant)
        close = (masks.channel_id, 0, masks.new_lock, customer, merchant)
        token = (masks.channel_id, 0, masks.old_lock, customer, merchant)
        lock = combine((bases.lock_blinding, masks.lock), (bases.lock_value, masks.old_lock))
        return Masks(
            digits=backend.encode_g1(
                bases.range_sum.combine((masks.digits_mask_blinding, *masks.digits))
            ),
            state=backend.encode_g1(combine((bases.g1, masks.state)) + _sum(points.y1, state)),
            close=backend.encode_g1(combine((bases.g1, masks.close)) + _sum(points.y1, close)),
            lock=backend.encode_g1(lock),
            token=backend.encode_g2(combine((bases.g2, masks.token)) + _sum(points.y2, token)),
        )

    def _answer(self, x: int, encoded: Sequence[bytes], blindings: Sequence[int]) -> PayProof:
        lie, masks = self.lie, self.masks
        channel, nonce, lock, customer, merchant = lie.claim
        k0, k1, k2, k3 = blindings
        return PayProof(
            commitments=self.commitments,
            token_mask=self.mask_points.token,
            coefficients=tuple(encoded[1:]),
            challenge=x,
            responses=Responses(
                channel_id=(masks.channel_id + x * channel) % R,
                nonce=(masks.nonce + x * nonce) % R,
                new_lock=(masks.new_lock + x * lock) % R,
                old_lock=(masks.old_lock + x * lie.token_lock) % R,
                state=masks.state,
                close=masks.close,
                lock=masks.lock,
                token=(masks.token + x * masks.token_shift) % R,
                digits=(masks.digits_mask_blinding + x * masks.digits_blinding) % R,
                coefficients=(k0 + x * k1 + x * x * k2 + x * x * x * k3) % R,
                other_balance=(masks.other_balance + x * self._other(customer, merchant)) % R,
            ),
            digits=tuple(
                (mask + x * digit) % R for mask, digit in zip(masks.digits, lie.digits, strict=True)
            ),
        )

    def _other(self, customer: int, merchant: int) -> int:
        return merchant if self.lie.amount >= 0 else customer


def forge(key: PublicKey, context: bytes, lie: Lie) -> bytes:
    """Return the proof of a lie, everything else in it being honest."""
    return Attempt(key, context, lie).finish().to_bytes()


def _sum(bases: Sequence[FixedBase], values: Sequence[int]) -> Point:
    return combine(*((base, value % R) for base, value in zip(bases, values, strict=True)))
