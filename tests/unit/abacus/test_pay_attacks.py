"""Lies about a payment, told by a prover who does everything else right."""

from __future__ import annotations

import pytest

from zkchannels.abacus import (
    CLOSE,
    MAX_BALANCE,
    InvalidProof,
    R,
    SecretKey,
    State,
    check_blinded,
    verify_pay,
)
from zkchannels.abacus.keys import points_of

from .adversary import Attempt, Lie, digits_of, forge, truth, weighted, with_balances
from .support import CONTEXT, Customer, Tokened, Verifier

AMOUNT = 100


def accepted(verifier: Verifier, merchant: SecretKey, lie: Lie) -> bool:
    """Tell whether a lie is believed."""
    proof = forge(merchant.public, CONTEXT, lie)
    try:
        verify_pay(verifier, CONTEXT, lie.nonce, lie.amount, proof)
    except InvalidProof:
        return False
    return True


@pytest.mark.parametrize("amount", [AMOUNT, 0, 1000, -AMOUNT, -500])
def test_the_cheating_prover_is_believed_when_it_tells_the_truth(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, amount: int
) -> None:
    """The attacker of these tests is able: without a lie its proofs are accepted."""
    assert accepted(verifier, merchant, truth(opened, amount))


BALANCE_LIES = {
    "customer not charged": (1000, 600),
    "customer charged too little": (901, 600),
    "merchant not credited": (900, 500),
    "merchant credited too little": (900, 599),
    "sum raised": (901, 601),
    "customer credited": (1100, 400),
}


@pytest.mark.parametrize("balances", BALANCE_LIES.values(), ids=BALANCE_LIES)
def test_new_balances_must_follow_from_the_token(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, balances: tuple[int, int]
) -> None:
    """New balances that are not the old ones moved by the amount are refused."""
    customer, other = balances
    lie = with_balances(truth(opened, AMOUNT), customer, other, digits_of(customer))
    assert not accepted(verifier, merchant, lie)


FIELDS = {"channel": 0, "nonce": 1, "lock": 2, "customer": 3, "merchant": 4}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_the_close_state_must_equal_the_state(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, field: int
) -> None:
    """A close state with another channel, lock or balance, or without CLOSE, is refused."""
    honest = truth(opened, AMOUNT)
    close = list(honest.close)
    close[field] = honest.state[1] if field == FIELDS["nonce"] else close[field] + 1
    assert not accepted(verifier, merchant, honest.change(close=tuple(close)))


@pytest.mark.parametrize("field", ["channel", "lock", "customer", "merchant"])
def test_the_state_must_equal_the_close_state(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, field: str
) -> None:
    """A state that differs from what the responses claim is refused."""
    honest = truth(opened, AMOUNT)
    state = list(honest.state)
    state[FIELDS[field]] += 1
    assert not accepted(verifier, merchant, honest.change(state=tuple(state)))


def test_another_channel_is_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """A token of one channel makes no state of another channel."""
    honest = truth(opened, AMOUNT)
    other = (honest.state[0] + 1, *honest.state[1:])
    lie = honest.change(state=other, close=(other[0], *honest.close[1:]), claim=other)
    assert not accepted(verifier, merchant, lie)


