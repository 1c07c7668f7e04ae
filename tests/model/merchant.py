"""An honest merchant against a customer who proves, revokes and closes in any order whatever.

What the merchant's watcher does on chain comes from the service's own `merchantd.decisions`. A
state is a word: "" is the first one, and each letter a payment on top: "p" and "q" pay 1 with
different commitments, "r" gets 1 back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from merchantd.decisions import Action, LocalChannel, merchant_actions
from tests.model.escrow import ENDED, FIRST_HALF, MARGIN, OVER
from tests.model.explorer import Move, World
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

FIRST = 2
DEPOSITS = 4
SHARE = DEPOSITS - FIRST
"""The customer's balance in the first state, all that is locked, and the merchant's part of it."""

LONGEST_DELAYS = 4
"""Deadlines after OPEN: expire, a guard's close, its void, a close."""

_CUSTOMER = b"\1" * 20
_CLOCK = {FIRST_HALF: 50, MARGIN: 95, OVER: 150}
_DEADLINE, _MARGIN = 100, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The contract's and the chain's part: `depth` transactions can be reorganised away."""

    dual: bool = False
    depth: int = 1
    shift: bool = False
    payments: int = 2


class Escrow(NamedTuple):
    """The channel on chain; `put` is what the merchant paid in, `terms` whether as agreed."""

    status: str = "ABSENT"
    phase: int = FIRST_HALF
    on: str = ""
    by_guard: bool = False
    struck: bool = False
    rounds: int = 0
    put: int = 0
    full: bool = False
    terms: bool = True
    paid: int = 0


class State(NamedTuple):
    """The merchant's durable records, what the customer holds, and the chain.

    `bound`: (state, child) written at pay.prove. `stray`: authorizations that left without such a
    record. `revoked`: locks with their secrets. `used`: locks of mutual closes and of closes seen
    on chain. `served`: services given. `agreed`: states with a mutual close signature.
    """

    bound: frozenset[tuple[str, str]] = frozenset()
    stray: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    agreed: frozenset[str] = frozenset()
    approved: int = 1
    refunds: int = 0
    escrow: Escrow = Escrow()
    past: tuple[Escrow, ...] = ()
    reorganised: bool = False
    fund_sent: bool = False
    asleep: bool = False


def customer_balance(state: str) -> int:
    """The customer's balance in a state."""
    return FIRST + sum(1 if letter == "r" else -1 for letter in state)


def _name(state: str) -> str:
    return state or "0"


@cache
def choose(
    status: str, final: str, phase: int, *, as_agreed: bool, secret_known: bool, share: bool
) -> tuple[Action, ...]:
    """Ask the merchant's own decisions what its watcher does; an expire is always wanted."""

    def record(name: str) -> ChannelRecord:
        return ChannelRecord(
            status=ChannelStatus[name],
            customer=_CUSTOMER,
            customer_deposit=FIRST,
            merchant_deposit=SHARE if as_agreed else DEPOSITS - 1,
            deadline=_DEADLINE,
            customer_balance=0,
            merchant_balance=int(share),
            lock=1,
            closed_by_guard=False,
            guard_struck_off=False,
        )

    local = LocalChannel(_CUSTOMER, FIRST, SHARE, expire_requested=True, ended=False)
    return merchant_actions(
        local,
        record(status),
        record(final),
        now=_CLOCK[phase],
        margin=_MARGIN,
        secret_known=secret_known,
    )


