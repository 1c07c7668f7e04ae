"""Honest channels from opening to close."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkchannels.abacus import (
    CLOSE,
    MAX_BALANCE,
    PAY_PROOF_LENGTH,
    EstablishBlindings,
    InvalidSignature,
    InvalidStatement,
    PayBlindings,
    R,
    SecretKey,
    State,
    check_blinded,
    closing_authorization,
    lock_of,
    prepare_pay,
    prove_pay,
    verify_closing,
    verify_lock_opening,
    verify_pay,
)

from .support import CONTEXT, Customer, Tokened, Verifier

BLINDINGS = PayBlindings(1, 2, 3)


def test_a_whole_channel_with_each_backend(backend: object) -> None:
    """Establish, pay, refund and close work on bytes alone, in both modes."""
    key = SecretKey.generate()
    customer = Customer(key)
    token = customer.establish(1000, 0)
    for amount, verifier in ((400, key), (-150, key.public), (0, key)):
        token = customer.pay(token, amount, verifier)
    assert token.state.customer_balance == 750
    assert token.state.merchant_balance == 250

    new, blindings = customer.next_state(token.state, 50)
    proof = prove_pay(
        key.public, CONTEXT, token.state, token.token, token.blinding, new, 50, blindings
    )
    assert len(proof) == PAY_PROOF_LENGTH
    commitments = verify_pay(key, CONTEXT, token.state.nonce, 50, proof)
    answer = key.blind_sign(commitments.close)
    closing = closing_authorization(key.public, answer, blindings.close, new.close_state())
    assert verify_closing(key.public, new.close_state(), closing)
    secret = customer.secrets.secret(3, 0)
    assert lock_of(secret) == token.state.lock
    assert verify_lock_opening(commitments.lock, blindings.lock, lock_of(secret))


EXTREMES = [
    # the customer's balance, the merchant's, the amount
    (MAX_BALANCE, 0, 0),
    (MAX_BALANCE, 0, MAX_BALANCE),
    (0, MAX_BALANCE, -MAX_BALANCE),
    (0, MAX_BALANCE, 0),
    (MAX_BALANCE - 1, 1, -1),
    (0, 0, 0),
    (2**62, 2**62 - 1, 1),
]


@pytest.mark.parametrize("case", EXTREMES)
def test_extreme_balances_can_be_paid(
    verifier: Verifier, customer: Customer, case: tuple[int, int, int]
) -> None:
    """Paying all, refunding all, nothing, and balances of 2**63 - 1 are proven and accepted."""
    balance, other, amount = case
    token = customer.pay(customer.establish(balance, other), amount, verifier)
    assert token.state.customer_balance == balance - amount


def balance_after(balance: int, other: int, draw: float) -> int:
    """Return an amount within what both balances allow: -other .. balance."""
    return min(balance, max(-other, round(draw * (balance + other)) - other))


@settings(max_examples=6, deadline=None)
@given(
    split=st.sampled_from([0, 1, 2**31, MAX_BALANCE // 2, MAX_BALANCE]),
    steps=st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_chained_payments_of_any_size(merchant: SecretKey, split: int, steps: list[float]) -> None:
    """Random chains of payments and refunds, extremes included, keep the sum of the balances."""
    customer = Customer(merchant)
    token = customer.establish(split, MAX_BALANCE - split)
    for number, step in enumerate(steps):
        state = token.state
        amount = balance_after(state.customer_balance, state.merchant_balance, step)
        verifier: Verifier = merchant if number % 2 else merchant.public
        token = customer.pay(token, amount, verifier)
        assert token.state.customer_balance + token.state.merchant_balance == MAX_BALANCE


def test_the_prover_refuses_a_false_statement(merchant: SecretKey, opened: Tokened) -> None:
    """No proof leaves an honest prover for another channel, balance or amount than the true one."""
    old = opened.state
    states = [
        (State(8, 1, 1, 900, 600), 100),
        (State(7, 1, 1, 901, 600), 100),
        (State(7, 1, 1, 900, 601), 100),
        (State(7, 1, 1, 900, 600), 101),
        (State(7, 1, 1, 900, 600), -100),
        (State(7, 1, 1, 900, 600), MAX_BALANCE + 1),
    ]
    for new, amount in states:
        with pytest.raises(InvalidStatement):
            prove_pay(
                merchant.public,
                CONTEXT,
                old,
                opened.token,
                opened.blinding,
                new,
                amount,
                BLINDINGS,
            )


def test_the_prover_refuses_a_token_that_would_mark_the_proof(
    merchant: SecretKey, opened: Tokened
) -> None:
    """A tampered token, a wrong blinding or another state's token is refused before proving."""
    old = opened.state
    new = State(7, 1, 1, 900, 600)
    tampered = opened.token[:48] + merchant.sign(old)[48:]
    other = State(7, old.nonce + 1, old.lock, 1000, 500)
    for state, token, blinding in (
        (old, tampered, opened.blinding),
        (old, opened.token, opened.blinding + 1),
        (old, opened.token[48:] + opened.token[:48], opened.blinding),
        (old, opened.token[:-1], opened.blinding),
        (other, opened.token, opened.blinding),
    ):
        with pytest.raises(InvalidSignature):
            prove_pay(merchant.public, CONTEXT, state, token, blinding, new, 100, BLINDINGS)


