"""The decisions alone, in every order that hypothesis can think of.

The machine plays a daemon that may be stolen: any request, any numbers, in any order. It keeps a
ledger of what left the signer and holds the rules of docs/protocol.md against it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from customersigner import decide
from customersigner.record import Accepted, Channel, Step, Terms
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.errors import kind_of

TERMS = Terms(b"\x01" * 32, 1, b"\x02" * 20, b"\x03" * 32, 100, 20)
OPERATIONS = [bytes([number]) * 16 for number in range(3)]
SIGNED = {"signature": b"\x04" * 256, "guard": b"\x05" * 20, "permit": b"\x06" * 65}

offsets = st.sampled_from([0, 0, 0, -1, -1, -2, 1])
"""From the next state: mostly the request that may be next, often one that came before."""
attempts = st.sampled_from([0, 0, 0, 1, 1, 2])
operations = st.sampled_from(OPERATIONS)
amounts = st.sampled_from([10, 10, 0, 60, -15, -30])
kinds = st.sampled_from(["mutual", "unilateral"])


class Decisions(RuleBasedStateMachine):
    """Requests in any order against the record, as the signer makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel | None = None
        self.proved: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.verified: dict[int, Step] = {}
        self.released: set[int] = set()
        self.closed: set[int] = set()
        self.open_until = 0

    @initialize(states=st.integers(0, 3))
    def begin(self, states: int) -> None:
        """Let the channel live for some states before its first close."""
        self.open_until = states

    @rule(steps=st.integers(1, 6))
    def go_on(self, steps: int) -> None:
        """Some steps of an honest daemon, from wherever the channel is."""
        for _ in range(steps):
            channel = self.channel
            if channel is None:
                self.establish(operation=OPERATIONS[0], customer=100)
            elif channel.attempts:
                self.authorize(offset=0, attempt=channel.proved.attempt, good=True)
            elif channel.accepted is not None and channel.completed != channel.next_index - 1:
                self.complete(offset=0, attempt=channel.accepted.step.attempt)
            else:
                self.pay(offset=0, attempt=0, operation=OPERATIONS[1], amount=10)

    @rule(operation=operations, customer=st.sampled_from([100, 101]))
    def establish(self, operation: bytes, customer: int) -> None:
        """The first proof leaves if the decision admits it."""
        terms = replace(TERMS, customer_deposit=customer)
        with suppress(RpcError):
            self.channel = decide.establish(self.channel, terms, operation)
            self._proof_left(0, 0, operation, 0)

    @rule(offset=offsets, attempt=attempts, operation=operations, amount=amounts)
    def pay(self, offset: int, attempt: int, operation: bytes, amount: int) -> None:
        """A payment's proof leaves if the decision admits it."""
        if self.channel is None:
            return
        index = self._index(offset)
        with suppress(RpcError):
            payment = decide.pay(
                self.channel, index=index, attempt=attempt, operation=operation, amount=amount
            )
            assert not self.closed, "a payment was prepared after a signed close"
            assert payment.old.index == index - 1
            assert payment.old == self.verified[index - 1]
            self.channel = payment.channel
            self._proof_left(index, attempt, operation, amount)

    @rule(offset=offsets, attempt=attempts, good=st.booleans())
    def authorize(self, offset: int, attempt: int, good: bool) -> None:
        """An authorization arrives; a bad one is found out by the verification in between."""
        if self.channel is None:
            return
        index = self._index(offset)
        with suppress(RpcError):
            step = decide.authorize(self.channel, index, attempt)
            if step is not None:
                if not good:
                    return
                assert (index, attempt) in self.proved
                assert not self.closed, "an authorization was accepted after a signed close"
                assert index not in self.verified, "two authorizations for one state"
                self.channel = decide.accept(self.channel, step, lock=index, **SIGNED)
                self.verified[index] = step
            if index > 0:
                self.released.add(index - 1)

    @rule(offset=offsets, attempt=attempts)
    def complete(self, offset: int, attempt: int) -> None:
        """A good pay token arrives."""
        if self.channel is not None:
            with suppress(RpcError):
                self.channel = decide.complete(self.channel, self._index(offset - 1), attempt)

    @precondition(lambda self: len(self.verified) > self.open_until)
    @rule(offset=offsets, kind=kinds)
    def close(self, offset: int, kind: Any) -> None:
        """A close is signed if the decision admits it."""
        if self.channel is not None:
            index = self._index(offset - 1)
            with suppress(RpcError, decide.NewerState):
                self.channel = decide.close(self.channel, index, kind)
                self.closed.add(index)

    @rule(offset=offsets)
    def dispute(self, offset: int) -> None:
        """A secret is given again only if it left before."""
        if self.channel is not None:
            index = self._index(offset - 1)
            with suppress(RpcError):
                decide.dispute(self.channel, index)
                assert index in self.released, "a secret left by way of a dispute"

    @invariant()
    def no_secret_without_a_way_out(self) -> None:
        """Secret i leaves only after authorization i+1 was verified (rules 15, verify-ca)."""
        assert all(index + 1 in self.verified for index in self.released)

    @invariant()
    def no_close_on_a_revoked_state(self) -> None:
        """No close is signed on a released state, no secret released of a closed one (14, 15)."""
        assert not self.closed & self.released
        assert all(index > max(self.released, default=-1) for index in self.closed)

    @invariant()
    def the_record_tells_what_left(self) -> None:
        """The record names the newest authorization, the highest secret and the last proof."""
        if self.channel is None:
            assert not self.proved
            return
        assert self.channel.released == max(self.released, default=None)
        newest = self.channel.accepted
        assert (newest.step.index if newest else None) == max(self.verified, default=None)
        last = self.channel.proved
        assert self.proved[last.index, last.attempt] == (last.operation, last.amount)
        assert (self.channel.closing is not None) == bool(self.closed)

    @invariant()
    def money_is_conserved(self) -> None:
        """Every state splits exactly the deposits, with no negative share."""
        if self.channel is None:
            return
        total = self.channel.terms.customer_deposit + self.channel.terms.merchant_deposit
        for step in (*self.verified.values(), *self.channel.attempts):
            assert step.customer_balance + step.merchant_balance == total
            assert min(step.customer_balance, step.merchant_balance) >= 0

    def _index(self, offset: int) -> int:
        assert self.channel is not None
        return max(0, self.channel.next_index + offset)

    def _proof_left(self, index: int, attempt: int, operation: bytes, amount: int) -> None:
        """One (index, attempt) proves one payment for ever (rules 13, operation-once)."""
        known = self.proved.setdefault((index, attempt), (operation, amount))
        assert known == (operation, amount), "a second payment from one attempt"