class Merchant:
    """The moves on one ground with some rules dropped."""

    def __init__(self, ground: Ground, dropped: frozenset[str] = frozenset()) -> None:
        self.ground = ground
        self.dropped = dropped
        self.claim_opens = MARGIN if "margin" in dropped else OVER

    def world(self) -> World[State]:
        """The world to explore."""
        return World(
            start=State(), moves=self.moves, wrong=wrong, settled=settled, helpful=_helpful
        )

    def moves(self, s: State) -> Iterator[Move[State]]:
        """Everything that may happen next."""
        if s.escrow.status in (*ENDED, "GONE") and not s.past and "id-once" not in self.dropped:
            return
        yield from self._token(s)
        yield from self._prove(s)
        yield from self._revoke(s)
        yield from self._agree(s)
        yield from self._open(s)
        yield from self._customer_closes(s)
        yield from self._merchant_acts(s)
        yield from self._time(s)
        yield from self._reorganises(s)

    # -- talk ---------------------------------------------------------------------------------

    def _token(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        usable = e.status == "OPEN" or (
            e.status == "AWAITING_MERCHANT" and "token-after-fund" in self.dropped
        )
        if not s.tokens and usable and (not s.past or "final-before-token" in self.dropped):
            yield "merchant gives the first token", s._replace(tokens=frozenset({""}))

    def _prove(self, s: State) -> Iterator[Move[State]]:
        bound = dict(s.bound)
        for state in s.tokens:
            if len(state) >= self.ground.payments:
                continue
            for letter in "pqr":
                refund = letter == "r"
                balance = customer_balance(state)
                if refund and (not s.approved or balance >= DEPOSITS):
                    continue
                if not refund and balance == 0:
                    continue
                spent = s._replace(
                    approved=s.approved - (refund and "session-once" not in self.dropped),
                    refunds=s.refunds + refund,
                )
                yield from self._bind(spent, bound, state, letter)

    def _bind(
        self, s: State, bound: dict[str, str], state: str, letter: str
    ) -> Iterator[Move[State]]:
        label = f"pay.prove {_name(state)}->{state}{letter}"
        known = bound.get(state)
        if known is None:
            both = s.bound | {(state, letter)}
            yield f"{label}: written, authorization given", s._replace(bound=both)
            if "nonce-before-ca" in self.dropped:
                stray = s.stray | {state + letter}
                yield f"{label}: given, then the write is lost", s._replace(stray=stray)
        elif known != letter and "written-is-given" in self.dropped and state not in s.revoked:
            replaced = s.bound - {(state, known)} | {(state, letter)}
            yield (
                f"{label}: replaces the earlier answer",
                s._replace(bound=replaced, stray=s.stray | {state + known}),
            )

    def _revoke(self, s: State) -> Iterator[Move[State]]:
        for state, letter in s.bound:
            child = state + letter
            if child in s.served or (state in s.used and state not in s.revoked):
                continue
            given = s._replace(served=s.served | {child}, tokens=s.tokens | {child})
            label = f"pay.revoke {_name(state)}"
            yield (
                f"{label}: lock written, token and service given",
                given._replace(revoked=s.revoked | {state}),
            )
            if "lock-before-token" in self.dropped:
                yield f"{label}: token and service given, then the write is lost", given

    def _agree(self, s: State) -> Iterator[Move[State]]:
        if s.escrow.status not in ("OPEN", "EXPIRING"):
            return
        for state in self._authorizations(s):
            if state in s.agreed or state in s.revoked:
                continue
            used = s.used if "mutual-lock" in self.dropped else s.used | {state}
            yield (
                f"close.mutual {_name(state)}: lock written, signature given",
                s._replace(agreed=s.agreed | {state}, used=used),
            )

    def _authorizations(self, s: State) -> set[str]:
        return {"", *(state + letter for state, letter in s.bound), *s.stray}

    # -- chain --------------------------------------------------------------------------------

    def _next(self, s: State, **changes: object) -> State:
        depth = max(self.ground.depth, 1)
        after = s.escrow._replace(**changes)  # type: ignore[arg-type]
        return s._replace(escrow=after, past=(*s.past, s.escrow)[-depth:])

    def _open(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        again = e.status == "RECLAIMED" and "id-once" in self.dropped
        if e.status == "ABSENT" or again:
            if self.ground.dual:
                yield "customer opens", self._next(s, status="AWAITING_MERCHANT", phase=FIRST_HALF)
                yield (
                    "customer opens the same id on other terms",
                    self._next(s, status="AWAITING_MERCHANT", phase=FIRST_HALF, terms=False),
                )
            else:
                yield "customer opens", self._next(s, status="OPEN", put=SHARE, full=True)
        if e.status == "AWAITING_MERCHANT":
            binding = "fund-terms" not in self.dropped
            if s.fund_sent and (e.terms or not binding):
                put = SHARE if e.terms else DEPOSITS - 1
                yield (
                    "fund is included",
                    self._next(s, status="OPEN", phase=FIRST_HALF, put=e.put + put, full=True),
                )
            if e.phase == OVER:
                yield "reclaim gives the customer its deposit", self._next(s, status="RECLAIMED")
        if e.status == "ABSENT" and s.reorganised:
            yield "open is double-spent", s._replace(escrow=Escrow("GONE"))

    def _customer_closes(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        unfunded = e.status == "AWAITING_MERCHANT" and "close-awaiting" in self.dropped
        if e.status not in ("OPEN", "EXPIRING") and not unfunded:
            return
        phase = e.phase if "fresh-deadline" in self.dropped else FIRST_HALF
        for state in self._authorizations(s):
            noted = s.used | {state}
            if s.asleep or "chain-lock" in self.dropped:
                noted = s.used
            posted = self._next(s, status="CLOSING", on=state, phase=phase, rounds=e.rounds + 1)
            posted = posted._replace(used=noted)
            yield f"customer closes on {_name(state)}", posted
            if e.status == "EXPIRING" and not e.struck:
                yield (
                    f"customer's guard closes on {_name(state)}",
                    posted._replace(escrow=posted.escrow._replace(by_guard=True)),
                )
        for state in s.agreed:
            paid = DEPOSITS - customer_balance(state)
            yield (
                f"mutual close {_name(state)} is included",
                self._next(s, status="CLOSED", paid=paid, phase=FIRST_HALF),
            )

    def _merchant_acts(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        actions = self._actions(s)
        # Two cures against a `fund` that meets other terms; the first makes the second needless.
        waits = "fund-terms" in self.dropped and "fund-final" not in self.dropped
        if Action.FUND in actions and not s.fund_sent and not (waits and s.past):
            yield "merchant sends fund", s._replace(fund_sent=True)
        if Action.EXPIRE in actions:
            yield (
                "merchant expires",
                self._next(s, status="EXPIRING", phase=FIRST_HALF, rounds=e.rounds + 1),
            )
        void = self._next(
            s,
            status="EXPIRING",
            on="",
            by_guard=False,
            struck="defend-once" not in self.dropped,
            phase=FIRST_HALF,
            rounds=e.rounds + 1,
        )
        by_guard = e.by_guard and "void" not in self.dropped
        if Action.DISPUTE in actions and by_guard:
            yield "merchant disputes: the guard's close is void", void
        elif Action.DISPUTE in actions:
            yield (
                "merchant disputes and takes all",
                self._next(
                    s, status="CLOSED", paid=DEPOSITS, on="", by_guard=False, phase=FIRST_HALF
                ),
            )
        if e.status == "CLOSING" and by_guard:
            yield "customer disputes its own guard's close: void", void

    def _actions(self, s: State) -> tuple[Action, ...]:
        e = s.escrow
        if s.asleep or e.status == "GONE":
            return ()
        return choose(
            e.status,
            (s.past[0] if s.past else e).status,
            e.phase,
            as_agreed=e.terms,
            secret_known=e.status == "CLOSING" and e.on in s.revoked,
            share=customer_balance(e.on) < DEPOSITS,
        )

    def _time(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        disputes = Action.DISPUTE in self._actions(s)
        if e.status == "AWAITING_MERCHANT" and e.phase < OVER and not s.past:
            yield "the time to fund passes", s._replace(escrow=e._replace(phase=OVER))
        if e.status not in ("EXPIRING", "CLOSING"):
            return
        if e.phase < self.claim_opens and not s.past and not disputes:
            phase = OVER if e.phase == MARGIN else MARGIN
            label = "the deadline passes" if phase == OVER else "the margin begins"
            yield label, s._replace(escrow=e._replace(phase=phase))
        if e.phase >= self.claim_opens:
            paid = DEPOSITS if e.status == "EXPIRING" else DEPOSITS - customer_balance(e.on)
            yield (
                f"somebody claims: the merchant gets {paid}",
                self._next(s, status="CLOSED", paid=paid, on="", by_guard=False, phase=FIRST_HALF),
            )
            if "watch-until-claimed" in self.dropped and e.status == "EXPIRING" and not s.asleep:
                yield "merchant's watcher forgets the channel", s._replace(asleep=True)

    def _reorganises(self, s: State) -> Iterator[Move[State]]:
        if not s.past:
            return
        yield "the oldest transaction becomes final", s._replace(past=s.past[1:])
        if s.escrow.status == "CLOSED" and "record-final" in self.dropped and not s.asleep:
            yield "merchant records the end, which is not final", s._replace(asleep=True)
        if s.reorganised:
            return
        for depth in range(1, min(len(s.past), self.ground.depth) + 1):
            back = s._replace(escrow=s.past[-depth], past=s.past[:-depth], reorganised=True)
            yield f"a reorganisation drops {depth}", back
            if not self.ground.shift or back.escrow.phase != FIRST_HALF:
                continue
            late = {"EXPIRING": MARGIN, "CLOSING": MARGIN, "AWAITING_MERCHANT": OVER}
            phase = late.get(back.escrow.status)
            if phase is not None:
                yield (
                    f"a reorganisation drops {depth} and takes the chain on",
                    back._replace(escrow=back.escrow._replace(phase=phase)),
                )


def wrong(s: State) -> str | None:
    """S2, S3, S8 and S9 of the merchant."""
    e = s.escrow
    if len({state for state, _ in s.bound}) != len(s.bound):
        return "S3: one state was spent twice"
    if e.rounds > LONGEST_DELAYS:
        return f"S9: deadline number {e.rounds} is set"
    if e.status == "CLOSED" and not e.full:
        return "S8: a deposit is paid out that was never paid in"
    if e.status in (*ENDED, "GONE"):
        sold = sum(1 for state in s.served if not state.endswith("r"))
        due = e.put + sold - min(s.refunds, 1)  # one refund was approved
        if e.paid < due:
            return f"S2: the merchant gets {e.paid}, {due} is due"
    return None


def settled(s: State) -> bool:
    """Whether the channel has ended or was never opened."""
    return s.escrow.status in (*ENDED, "GONE") or s.escrow.status == "ABSENT"


def _helpful(label: str) -> bool:
    """What the merchant and time can do without the customer; anybody reclaims and claims."""
    return label.startswith(("merchant", "the ", "somebody", "reclaim", "fund"))
