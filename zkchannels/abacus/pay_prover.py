"""The customer's side of a payment: the proof that a new state follows from a signed one."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Self

from zkchannels.abacus._backend import Point
from zkchannels.abacus._tables import combine
from zkchannels.abacus.commitments import commit_lock, commit_pair
from zkchannels.abacus.digits import (
    COEFFICIENTS,
    blind_coefficients,
    coefficients_of,
    commit_coefficients,
    commit_digits,
    decompose,
    recompose,
)
from zkchannels.abacus.encoding import random_nonzero_scalar, random_scalars
from zkchannels.abacus.errors import InvalidStatement
from zkchannels.abacus.keys import KeyPoints, PublicKey, points_of
from zkchannels.abacus.parameters import CLOSE, DIGITS, MAX_BALANCE, R
from zkchannels.abacus.pay_wire import Commitments, Masks, PayProof, PayTranscript, Responses
from zkchannels.abacus.signatures import decode_signature, ensure_checked
from zkchannels.abacus.states import State


@dataclass(frozen=True, slots=True, repr=False)
class PayBlindings:
    """Blindings of the commitments to the new state, its close state and the old lock; secret."""

    state: int
    close: int
    lock: int


@dataclass(frozen=True, slots=True, repr=False)
class PayMasks:
    """Everything random in one proof, fresh for each, used once; secret.

    Attributes:
        token_factor: multiplies both halves of the token, not zero
        token_shift: blinds the token's second half
        digits_blinding: blinding of the commitment to the digits
        digits: masks of the 32 digits; their weighted sum masks the balance that decreases
        digits_mask_blinding: blinding of the commitment to `digits`
        channel_id .. lock: masks of the hidden values and of the blindings
        token: mask of token_shift
        coefficients: blindings of the commitments to the four coefficients
    """

    token_factor: int
    token_shift: int
    digits_blinding: int
    digits: tuple[int, ...]
    digits_mask_blinding: int
    channel_id: int
    nonce: int
    new_lock: int
    old_lock: int
    other_balance: int
    state: int
    close: int
    lock: int
    token: int
    coefficients: tuple[int, ...]

    @classmethod
    def draw(cls) -> Self:
        """Return fresh masks from the operating system's generator."""
        singles = random_scalars(12)
        return cls(
            token_factor=random_nonzero_scalar(),
            token_shift=singles[0],
            digits_blinding=singles[1],
            digits=tuple(random_scalars(DIGITS)),
            digits_mask_blinding=singles[2],
            channel_id=singles[3],
            nonce=singles[4],
            new_lock=singles[5],
            old_lock=singles[6],
            other_balance=singles[7],
            state=singles[8],
            close=singles[9],
            lock=singles[10],
            token=singles[11],
            coefficients=tuple(random_scalars(COEFFICIENTS)),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Payment:
    """What the prover knows: both states, the token on the old one, and all blindings; secret."""

    old: State
    token: bytes
    token_blinding: int
    new: State
    amount: int
    blindings: PayBlindings

    @property
    def falling_balance(self) -> int:
        """The new balance that needs the range argument: the other one can only grow."""
        return self.new.customer_balance if self.amount >= 0 else self.new.merchant_balance

    @property
    def other_balance(self) -> int:
        """The new balance that needs none."""
        return self.new.merchant_balance if self.amount >= 0 else self.new.customer_balance


@dataclass(frozen=True, slots=True, repr=False)
class _ShownToken:
    """A token as a proof shows it, randomised by the proof's masks; secret until then."""

    token: bytes
    blinding: int
    points: tuple[Point, Point]


@dataclass(frozen=True, slots=True, repr=False)
class _Made:
    """What of one proof is made: its masks, their points, perhaps its token; secret.

    `coefficients` are the points of the masks of that name.
    """

    masks: PayMasks
    points: Masks
    coefficients: tuple[Point, ...]
    shown: _ShownToken | None = None


class PreparedPay:
    """The half of a pay proof that needs neither states nor session: its masks; secret.

    For one proof alone: two proofs under the same masks tell the merchant what they hide. So it is
    taken once, in the process that made it, and must not outlive that process in any copy.
    """

    __slots__ = ("_made", "_process", "key", "refund")

    def __init__(self, key: PublicKey, *, refund: bool) -> None:
        self._made: list[_Made] = [_make(points_of(key), refund, PayMasks.draw())]
        self._process = os.getpid()
        self.key = key
        self.refund = refund

    def show(self, token: bytes, blinding: int) -> None:
        """Randomise the token that will be spent, once that is known; no other is ruled out.

        Args:
            token: the merchant's blind signature on the old state as received, 96 bytes
            blinding: blinding of the commitment that the merchant signed

        Raises:
            InvalidSignature: the token is malformed
        """
        made = self.take(self.key, refund=self.refund)
        if made is not None:
            points = _randomise(points_of(self.key), token, blinding, made.masks)
            self._made.append(replace(made, shown=_ShownToken(token, blinding, points)))

    def take(self, key: PublicKey, *, refund: bool) -> _Made | None:
        """Return what is made, or None when it is of no use for this proof."""
        if self._process != os.getpid() or self.key is not key or self.refund is not refund:
            return None
        # Popping is atomic: of two threads one gets them.
        try:
            return self._made.pop()
        except IndexError:
            return None


def prepare_pay(key: PublicKey, *, refund: bool = False) -> PreparedPay:
    """Do most of a proof's work before the payment is known, for `prove_pay`.

    Args:
        key: the merchant's key; the same object is to be given to `prove_pay`
        refund: whether the amount will be negative
    """
    return PreparedPay(key, refund=refund)


def prove_pay(  # noqa: PLR0917 - the statement has this many parts
    key: PublicKey,
    context: bytes,
    old: State,
    token: bytes,
    token_blinding: int,
    new: State,
    amount: int,
    blindings: PayBlindings,
    *,
    prepared: PreparedPay | None = None,
) -> bytes:
    """Prove that a new state follows from a signed one by moving an amount to the merchant.

    Args:
        key: the merchant's key
        context: from `context`
        old: the state that is spent; its nonce becomes known to the merchant
        token: the merchant's blind signature on it as received, 96 bytes
        token_blinding: blinding of the commitment that the merchant signed
        new: the state after the payment
        amount: positive: the customer pays; negative: a refund
        blindings: of the three commitments
        prepared: from `prepare_pay`; it is used up, or ignored when it does not fit

    Returns:
        the proof, 1,920 bytes

    Raises:
        InvalidStatement: the values are no true statement
        InvalidSignature: the token is not the merchant's; it would mark the proof
        InvalidEncoding: a blinding lies outside [0, R)
    """
    check_payment(old, new, amount)
    ensure_checked(key, token, old, token_blinding)
    payment = Payment(old, token, token_blinding, new, amount, blindings)
    made = None if prepared is None else prepared.take(key, refund=amount < 0)
    if made is None:
        return prove_pay_with(key, context, payment, PayMasks.draw()).to_bytes()
    return _prove(key, context, payment, made).to_bytes()


def check_payment(old: State, new: State, amount: int) -> None:
    """Raise InvalidStatement unless `new` follows from `old` by the amount.

    Ranges hold already: a State is not made outside them.
    """
    if abs(amount) > MAX_BALANCE:
        raise InvalidStatement("the amount lies outside [-(2**63 - 1), 2**63 - 1]")
    if new.channel_id != old.channel_id:
        raise InvalidStatement("the states belong to different channels")
    if new.customer_balance != old.customer_balance - amount:
        raise InvalidStatement("the customer's new balance does not match the amount")
    if new.merchant_balance != old.merchant_balance + amount:
        raise InvalidStatement("the merchant's new balance does not match the amount")


def prove_pay_with(key: PublicKey, context: bytes, payment: Payment, masks: PayMasks) -> PayProof:
    """Do the work of prove_pay with given masks, for this package and its test vectors."""
    return _prove(key, context, payment, _make(points_of(key), payment.amount < 0, masks))


def _prove(key: PublicKey, context: bytes, payment: Payment, made: _Made) -> PayProof:
    points = points_of(key)
    masks, mask_points = made.masks, made.points
    digits = decompose(payment.falling_balance)
    commitments = _commit(points, payment, made, digits)
    transcript = PayTranscript(key, context, payment.old.nonce, payment.amount)
    y = transcript.digits_challenge(commitments, mask_points)
    coefficients = [
        points.backend.encode_g1(point)
        for point in commit_coefficients(
            points.generators, made.coefficients, coefficients_of(digits, masks.digits, y)
        )
    ]
    x = transcript.challenge(coefficients)
    return PayProof(
        commitments=commitments,
        token_mask=mask_points.token,
        coefficients=tuple(coefficients[1:]),
        challenge=x,
        responses=_respond(payment, masks, x),
        digits=tuple(
            (mask + x * digit) % R for mask, digit in zip(masks.digits, digits, strict=True)
        ),
    )


def _commit(points: KeyPoints, payment: Payment, made: _Made, digits: list[int]) -> Commitments:
    backend = points.backend
    blindings = payment.blindings
    shown = made.shown
    if shown is not None and (shown.token, shown.blinding) == (
        payment.token,
        payment.token_blinding,
    ):
        token = shown.points
    else:
        token = _randomise(points, payment.token, payment.token_blinding, made.masks)
    state, close = commit_pair(
        points, (blindings.state, blindings.close), payment.new.messages, CLOSE
    )
    lock = commit_lock(points.generators, blindings.lock, payment.old.lock)
    committed = commit_digits(points.generators, made.masks.digits_blinding, digits)
    return Commitments(*map(backend.encode_g1, (*token, state, close, lock, committed)))


def _randomise(
    points: KeyPoints, token: bytes, blinding: int, masks: PayMasks
) -> tuple[Point, Point]:
    backend = points.backend
    h, s = decode_signature(points, token)
    token1 = backend.multiply_g1(h, masks.token_factor)
    # The token's own blinding goes into the shift: the token is never unblinded.
    shift = (masks.token_shift - blinding) % R
    return token1, backend.multiply_g1(s, masks.token_factor) + backend.multiply_g1(token1, shift)


def _make(points: KeyPoints, refund: bool, masks: PayMasks) -> _Made:
    blinded = blind_coefficients(points.generators, masks.coefficients)
    return _Made(masks, _mask(points, refund, masks), blinded)


def _mask(points: KeyPoints, refund: bool, masks: PayMasks) -> Masks:
    backend = points.backend
    bases = points.generators
    falling = recompose(masks.digits)
    other = masks.other_balance
    customer, merchant = (other, falling) if refund else (falling, other)
    state, close = commit_pair(
        points,
        (masks.state, masks.close),
        (masks.channel_id, masks.nonce, masks.new_lock, customer, merchant),
        0,
    )
    y_channel, _, y_lock, y_customer, y_merchant = points.y2
    token = combine(
        (bases.g2, masks.token),
        (y_channel, masks.channel_id),
        (y_lock, masks.old_lock),
        (y_customer, customer),
        (y_merchant, merchant),
    )
    return Masks(
        digits=backend.encode_g1(
            bases.range_sum.combine((masks.digits_mask_blinding, *masks.digits))
        ),
        state=backend.encode_g1(state),
        close=backend.encode_g1(close),
        lock=backend.encode_g1(commit_lock(bases, masks.lock, masks.old_lock)),
        token=backend.encode_g2(token),
    )


def _respond(payment: Payment, masks: PayMasks, x: int) -> Responses:
    blindings = payment.blindings
    k0, k1, k2, k3 = masks.coefficients
    return Responses(
        channel_id=(masks.channel_id + x * payment.new.channel_id) % R,
        nonce=(masks.nonce + x * payment.new.nonce) % R,
        new_lock=(masks.new_lock + x * payment.new.lock) % R,
        old_lock=(masks.old_lock + x * payment.old.lock) % R,
        state=(masks.state + x * blindings.state) % R,
        close=(masks.close + x * blindings.close) % R,
        lock=(masks.lock + x * blindings.lock) % R,
        token=(masks.token + x * masks.token_shift) % R,
        digits=(masks.digits_mask_blinding + x * masks.digits_blinding) % R,
        coefficients=(k0 + x * (k1 + x * (k2 + x * k3))) % R,
        other_balance=(masks.other_balance + x * payment.other_balance) % R,
    )
