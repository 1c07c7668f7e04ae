"""Pure part of the transaction lane: what to do about one transaction, and what to pay for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from zkchannels.chain.model import FeeSuggestion


class TransactionStatus(Enum):
    """Where a transaction stands; only `FINAL` and `FAILED` are ends."""

    PENDING = "pending"  # written, in no block of the chain
    INCLUDED = "included"  # in a block that is not final
    FINAL = "final"  # in a final block, and it succeeded
    FAILED = "failed"  # reverted in a final block, or never needed again


class Trouble(Enum):
    """Why a pending transaction does not get on; each goes away by itself once its cause does."""

    INSUFFICIENT_FUNDS = "insufficient funds"
    ACCOUNT_UNAVAILABLE = "account unavailable"  # fees could not be raised: nobody to sign
    FEE_CAP = "fee cap"  # the policy allows no more
    UNDERPRICED = "underpriced"  # the node knows another transaction of this nonce, or wants more
    REFUSED = "refused"  # the node gives another reason


@dataclass(frozen=True, slots=True)
class Fees:
    """Tip and total per gas, wei (EIP-1559)."""

    tip: int
    max_fee: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePolicy:
    """What may be paid per gas, in wei, and when fees are raised.

    `bump_percent`: by how much at least both fees are raised; nodes want 10. `patience`: blocks
    that a transaction may wait before its fees are raised. `urgent`: seconds before its deadline
    from which they are raised at every block.
    """

    tip_floor: int
    max_fee_cap: int
    bump_percent: float = 12.5
    patience: int = 10
    urgent: int = 3600

    def __post_init__(self) -> None:
        if self.bump_percent < 10:
            raise ValueError("nodes take no replacement that pays less than 10 % more")
        if not 0 < self.tip_floor <= self.max_fee_cap:
            raise ValueError("the lowest tip is positive and not above the highest fee")

    def first(self, now: FeeSuggestion) -> Fees:
        """Return fees that hold while the base fee doubles, within the cap."""
        tip = min(max(now.tip, self.tip_floor), self.max_fee_cap)
        return Fees(tip, min(2 * now.base_fee + tip, self.max_fee_cap))

    def raised(self, old: Fees, now: FeeSuggestion, *, double: bool = False) -> Fees | None:
        """Return fees that replace the old ones at every node; None if the cap forbids it.

        `double` is for a rival whose fees are not known: at least twice as much, up to the cap.
        """
        least = Fees(self._more(old.tip), self._more(old.max_fee))
        if double:
            highest = max(least.max_fee, min(2 * old.max_fee, self.max_fee_cap))
            least = Fees(max(least.tip, min(2 * old.tip, highest)), highest)
        if least.max_fee > self.max_fee_cap:
            return None
        fresh = self.first(now)
        tip = max(least.tip, fresh.tip)
        max_fee = min(max(least.max_fee, fresh.max_fee, 2 * now.base_fee + tip), self.max_fee_cap)
        return Fees(min(tip, max_fee), max_fee)

    def includable(self, fees: Fees, now: FeeSuggestion) -> bool:
        """Return whether a block may take a transaction at these fees and pays its maker."""
        return fees.max_fee >= now.base_fee + min(self.tip_floor, fees.tip)

    def _more(self, fee: int) -> int:
        thousandths = 1000 + round(10 * self.bump_percent)
        return -(-fee * thousandths // 1000)  # rounded up


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The block of the chain, as it is now, that holds a version of a transaction."""

    hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRow:
    """A transaction as it is written down; fees, raw bytes and hash are the newest version's.

    `deadline` is chain time (seconds) or None. `hashes` are those of all versions, oldest first.
    `reason` explains `trouble` or a failure to people.
    """

    id: int
    lane: str
    purpose: str
    account: bytes
    nonce: int
    to: bytes | None
    value: int
    data: bytes
    gas: int
    deadline: int | None
    filler: bool
    status: TransactionStatus
    block_number: int | None
    block_hash: bytes | None
    trouble: Trouble | None
    reason: str
    fees: Fees
    raw: bytes
    hashes: tuple[bytes, ...]
    signed_at: int

    @property
    def hash(self) -> bytes:
        """Hash of the newest version, 32 bytes."""
        return self.hashes[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainView:
    """What the chain says at one head: block numbers, chain time, fees, the account's counts.

    `used_final` counts the account's transactions up to the final block; None if not known.
    """

    head: int
    time: int
    final: int
    fees: FeeSuggestion
    used: int
    used_final: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows for one transaction.

    `fees`: sign a version with these. `renumber`: sign a version with another nonce. `broadcast`:
    hand the newest version to the node.
    """

    status: TransactionStatus
    inclusion: Inclusion | None = None
    broadcast: bool = False
    fees: Fees | None = None
    renumber: bool = False
    trouble: Trouble | None = None
    reason: str = ""


def lane_step(
    row: TransactionRow, view: ChainView, inclusion: Inclusion | None, policy: FeePolicy
) -> Decision:
    """Decide about one transaction; total, and the same answer for the same view.

    `inclusion` is where the chain, as it is now, has any version of it.
    """
    if inclusion is not None:
        return _included(view, inclusion)
    if view.used_final is not None and view.used_final > row.nonce:
        return _nonce_taken(row)
    if view.used > row.nonce:  # taken by a stranger, but a reorganisation may give it back
        return Decision(status=TransactionStatus.PENDING, broadcast=True, trouble=row.trouble)
    if not _wants_more(row, view, policy) or row.trouble is Trouble.INSUFFICIENT_FUNDS:
        return Decision(status=TransactionStatus.PENDING, broadcast=True)
    rival = row.trouble is Trouble.UNDERPRICED
    fees = policy.raised(row.fees, view.fees, double=rival)
    trouble = Trouble.FEE_CAP if fees is None else None
    return Decision(status=TransactionStatus.PENDING, broadcast=True, fees=fees, trouble=trouble)


def missing_nonce(
    view: ChainView, pending: Collection[TransactionRow], nonces: Collection[int], patience: int
) -> int | None:
    """Return a nonce that nobody uses and that others wait for; None if there is none.

    It happens when a stranger's transaction of this account was reorganised away. `nonces` are
    all of ours that the chain has not used. The stranger gets `patience` blocks to come back.
    """
    waiting = [row.nonce for row in pending if view.head - row.signed_at >= patience]
    if not waiting:
        return None
    return next((n for n in range(view.used, max(waiting)) if n not in nonces), None)


def _included(view: ChainView, inclusion: Inclusion) -> Decision:
    if inclusion.block_number > view.final:
        return Decision(status=TransactionStatus.INCLUDED, inclusion=inclusion)
    if inclusion.succeeded:
        return Decision(status=TransactionStatus.FINAL, inclusion=inclusion)
    return Decision(status=TransactionStatus.FAILED, inclusion=inclusion, reason="reverted")


def _nonce_taken(row: TransactionRow) -> Decision:
    """The nonce went, for good, to a transaction that is none of ours."""
    if row.filler:
        return Decision(status=TransactionStatus.FAILED, reason="not needed any more")
    return Decision(status=TransactionStatus.PENDING, renumber=True)


def _wants_more(row: TransactionRow, view: ChainView, policy: FeePolicy) -> bool:
    waited = view.head - row.signed_at
    if row.trouble is Trouble.UNDERPRICED or not policy.includable(row.fees, view.fees):
        return waited >= 1
    urgent = row.deadline is not None and row.deadline - view.time <= policy.urgent
    return waited >= (1 if urgent else policy.patience)
