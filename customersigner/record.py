"""What the signer writes down about one channel, as immutable values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Escrow:
    """An escrow as it was registered; `unit` base units of the asset make one unit of balance."""

    chain_id: int
    escrow: bytes
    merchant: bytes
    token: bytes
    unit: int
    g1_half: bytes
    escrow_key: bytes

    @property
    def is_native(self) -> bool:
        """Whether it holds the chain's coin rather than a token."""
        return not any(self.token)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a channel id stands for and what was paid in; balances in units of the escrow."""

    channel: bytes
    chain_id: int
    escrow: bytes
    salt: bytes
    customer_deposit: int
    merchant_deposit: int


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt to reach a state: bound durably before anything derived from it leaves.

    `amount` is what the customer pays to get there; the balances are those after it.
    """

    index: int
    attempt: int
    operation: bytes
    amount: int
    customer_balance: int
    merchant_balance: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The newest closing authorization that was verified, and the guard's permit for it.

    `previous` is the step to the state before, which this authorization revoked.
    """

    step: Step
    previous: Step | None
    lock: int
    signature: bytes
    guard: bytes
    permit: bytes

    def __repr__(self) -> str:
        return f"Accepted(index={self.step.index}, attempt={self.step.attempt})"


@dataclass(frozen=True, slots=True)
class Closing:
    """The oldest state that a close was signed on, and in which ways closes were signed since."""

    index: int
    mutual: bool
    unilateral: bool


@dataclass(frozen=True, slots=True)
class Channel:
    """The record of one channel.

    `attempts` are the proofs that left towards the state after the accepted one, oldest first.
    """

    terms: Terms
    attempts: tuple[Step, ...] = ()
    accepted: Accepted | None = None
    completed: int | None = None
    closing: Closing | None = None

    @property
    def next_index(self) -> int:
        """The state that the next closing authorization may be for."""
        return 0 if self.accepted is None else self.accepted.step.index + 1

    @property
    def released(self) -> int | None:
        """The highest state whose revocation secret was let go.

        Accepting authorization i+1 and letting secret i go is a single write, so that the one
        tells the other and they cannot disagree.
        """
        return self.next_index - 2 if self.next_index >= 2 else None

    @property
    def proved(self) -> Step:
        """The attempt whose proof last left."""
        if self.attempts:
            return self.attempts[-1]
        assert self.accepted is not None, "a record begins with its first proof"
        return self.accepted.step

    def attempt(self, number: int) -> Step | None:
        """The recorded attempt of this number towards the next state."""
        return next((step for step in self.attempts if step.attempt == number), None)
