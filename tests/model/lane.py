"""The transactions of one account through fee spikes, crashes, reorganisations and a stranger.

What is done about a transaction comes from the lane's own `lane_step`; fees are in wei per gas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import Move, World
from zkchannels.chain.model import FeeSuggestion
from zkchannels.chain.sending import (
    ChainView,
    Decision,
    FeePolicy,
    Fees,
    Inclusion,
    TransactionRow,
    TransactionStatus,
    lane_step,
)

POLICY = FeePolicy(tip_floor=1, max_fee_cap=100, bump_percent=100, patience=1)
BASE = (10, 40, 400)
"""The base fee as usual, in a spike, and in a spike beyond what may be paid."""

STRANGER = -1
_NUMBER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many transactions are to be made, and how often the fees may rise."""

    purposes: int = 1
    spikes: int = 2


class Row(NamedTuple):
    """A transaction as it is written down; `age` is in blocks since its newest version."""

    nonce: int
    max_fee: int
    age: int = 0
    sent: bool = False
    status: str = "pending"


class State(NamedTuple):
    """One row per purpose, the network, and the chain: the purpose that used each nonce.

    `unwritten` is a transaction that left before its row was written (only if that rule is
    dropped). A stranger is another program that uses the same account, once.
    """

    rows: tuple[Row | None, ...]
    network: frozenset[tuple[int, int, int]] = frozenset()
    chain: tuple[int, ...] = ()
    final: int = 0
    base: int = 0
    spikes: int = 0
    unwritten: Row | None = None
    stranger: bool = False
    reorganised: bool = False
    paid_twice: bool = False


class LaneWorld:
    """The moves with some rules dropped."""

    def __init__(self, size: Size, dropped: frozenset[str] = frozenset()) -> None:
        self.size = size
        self.dropped = dropped

    def world(self) -> World[State]:
        """The world to explore: every purpose must be able to become final."""
        return World(
            start=State(rows=(None,) * self.size.purposes),
            moves=self.moves,
            wrong=wrong,
            settled=lambda s: all(row is not None and row.status == "final" for row in s.rows),
            helpful=lambda label: not label.startswith(("fees rise", "a ", "daemon crash")),
        )

    def moves(self, s: State) -> Iterator[Move[State]]:
        """Everything that may happen next."""
        for purpose, row in enumerate(s.rows):
            if row is None:
                if purpose == 0 or s.rows[purpose - 1] is not None:
                    yield from self._submit(s, purpose)
            elif not row.sent:
                yield f"lane sends {purpose} at {row.max_fee}", self._sent(s, purpose, row)
        yield from self._look(s)
        yield from self._chain(s)

    # -- the lane -----------------------------------------------------------------------------

    def _submit(self, s: State, purpose: int) -> Iterator[Move[State]]:
        fees = POLICY.first(FeeSuggestion(BASE[s.base], 1))
        row = Row(self._next_nonce(s), fees.max_fee)
        if "written-before-sent" in self.dropped and s.unwritten is None and purpose == 0:
            entry = (purpose, row.nonce, row.max_fee)
            yield (
                f"lane sends {purpose} before it writes, and the daemon crashes",
                s._replace(network=s.network | {entry}, unwritten=row),
            )
        yield f"lane writes {purpose} under nonce {row.nonce}", _with(s, purpose, row)

    def _next_nonce(self, s: State) -> int:
        ours = [row.nonce for row in s.rows if row is not None]
        return max([len(s.chain), *(nonce + 1 for nonce in ours)])

    def _sent(self, s: State, purpose: int, row: Row) -> State:
        entry = (purpose, row.nonce, row.max_fee)
        return _with(s, purpose, row._replace(sent=True))._replace(network=s.network | {entry})

    def _look(self, s: State) -> Iterator[Move[State]]:
        """One look of the lane at the node, about one row at a time."""
        for purpose, row in enumerate(s.rows):
            if row is None or row.status == "final":
                continue
            decision = self._decide(s, purpose, row)
            after = self._apply(s, purpose, row, decision)
            if after != s:
                yield f"lane looks after {purpose}", after

    def _decide(self, s: State, purpose: int, row: Row) -> Decision:
        view = ChainView(
            head=_NUMBER,
            time=0,
            final=s.final,
            fees=FeeSuggestion(BASE[s.base], 1),
            used=len(s.chain),
            used_final=len(s.chain) if "renumber-final" in self.dropped else s.final,
        )
        inclusion = None
        if purpose in s.chain:
            number = s.chain.index(purpose) + 1
            inclusion = Inclusion(b"", number, b"", succeeded=True)
        return lane_step(_written(row, purpose), view, inclusion, POLICY)

    def _apply(self, s: State, purpose: int, row: Row, decision: Decision) -> State:
        new = row._replace(status=decision.status.value)
        if decision.renumber:
            fees = POLICY.first(FeeSuggestion(BASE[s.base], 1))
            new = Row(self._next_nonce(s), fees.max_fee)
        elif decision.fees is not None and "fee-bump" not in self.dropped:
            nonce = self._next_nonce(s) if "same-nonce" in self.dropped else row.nonce
            new = Row(nonce, decision.fees.max_fee)
        after = _with(s, purpose, new)
        return self._sent(after, purpose, new) if decision.broadcast else after

    # -- the chain ----------------------------------------------------------------------------

    def _chain(self, s: State) -> Iterator[Move[State]]:
        for purpose, nonce, max_fee in s.network:
            if nonce == len(s.chain) and max_fee >= BASE[s.base] + 1:
                yield (
                    f"{purpose} is included at {max_fee}",
                    s._replace(
                        chain=(*s.chain, purpose), paid_twice=purpose >= 0 and purpose in s.chain
                    ),
                )
        aged = tuple(
            row if row is None else row._replace(age=min(row.age + 1, POLICY.patience))
            for row in s.rows
        )
        if aged != s.rows:
            yield "the lane waits for a block", s._replace(rows=aged)
        if s.final < len(s.chain):
            yield "the oldest transaction becomes final", s._replace(final=s.final + 1)
            if not s.reorganised:
                yield (
                    "a reorganisation drops the newest",
                    s._replace(chain=s.chain[:-1], reorganised=True),
                )
        if not s.stranger and any(row is not None for row in s.rows):
            entry = (STRANGER, len(s.chain), POLICY.max_fee_cap)
            yield (
                "a stranger uses the account",
                s._replace(network=s.network | {entry}, chain=(*s.chain, STRANGER), stranger=True),
            )
        if s.spikes < self.size.spikes and s.base < len(BASE) - 1:
            yield "fees rise", s._replace(base=s.base + 1, spikes=s.spikes + 1)
        if s.base == len(BASE) - 1:
            yield "the spike passes", s._replace(base=1)


def _with(s: State, purpose: int, row: Row) -> State:
    return s._replace(rows=(*s.rows[:purpose], row, *s.rows[purpose + 1 :]))


def _written(row: Row, purpose: int) -> TransactionRow:
    return TransactionRow(
        id=purpose,
        lane="model",
        purpose=str(purpose),
        account=b"",
        nonce=row.nonce,
        to=b"",
        value=0,
        data=b"",
        gas=0,
        deadline=None,
        filler=False,
        status=TransactionStatus(row.status),
        block_number=None,
        block_hash=None,
        trouble=None,
        reason="",
        fees=Fees(1, row.max_fee),
        raw=b"",
        hashes=(b"",),
        signed_at=_NUMBER - row.age,
    )


def wrong(s: State) -> str | None:
    """S10: a purpose is paid for once."""
    if s.paid_twice:
        return "S10: a transaction was made twice"
    return None
