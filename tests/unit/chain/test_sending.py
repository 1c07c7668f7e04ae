"""What the lane decides about one transaction, without a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.chain.model import FeeSuggestion
from zkchannels.chain.sending import (
    ChainView,
    FeePolicy,
    Fees,
    Inclusion,
    TransactionRow,
    TransactionStatus,
    Trouble,
    lane_step,
    missing_nonce,
)

GWEI = 10**9
POLICY = FeePolicy(tip_floor=GWEI, max_fee_cap=200 * GWEI, patience=10, urgent=600)
NOW = FeeSuggestion(base_fee=10 * GWEI, tip=0)
ROW = TransactionRow(
    id=1,
    lane="guard",
    purpose="claim",
    account=bytes(20),
    nonce=7,
    to=bytes(20),
    value=0,
    data=b"",
    gas=50_000,
    deadline=None,
    filler=False,
    status=TransactionStatus.PENDING,
    block_number=None,
    block_hash=None,
    trouble=None,
    reason="",
    fees=POLICY.first(NOW),
    raw=b"raw",
    hashes=(bytes(32),),
    signed_at=100,
)
VIEW = ChainView(head=101, time=5000, final=90, fees=NOW, used=7, used_final=7)
INCLUSION = Inclusion(bytes(32), 95, bytes(32), succeeded=True)


def test_waits_and_is_sent_again() -> None:
    """A transaction that only waits is handed to the node at every head, as it is."""
    decision = lane_step(ROW, VIEW, None, POLICY)
    assert decision.status is TransactionStatus.PENDING
    assert decision.broadcast
    assert decision.fees is None


def test_included_then_final() -> None:
    """Inclusion above the final block is not the end; at or below it, it is."""
    assert lane_step(ROW, VIEW, INCLUSION, POLICY).status is TransactionStatus.INCLUDED
    final = replace(VIEW, final=95)
    assert lane_step(ROW, final, INCLUSION, POLICY).status is TransactionStatus.FINAL


def test_reverted_is_failed_only_when_final() -> None:
    """A reverted transaction may be reorganised into success until its block is final."""
    reverted = replace(INCLUSION, succeeded=False)
    assert lane_step(ROW, VIEW, reverted, POLICY).status is TransactionStatus.INCLUDED
    final = replace(VIEW, final=95)
    assert lane_step(ROW, final, reverted, POLICY).status is TransactionStatus.FAILED


def test_dropped_goes_back_to_pending() -> None:
    """What was included and is not any more is pending again, and sent."""
    included = replace(ROW, status=TransactionStatus.INCLUDED)
    decision = lane_step(included, VIEW, None, POLICY)
    assert decision.status is TransactionStatus.PENDING
    assert decision.broadcast


def test_nonce_taken_for_good() -> None:
    """A nonce that is used up to the final block, not by us, is exchanged; a filler is done."""
    taken = replace(VIEW, used=8, used_final=8)
    assert lane_step(ROW, taken, None, POLICY).renumber
    filler = lane_step(replace(ROW, filler=True), taken, None, POLICY)
    assert filler.status is TransactionStatus.FAILED


@pytest.mark.parametrize("used_final", [7, None])
def test_nonce_taken_but_not_for_good(used_final: int | None) -> None:
    """While a reorganisation may give the nonce back, or nobody knows, it is kept."""
    decision = lane_step(ROW, replace(VIEW, used=8, used_final=used_final), None, POLICY)
    assert not decision.renumber
    assert decision.broadcast


def test_patience_ends() -> None:
    """After so many blocks the fees are raised, though a block could take the transaction."""
    assert lane_step(ROW, replace(VIEW, head=109), None, POLICY).fees is None
    assert lane_step(ROW, replace(VIEW, head=110), None, POLICY).fees is not None


def test_urgency() -> None:
    """Close to its deadline a transaction is raised at every head, but once per head."""
    row = replace(ROW, deadline=5600)
    assert lane_step(row, VIEW, None, POLICY).fees is not None
    assert lane_step(row, replace(VIEW, head=100), None, POLICY).fees is None
    assert lane_step(row, replace(VIEW, time=4999), None, POLICY).fees is None


def test_base_fee_outgrew_the_maximum() -> None:
    """A transaction that no block can take is raised at the next head, to twice the base fee."""
    spike = FeeSuggestion(base_fee=50 * GWEI, tip=2 * GWEI)
    decision = lane_step(ROW, replace(VIEW, fees=spike), None, POLICY)
    assert decision.fees is not None
    assert decision.fees.max_fee >= 2 * spike.base_fee


def test_cap() -> None:
    """Where the policy allows no more, what exists is sent again and the row says so."""
    row = replace(ROW, fees=Fees(GWEI, 190 * GWEI), signed_at=0)
    decision = lane_step(row, VIEW, None, POLICY)
    assert decision.fees is None
    assert decision.broadcast
    assert decision.trouble is Trouble.FEE_CAP


def test_no_raise_without_money() -> None:
    """An account that cannot pay what it signed signs nothing dearer."""
    row = replace(ROW, trouble=Trouble.INSUFFICIENT_FUNDS, signed_at=0, deadline=5001)
    assert lane_step(row, VIEW, None, POLICY).fees is None


def test_rival_is_outbid_quickly() -> None:
    """Against a transaction of unknown fees ours are doubled."""
    row = replace(ROW, trouble=Trouble.UNDERPRICED)
    decision = lane_step(row, VIEW, None, POLICY)
    assert decision.fees is not None
    assert decision.fees.max_fee >= 2 * row.fees.max_fee


fees_per_gas = st.integers(0, 10**13)
policies = st.builds(
    FeePolicy,
    tip_floor=st.integers(1, 10**10),
    max_fee_cap=st.integers(10**10, 10**13),
    bump_percent=st.floats(10, 100),
)


@given(policies, fees_per_gas, fees_per_gas)
def test_first_fees_are_legal(policy: FeePolicy, base_fee: int, tip: int) -> None:
    """The tip is never above the maximum (EIP-1559), the maximum never above the cap."""
    fees = policy.first(FeeSuggestion(base_fee, tip))
    assert 0 < fees.tip <= fees.max_fee <= policy.max_fee_cap


@given(policies, fees_per_gas, fees_per_gas, fees_per_gas, fees_per_gas, st.booleans())
def test_raised_fees_replace(  # noqa: PLR0917
    policy: FeePolicy, base_fee: int, tip: int, later_base_fee: int, later_tip: int, double: bool
) -> None:
    """Raised fees are at least 10 % higher in both fields, as nodes want, and within the cap."""
    old = policy.first(FeeSuggestion(base_fee, tip))
    new = policy.raised(old, FeeSuggestion(later_base_fee, later_tip), double=double)
    if new is None:
        assert old.max_fee * 11 > policy.max_fee_cap * 5
        return
    assert new.tip * 10 >= old.tip * 11
    assert new.max_fee * 10 >= old.max_fee * 11
    assert new.tip <= new.max_fee <= policy.max_fee_cap


def test_policy_refuses_nonsense() -> None:
    """Raising by less than nodes accept, or a floor above the cap, is a mistake to be told."""
    with pytest.raises(ValueError, match="10 %"):
        FeePolicy(tip_floor=1, max_fee_cap=10, bump_percent=9)
    with pytest.raises(ValueError, match="lowest tip"):
        FeePolicy(tip_floor=11, max_fee_cap=10)


def test_gap() -> None:
    """A nonce that nobody uses is filled after a while, if others wait for it."""
    view = replace(VIEW, used=5, head=110)
    assert missing_nonce(view, [ROW], {7}, patience=10) == 5
    assert missing_nonce(view, [ROW], {5, 6, 7}, patience=10) is None
    assert missing_nonce(view, [ROW], {5, 7}, patience=10) == 6
    assert missing_nonce(replace(view, head=109), [ROW], {7}, patience=10) is None
    assert missing_nonce(view, [], set(), patience=10) is None