Decisions.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestDecisions = Decisions.TestCase


def channel_at(index: int, *, completed: bool = True) -> Channel:
    """A channel that went through payments of 10 up to a state."""
    channel = decide.establish(None, TERMS, OPERATIONS[0])
    for number in range(index + 1):
        if number:
            channel = decide.pay(
                channel, index=number, attempt=0, operation=OPERATIONS[1], amount=10
            ).channel
        step = decide.authorize(channel, number, 0)
        assert step is not None
        channel = decide.accept(channel, step, lock=number, **SIGNED)
        if number < index or completed:
            channel = decide.complete(channel, number, 0)
    return channel


def refusal(function: Any, *arguments: Any, **options: Any) -> str:
    """The kind of the refusal that a decision is."""
    with pytest.raises(RpcError) as caught:
        function(*arguments, **options)
    return kind_of(caught.value)


def test_the_next_attempt_waits_for_no_gap_and_ends_with_the_first_accepted() -> None:
    """Attempts count up from 0; the first accepted one ends them, whichever it was."""
    channel = channel_at(1)
    pay = {"index": 2, "operation": OPERATIONS[2]}
    assert refusal(decide.pay, channel, attempt=1, amount=5, **pay) == "out_of_order"
    channel = decide.pay(channel, attempt=0, amount=5, **pay).channel
    assert refusal(decide.pay, channel, attempt=0, amount=6, **pay) == "already_different"
    assert refusal(decide.pay, channel, attempt=2, amount=6, **pay) == "out_of_order"
    channel = decide.pay(channel, attempt=1, amount=6, **pay).channel
    step = decide.authorize(channel, 2, 0)
    assert step is not None
    assert step.amount == 5
    channel = decide.accept(channel, step, lock=2, **SIGNED)
    assert refusal(decide.authorize, channel, 2, 1) == "out_of_order"
    assert refusal(decide.pay, channel, attempt=1, amount=6, **pay) == "already_different"
    assert decide.pay(channel, attempt=0, amount=5, **pay).channel == channel


def test_a_late_authorization_is_dropped_after_a_close() -> None:
    """An authorization that arrives after a close was signed is refused, and so are payments."""
    channel = decide.pay(
        channel_at(1), index=2, attempt=0, operation=OPERATIONS[2], amount=5
    ).channel
    channel = decide.close(channel, 1, "unilateral")
    assert refusal(decide.authorize, channel, 2, 0) == "closing"
    assert (
        refusal(decide.pay, channel, index=2, attempt=0, operation=OPERATIONS[2], amount=5)
        == "closing"
    )


def test_what_was_released_is_repeated_after_a_close() -> None:
    """A close on the newest state leaves the repeat that revokes the one before it."""
    channel = decide.close(channel_at(1), 1, "mutual")
    assert decide.authorize(channel, 1, 0) is None


@pytest.mark.parametrize("amount", [91, -31, 2**63 - 1, -(2**63 - 1)])
def test_amounts_beyond_a_balance_have_no_proof(amount: int) -> None:
    """A payment above the customer's balance or a refund above the merchant's is refused."""
    payment = {"index": 2, "attempt": 0, "operation": OPERATIONS[2]}
    assert refusal(decide.pay, channel_at(1), amount=amount, **payment) == "invalid"