@pytest.mark.parametrize(
    "values",
    [
        (2**253, 1, 1, 1, 1),
        (-1, 1, 1, 1, 1),
        (1, R, 1, 1, 1),
        (1, -1, 1, 1, 1),
        (1, CLOSE, 1, 1, 1),
        (1, 1, 2**253, 1, 1),
        (1, 1, -1, 1, 1),
        (1, 1, 1, -1, 1),
        (1, 1, 1, 2**63, 1),
        (1, 1, 1, 1, -1),
        (1, 1, 1, 1, 2**63),
    ],
)
def test_a_state_outside_its_ranges_cannot_be_made(values: tuple[int, ...]) -> None:
    """A state with a value out of range, or with CLOSE as its nonce, is refused when made."""
    with pytest.raises(InvalidStatement):
        State(*values)


@pytest.mark.parametrize(
    ("blinding", "lock"), [(4, 13), (3, 14), (3 + R, 13), (3 - R, 13), (3, 13 + R), (3, 2**253)]
)
def test_a_lock_commitment_opens_one_way_only(
    merchant: SecretKey, opened: Tokened, blinding: int, lock: int
) -> None:
    """Another lock or blinding, or the same plus the group order, is no opening."""
    old = State(7, 11, 13, 1000, 500)
    token = merchant.sign(old)
    new = State(7, 1, 1, 900, 600)
    proof = prove_pay(merchant.public, CONTEXT, old, token, 0, new, 100, BLINDINGS)
    commitment = verify_pay(merchant, CONTEXT, 11, 100, proof).lock
    assert verify_lock_opening(commitment, 3, 13)
    assert not verify_lock_opening(commitment, blinding, lock)
    assert not verify_lock_opening(bytes(48), 3, 13)
    assert not verify_lock_opening(b"\xc0" + bytes(47), 0, 0)


def test_a_token_is_checked_once_per_key_object(merchant: SecretKey, opened: Tokened) -> None:
    """A token that was checked on arrival is believed when spent, but only that very one."""
    blindings = EstablishBlindings(5, 6)
    customer = Customer(merchant)
    commitments = customer.proven(opened.state, blindings)
    token = merchant.blind_sign(commitments.state)
    check_blinded(merchant.public, token, opened.state, 5)
    new = State(7, 1, 1, 900, 600)
    prove_pay(merchant.public, CONTEXT, opened.state, token, 5, new, 100, BLINDINGS)
    with pytest.raises(InvalidSignature):
        prove_pay(merchant.public, CONTEXT, opened.state, token, 6, new, 100, BLINDINGS)


def test_modes_return_the_same_commitments(merchant: SecretKey, opened: Tokened) -> None:
    """What a verifier returns does not depend on its mode."""
    new = State(7, 1, 1, 1100, 400)
    proof = prove_pay(
        merchant.public,
        CONTEXT,
        opened.state,
        opened.token,
        opened.blinding,
        new,
        -100,
        BLINDINGS,
    )
    results = {
        verify_pay(key, CONTEXT, opened.state.nonce, -100, proof)
        for key in (merchant, merchant.public)
    }
    assert len(results) == 1


@pytest.mark.parametrize("shown", ["none", "the token", "another", "with another blinding"])
def test_a_prepared_proof_verifies_and_is_used_once(shown: str) -> None:
    """Masks that were made ahead prove one payment; the next proof draws its own.

    A token that was randomised ahead is used where it is the one that is spent.
    """
    key = SecretKey.generate()
    customer = Customer(key)
    token = customer.establish(1000, 500)
    new, blindings = customer.next_state(token.state, 50)
    prepared = prepare_pay(key.public)
    if shown == "the token":
        prepared.show(token.token, token.blinding)
    elif shown == "another":
        prepared.show(key.sign(new), 0)
    elif shown == "with another blinding":
        prepared.show(token.token, token.blinding + 1)
    proofs = [
        prove_pay(
            key.public,
            CONTEXT,
            token.state,
            token.token,
            token.blinding,
            new,
            50,
            blindings,
            prepared=prepared,
        )
        for _ in range(2)
    ]
    for proof in proofs:
        verify_pay(key, CONTEXT, token.state.nonce, 50, proof)
    # The only mask that is sent lies behind the six commitments.
    assert proofs[0][288:384] != proofs[1][288:384]


@pytest.mark.parametrize("refund", [False, True])
def test_a_preparation_for_another_proof_is_left_alone(refund: bool) -> None:
    """Masks for the other direction or for another key are not used, and stay usable."""
    key, other = SecretKey.generate(), SecretKey.generate()
    customer = Customer(key)
    token = customer.establish(1000, 500)
    amount = -50 if refund else 50
    new, blindings = customer.next_state(token.state, amount)
    wrong = (prepare_pay(key.public, refund=not refund), prepare_pay(other.public, refund=refund))
    for prepared in wrong:
        proof = prove_pay(
            key.public,
            CONTEXT,
            token.state,
            token.token,
            token.blinding,
            new,
            amount,
            blindings,
            prepared=prepared,
        )
        verify_pay(key, CONTEXT, token.state.nonce, amount, proof)
        assert prepared.take(prepared.key, refund=prepared.refund) is not None