def test_the_lock_commitment_must_hold_the_tokens_lock(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """Another lock in C3, alone or together with the responses, is refused."""
    honest = truth(opened, AMOUNT)
    assert not accepted(verifier, merchant, honest.change(lock=honest.lock + 1))
    both = honest.change(lock=honest.lock + 1, token_lock=honest.lock + 1)
    assert not accepted(verifier, merchant, both)


def test_the_token_must_be_on_the_nonce_that_is_sent(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """A made-up nonce under an old token is refused (first forgery known from an older design)."""
    honest = truth(opened, AMOUNT)
    assert not accepted(verifier, merchant, honest.change(nonce=honest.nonce + 1))


def test_a_made_up_nonce_cannot_be_explained_after_the_challenge(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """A token mask that is corrected for the made-up nonce once x is known is refused."""
    lie = truth(opened, AMOUNT).change(nonce=opened.state.nonce + 1)
    attempt = Attempt(merchant.public, CONTEXT, lie)
    proof = attempt.finish()
    points = points_of(merchant.public)
    mask = points.backend.decode_g2(proof.token_mask)
    correction = points.backend.multiply_g2(points.y2[1].point, proof.challenge)
    corrected = points.backend.encode_g2(mask + correction)
    data = proof.to_bytes()
    assert data.count(proof.token_mask) == 1
    with pytest.raises(InvalidProof):
        verify_pay(verifier, CONTEXT, lie.nonce, AMOUNT, data.replace(proof.token_mask, corrected))


def test_a_token_that_is_no_signature_is_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """Two points that the merchant never made, or another merchant's signature, are no token."""
    honest = truth(opened, AMOUNT)
    swapped = opened.token[48:] + opened.token[:48]
    assert not accepted(verifier, merchant, honest.change(token=swapped))
    foreign = SecretKey.generate().sign(opened.state)
    assert not accepted(verifier, merchant, honest.change(token=foreign, token_blinding=0))


def test_a_token_with_a_wrong_blinding_is_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """The blinding of the token is part of what is proven."""
    lie = truth(opened, AMOUNT).change(token_blinding=(opened.blinding + 1) % R)
    assert not accepted(verifier, merchant, lie)


WRONG_DIGITS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    # name: customer's old balance, amount, digits of the new one
    "digit -1": (10, 11, (-1, *[0] * 31)),
    "digit -4": (10, 14, (-4, *[0] * 31)),
    "second digit -1": (10, 14, (0, -1, *[0] * 30)),
    "digit 4 with a borrow": (10, 6, (4, *[0] * 31)),
    "digit 4 under digit -1": (10, 10, (4, -1, *[0] * 30)),
    "digit 7": (10, 3, (7, *[0] * 31)),
    "top digit 2": (2**63 + 10, 10, (*[0] * 31, 2)),
    "top digit -1": (10, 10 + 2**62, (*[0] * 31, -1)),
    "top digit 4**31": (4**31 * 2**62, 0, (*[0] * 31, 4**31)),
    "wrapped -1 in one digit": (10, 11, (R - 1, *[0] * 31)),
    "quarter of a wrapped value": (10, 11, (0, -pow(4, -1, R), *[0] * 30)),
}


@pytest.mark.parametrize("case", WRONG_DIGITS.values(), ids=WRONG_DIGITS)
def test_digits_outside_their_sets_are_refused(
    merchant: SecretKey, verifier: Verifier, case: tuple[int, int, tuple[int, ...]]
) -> None:
    """A digit outside {0, 1, 2, 3}, or a last one outside {0, 1}, is refused whatever the sum."""
    balance, amount, digits = case
    token = impossible_token(merchant, balance, 500)
    value = weighted(digits)
    assert value == (balance - amount) % R
    lie = with_balances(truth(token, amount), value, 500 + amount, digits)
    assert not accepted(verifier, merchant, lie)


def impossible_token(merchant: SecretKey, customer: int, other: int) -> Tokened:
    """Return a token on balances of any size, which the merchant would never sign."""
    state = object.__new__(State)
    values = {"channel_id": 7, "nonce": 99, "lock": 98}
    values |= {"customer_balance": customer % R, "merchant_balance": other % R}
    for name, value in values.items():
        object.__setattr__(state, name, value)
    return Tokened(state, merchant.sign(state), 0)


@pytest.mark.parametrize("value", [-1, -4, 2**63, 2**64, R - 2**62])
def test_digits_in_their_sets_must_add_up_to_the_balance(
    merchant: SecretKey, verifier: Verifier, value: int
) -> None:
    """Good digits of another value than the committed balance are refused."""
    token = impossible_token(merchant, value + 1, 500)
    digits = digits_of(value % 2**63)
    lie = with_balances(truth(token, 1), value, 501, digits)
    assert not accepted(verifier, merchant, lie)


def test_a_refund_beyond_the_merchants_balance_is_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """With a negative amount it is the merchant's balance that must not fall below zero."""
    for digits in (digits_of(0), (-1, *[0] * 31), digits_of(2**63 - 1)):
        lie = with_balances(truth(opened, -501), 1501, -1, digits)
        assert not accepted(verifier, merchant, lie)


def test_the_falling_balance_is_chosen_by_the_sign_of_the_amount(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """Digits of the balance that grows are no answer for the one that falls."""
    pay = with_balances(truth(opened, 1001), -1, 1501, digits_of(1501))
    assert not accepted(verifier, merchant, pay)
    refund = with_balances(truth(opened, -501), 1501, -1, digits_of(1501))
    assert not accepted(verifier, merchant, refund)


@pytest.mark.parametrize("nonce", [CLOSE, CLOSE + R])
def test_a_closing_authorization_is_no_token(
    merchant: SecretKey, verifier: Verifier, opened: Tokened, nonce: int
) -> None:
    """The signature on a close state is refused as a token, with n = CLOSE and n = CLOSE + R."""
    close = opened.state.close_state()
    signature = merchant.sign(close)
    check_blinded(merchant.public, signature, close, 0)
    lie = truth(opened, AMOUNT).change(token=signature, token_blinding=0, nonce=CLOSE)
    proof = forge(merchant.public, CONTEXT, lie)
    with pytest.raises(InvalidProof):
        verify_pay(verifier, CONTEXT, nonce, AMOUNT, proof)


def test_a_state_whose_nonce_is_close_is_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """Not even a token of a state with that nonce can be spent: such a state only locks itself."""
    lie = truth(opened, AMOUNT, nonce=CLOSE)
    assert accepted(verifier, merchant, lie)
    state = object.__new__(State)
    for name, value in zip(State.__slots__, lie.state, strict=True):
        object.__setattr__(state, name, value)
    following = truth(Tokened(state, merchant.sign(state), 0), 1)
    assert following.nonce == CLOSE
    assert not accepted(verifier, merchant, following)


def test_halves_of_two_proofs_make_no_third(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """The first half of one proof with the second half of another one is refused."""
    lie = truth(opened, AMOUNT)
    first, second = (forge(merchant.public, CONTEXT, lie) for _ in range(2))
    for cut in (48, 96, 144, 240, 288, 384, 528, 544, 896):
        with pytest.raises(InvalidProof):
            verify_pay(verifier, CONTEXT, lie.nonce, AMOUNT, first[:cut] + second[cut:])


def test_permuted_coefficients_are_refused(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """K1, K2, K3 in another order are refused, sent so or committed so."""
    lie = truth(opened, AMOUNT)
    attempt = Attempt(merchant.public, CONTEXT, lie)
    data = attempt.finish().to_bytes()
    k1, k2, k3 = (data[at : at + 48] for at in (384, 432, 480))
    for order in ((k2, k1, k3), (k1, k3, k2), (k3, k2, k1), (k2, k3, k1)):
        with pytest.raises(InvalidProof):
            verify_pay(
                verifier, CONTEXT, lie.nonce, AMOUNT, data[:384] + b"".join(order) + data[528:]
            )
    blindings = attempt.masks.coefficients
    swapped = attempt.finish(blindings=(blindings[1], blindings[0], *blindings[2:]))
    assert verify_pay(verifier, CONTEXT, lie.nonce, AMOUNT, swapped.to_bytes())


def test_a_token_cannot_be_spent_beyond_its_balance(
    merchant: SecretKey, verifier: Verifier, customer: Customer
) -> None:
    """No digits make a proof of paying one unit more than the customer has."""
    token = customer.establish(0, MAX_BALANCE)
    for digits in ((-1, *[0] * 31), digits_of(0), digits_of(MAX_BALANCE)):
        lie = with_balances(truth(token, 1), -1, MAX_BALANCE + 1, digits)
        assert not accepted(verifier, merchant, lie)