def test_a_payment_needs_the_pay_token_of_its_state() -> None:
    """No proof leaves from a state whose token was not checked."""
    channel = channel_at(1, completed=False)
    payment = {"index": 2, "attempt": 0, "operation": OPERATIONS[2], "amount": 1}
    assert refusal(decide.pay, channel, **payment) == "out_of_order"


def test_a_close_names_the_newest_state() -> None:
    """Older states are answered with the newer record, unknown ones refused; kinds add up."""
    channel = channel_at(2)
    with pytest.raises(decide.NewerState):
        decide.close(channel, 1, "unilateral")
    assert refusal(decide.close, channel, 3, "unilateral") == "out_of_order"
    once = decide.close(channel, 2, "mutual")
    assert once.closing is not None
    assert (once.closing.mutual, once.closing.unilateral) == (True, False)
    twice = decide.close(once, 2, "unilateral")
    assert twice.closing is not None
    assert (twice.closing.mutual, twice.closing.unilateral) == (True, True)


def test_the_first_terms_of_a_channel_stay() -> None:
    """Other deposits or another operation on a channel id are refused, too large ones too."""
    channel = decide.establish(None, TERMS, OPERATIONS[0])
    assert decide.establish(channel, TERMS, OPERATIONS[0]) == channel
    other = replace(TERMS, merchant_deposit=21)
    assert refusal(decide.establish, channel, other, OPERATIONS[0]) == "already_different"
    assert refusal(decide.establish, channel, TERMS, OPERATIONS[1]) == "already_different"
    large = replace(TERMS, customer_deposit=2**63 - 1)
    assert refusal(decide.establish, None, large, OPERATIONS[0]) == "invalid"
    assert refusal(decide.establish, channel_at(1), TERMS, OPERATIONS[0]) == "out_of_order"


def adoption(index: int, **changes: Any) -> dict[str, Any]:
    """What a daemon that is at a state would have its signer adopt."""
    newest = channel_at(index)
    known: dict[str, Any] = {
        "terms": TERMS,
        "accepted": newest.accepted,
        "proved": None,
        "released": newest.released,
        "completed": newest.completed,
        "closing": None,
    }
    return known | changes


@pytest.mark.parametrize("own", [None, *range(4)])
@pytest.mark.parametrize("theirs", range(4))
def test_adoption_joins_and_never_takes_back(own: int | None, theirs: int) -> None:
    """The newer of the two records stays, and an older one is refused."""
    before = None if own is None else channel_at(own)
    if own is not None and theirs < own:
        assert refusal(decide.adopt, before, **adoption(theirs)) == "out_of_order"
        return
    assert decide.adopt(before, **adoption(theirs)) == channel_at(theirs)


def test_adoption_keeps_an_own_close_and_takes_over_theirs() -> None:
    """A signed close is remembered through an adoption; from then on only the newest is closed."""
    closed = decide.close(channel_at(1), 1, "unilateral")
    newer = decide.adopt(closed, **adoption(2))
    assert closed.closing is not None
    assert newer.closing == closed.closing
    assert refusal(decide.authorize, newer, 3, 0) == "closing"
    with pytest.raises(decide.NewerState):
        decide.close(newer, 1, "unilateral")
    assert decide.close(newer, 2, "mutual").closing == replace(closed.closing, mutual=True)
    assert decide.adopt(newer, **adoption(2, closing=2)).closing == closed.closing
    theirs = decide.adopt(None, **adoption(2, closing=2))
    payment = {"index": 3, "attempt": 0, "operation": OPERATIONS[2], "amount": 1}
    assert refusal(decide.pay, theirs, **payment) == "closing"


def test_an_adopted_attempt_is_used_up() -> None:
    """After adopting attempt 2, the same attempt repeats and only attempt 3 may follow."""
    accepted = channel_at(1).accepted
    assert isinstance(accepted, Accepted)
    proved = decide.after(accepted.step, 2, OPERATIONS[2], 7)
    channel = decide.adopt(None, **adoption(1, proved=proved))
    pay = {"index": 2, "operation": OPERATIONS[2]}
    assert decide.pay(channel, attempt=2, amount=7, **pay).channel == channel
    assert refusal(decide.pay, channel, attempt=1, amount=7, **pay) == "out_of_order"
    assert decide.pay(channel, attempt=3, amount=8, **pay).new.amount == 8


@pytest.mark.parametrize("change", [{"released": 2}, {"completed": 3}, {"closing": 3}])
def test_contradicting_adoptions_are_refused(change: dict[str, int]) -> None:
    """A revoked newest state, or a token or close without authorization, is refused."""
    assert refusal(decide.adopt, None, **adoption(2, **change)) == "invalid"


def test_another_attempt_for_an_accepted_state_is_refused() -> None:
    """Of two authorizations for one state, the signer keeps its own."""
    other = channel_at(2).accepted
    assert other is not None
    other = replace(other, step=replace(other.step, attempt=1))
    assert refusal(decide.adopt, channel_at(2), **adoption(2, accepted=other)) == "out_of_order"
