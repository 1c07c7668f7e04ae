"""An honest customer (daemon, signer, guard) against merchant, thief, chain and its own mishaps.

The watcher's choices come from the daemon's own table, `customerd.watch.reconcile`. Every step is
atomic, and a crash may come between any two. A transaction that was sent stays in the network for
ever and may be included whenever the escrow takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from customerd.channels.record import Status
from customerd.watch.reconcile import Action, Phase, Situation, posted_of, reconcile
from tests.model.escrow import (
    ENDED,
    FIRST_HALF,
    FORGED,
    MARGIN,
    OVER,
    SECOND_HALF,
    Escrow,
)
from tests.model.explorer import Move, World
from zkchannels.escrow.record import ChannelStatus

BALANCES = (3, 1, 2)
"""The customer's balance in each state: it pays 2, then gets 1 back."""

OPEN = 1
CLOSE = (2, 4, 8)
GUARD = (16, 32, 64)
GUARD_FORGED = 128
MUTUAL = (256, 512, 1024)
DISPUTE = (2048, 4096, 8192)
"""One bit per transaction that the network has seen."""

_PHASES = (Phase.FIRST_HALF, Phase.LATE, Phase.LATE, Phase.OVER)
_PASSES = ("half of the delay passes", "the margin begins", "the deadline passes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What surrounds the customer.

    `lost`: what a restore from a backup takes back ("", "daemon", "both"). `thief`: the guard's key
    and every permit are stolen. `depth`: transactions that the one reorganisation may drop; 0: none
    comes. `shift`: it may also take the chain into the margin. `returns`: the signer comes back
    within each first half; `once`: only to a daemon that it was not compared with. `plain`: the
    contract forfeits a guard's disputed close. `tight`: within the margin only what was sent before
    gets in. `echo`: a dispute that was seen is sent again by whoever needs it.
    """

    honest_merchant: bool = False
    lost: str = ""
    thief: bool = False
    depth: int = 1
    shift: bool = False
    returns: bool = False
    once: bool = False
    plain: bool = False
    dual: bool = False
    tight: bool = False
    echo: bool = False
    states: int = 3


class Daemon(NamedTuple):
    """The durable record; columns as in the table `channel`, -1 for null."""

    status: str = "new"
    at: int = -1
    authorized: int = -1
    closing: int = -1
    doubtful: bool = False
    agreed: bool = False
    marked: bool = False


class Signer(NamedTuple):
    """The signer's durable record; accepting state i+1 and letting secret i go is one write."""

    accepted: int = -1
    closing: int = -1
    completed: int = -1


class State(NamedTuple):
    """Everything.

    `answer`: what the daemon holds in memory alone: authorization 0 ("first"), an authorization
    with the old secret ("next"), a secret about to leave ("secret"). The merchant has `seen` proofs
    and `knows` secrets up to these states. `had`: the newest state that was completed.
    """

    daemon: Daemon = Daemon()
    answer: str = ""
    attached: bool = True
    compared: bool = True
    signer: Signer = Signer()
    seen: int = 0
    knows: int = -1
    had: int = 0
    void_authorization: bool = False
    escrow: Escrow = Escrow()
    past: tuple[Escrow, ...] = ()
    sent: int = 0
    backup: tuple[Daemon, Signer] | None = None
    restored: bool = False
    reorganised: bool = False


@cache
def choose(  # noqa: PLR0917 - the key of a cache
    status: str,
    chain: str,
    final: str,
    phase: Phase,
    on: int,
    completed: int,
    by_guard: bool,
    usable: bool,
    attached: bool,
    compared: bool,
) -> Action:
    """Ask the daemon's table what its watcher does."""
    now = ChannelStatus[chain]
    posted = posted_of(
        now,
        state=None if on in (-1, FORGED) else on,
        completed=None if completed < 0 else completed,
    )
    situation = Situation(
        local=Status(status),
        chain=now,
        final=ChannelStatus[final],
        phase=phase,
        posted=posted,
        closed_by_guard=by_guard,
        guard_usable=usable,
        signer=attached,
        compared=compared,
    )
    return reconcile(situation).action


class Customer:
    """The moves of one scenario with some rules dropped."""

    def __init__(self, scenario: Scenario, dropped: frozenset[str] = frozenset()) -> None:
        self.scenario = scenario
        self.dropped = dropped
        self.last = scenario.states - 1
        self.claim_opens = MARGIN if "margin" in dropped else OVER

    def world(self) -> World[State]:
        """The world to explore."""
        return World(
            start=State(), moves=self.moves, wrong=self.wrong, settled=settled, helpful=self.helpful
        )

    def moves(self, s: State) -> Iterator[Move[State]]:
        """Everything that may happen next."""
        if s.escrow.status in ENDED and not s.past:
            return  # the end is final
        action = self.action(s)
        yield from self._pay(s)
        yield from self._close(s, action)
        yield from self._watch(s, action)
        yield from self._mishaps(s)
        yield from self._opponents(s)
        yield from self._includes(s)
        yield from self._reorganises(s)
        yield from self._time(s, action)

    # -- what the watcher sees ----------------------------------------------------------------

    def action(self, s: State) -> Action:
        """The watcher's action, from the table in force."""
        d, e = s.daemon, s.escrow
        if d.status == "gone":
            return Action.NONE
        local = "suspect" if d.doubtful and d.status == "asked" and not d.agreed else d.status
        if local == "suspect" and "suspect" in self.dropped:
            local = "decided" if d.closing >= 0 else "idle"
        phase = Phase.OVER if e.phase >= self.claim_opens else _PHASES[e.phase]
        action = choose(
            local,
            e.status,
            (s.past[0] if s.past else e).status,
            phase,
            e.on,
            self._completed(s),
            e.by_guard,
            d.authorized >= 0 and not e.struck and "guard" not in self.dropped,
            s.attached,
            s.compared or "wait-half" in self.dropped,
        )
        if action is Action.DISPUTE_OWN and (
            "own-dispute" in self.dropped or ("late-dispute" in self.dropped and e.phase >= MARGIN)
        ):
            return Action.CLAIM if e.phase >= self.claim_opens else Action.NONE
        if action is Action.RECLAIM and "reclaim" in self.dropped:
            return Action.NONE
        return action

    def _completed(self, s: State) -> int:
        """The newest state with a pay token, as far as daemon and signer have told each other."""
        if "own-close-stands" in self.dropped:
            return s.daemon.authorized
        return max(s.daemon.at, s.signer.completed if s.compared else -1)

    def newest(self, d: Daemon) -> int:
        """The state to close on while none is decided."""
        if "close-newest" in self.dropped and d.authorized > 0:
            return d.authorized - 1
        if "close-new" in self.dropped and d.status == "revoking" and not d.marked:
            return d.at
        return d.authorized

    # -- establish and pay --------------------------------------------------------------------

    def _pay(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        if d.status in ("new", "funding"):
            yield from self._establish(s)
        may_sign = s.attached and (s.signer.closing < 0 or "signs" in self.dropped)
        is_open = s.escrow.status == "OPEN"
        if d.status == "idle" and may_sign and is_open and d.at < self.last:
            proved = d._replace(status="proved")
            yield f"daemon writes the proof for state {d.at + 1}", s._replace(daemon=proved)
        if d.status == "proved" and s.attached and s.seen <= d.at:
            yield f"daemon sends pay.prove for state {d.at + 1}", s._replace(seen=d.at + 1)
        if d.status == "proved" and s.attached and s.seen > d.at and not s.answer:
            refused = s._replace(daemon=d._replace(status="idle"))
            yield "merchant refuses the proof; daemon writes that", refused
            if may_sign and (is_open or "open-only" in self.dropped):
                yield from self._authorize(s)
        yield from self._finish(s)

    def _finish(self, s: State) -> Iterator[Move[State]]:
        """From the new authorization to the new token."""
        d = s.daemon
        if s.answer == "next":
            yield from self._write_authorization(s)
        if d.status == "revoking" and not s.answer and s.attached and d.at >= 0:
            yield "signer gives the old secret again", s._replace(answer="secret")
        if s.answer == "secret":
            yield from self._revoke(s)
        # The request leaves while the escrow is open, and its answer is not awaited for hours.
        e = s.escrow
        early = e.phase == FIRST_HALF and not e.struck and e.status not in ENDED
        if d.status == "revoking" and s.attached and s.knows >= d.at and early:
            new = d.at + 1
            checked = s.signer._replace(completed=max(s.signer.completed, new))
            if checked != s.signer:
                yield f"signer checks the token of state {new}", s._replace(signer=checked)
            else:
                yield (
                    f"daemon writes the token of state {new}",
                    s._replace(
                        daemon=d._replace(status="idle", at=new, marked=False),
                        had=max(s.had, new),
                        answer="",
                    ),
                )

    def _establish(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        if d.status == "new" and s.attached and not s.answer:
            accepted = s.signer._replace(accepted=max(s.signer.accepted, 0))
            yield (
                "merchant gives closing authorization 0; signer keeps it",
                s._replace(answer="first", signer=accepted),
            )
        if d.status == "new" and "ca0-before-open" in self.dropped:
            yield "daemon sends open without an authorization", s._replace(sent=s.sent | OPEN)
        if d.status == "new" and s.answer == "first":
            first = d._replace(status="funding", authorized=0)
            yield "daemon writes closing authorization 0", s._replace(daemon=first, answer="")
        if d.status == "funding" and s.attached and s.escrow.status == "OPEN":
            idle = d._replace(status="idle", at=0)
            yield "merchant gives the token of state 0", s._replace(daemon=idle)

    def _authorize(self, s: State) -> Iterator[Move[State]]:
        new = s.daemon.at + 1
        taken = s._replace(
            answer="next", signer=s.signer._replace(accepted=max(s.signer.accepted, new))
        )
        label = f"merchant gives authorization {new}; signer keeps it, lets secret {new - 1} go"
        yield label, taken
        if "verify-ca" in self.dropped:
            yield (
                f"merchant gives a wrong authorization {new}",
                taken._replace(void_authorization=True),
            )

    def _write_authorization(self, s: State) -> Iterator[Move[State]]:
        """Write the authorization unless the row says by now that the channel closes."""
        d = s.daemon
        new = d.at + 1
        if d.status == "proved":
            written = d._replace(status="revoking", authorized=new)
            yield f"daemon writes authorization {new}", s._replace(daemon=written, answer="secret")
        elif "close-stops-pay" in self.dropped:
            written = d._replace(authorized=new)
            yield (
                f"daemon writes authorization {new} though it closes on {d.closing}",
                s._replace(daemon=written, answer="secret"),
            )
        else:
            yield "the channel closes: the authorization is dropped", s._replace(answer="")
        if "ca-before-secret" in self.dropped and s.escrow.status == "OPEN" and s.knows < d.at:
            yield f"daemon sends secret {d.at} before it writes", s._replace(knows=d.at)

    def _revoke(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        must_mark = "close-new" in self.dropped and "secret-before-send" not in self.dropped
        if must_mark and not d.marked:
            if d.status == "revoking":
                yield (
                    "daemon writes that the secret leaves",
                    s._replace(daemon=d._replace(marked=True)),
                )
            return
        if s.knows < d.at and (s.escrow.status == "OPEN" or "open-only" in self.dropped):
            yield f"daemon sends secret {d.at}", s._replace(knows=d.at)

    # -- close --------------------------------------------------------------------------------

    def _close(self, s: State, action: Action) -> Iterator[Move[State]]:
        d, is_open = s.daemon, s.escrow.status == "OPEN"
        usable = d.status in ("funding", "idle", "proved", "revoking")
        if is_open and s.attached and (usable or d.status == "suspect"):
            decided = d._replace(closing=self.newest(d))
            if usable and "decide-before-close" in self.dropped:
                yield (
                    f"user closes: daemon sends close {decided.closing} undecided",
                    s._replace(
                        sent=s.sent | CLOSE[decided.closing],
                        signer=s.signer._replace(closing=decided.closing),
                    ),
                )
            elif usable:
                yield (
                    f"user closes by force: daemon writes decision {decided.closing}",
                    s._replace(daemon=decided._replace(status="decided")),
                )
            yield (
                f"user closes: daemon writes asked {decided.closing}",
                s._replace(daemon=decided._replace(status="asked")),
            )
        if d.status == "asked" and s.attached and s.escrow.status in ("OPEN", "EXPIRING"):
            yield from self._agree(s)
        if action is Action.ASK_MERCHANT and s.attached:
            yield from self._recover(s)

    def _agree(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        if not d.agreed and s.signer.closing != d.closing:
            if d.closing < s.signer.accepted and "signer-refuses" not in self.dropped:
                yield from self._newer_state(s)
            else:
                yield (
                    f"signer writes a mutual close on {d.closing}",
                    s._replace(signer=s.signer._replace(closing=d.closing)),
                )
        elif not d.agreed and (not self.scenario.honest_merchant or s.knows < d.closing):
            yield (
                f"merchant agrees to close on {d.closing}",
                s._replace(daemon=d._replace(agreed=True)),
            )
        if not (d.doubtful and s.escrow.status == "OPEN") or "suspect" in self.dropped:
            decided = d._replace(status="decided")
            yield "patience ends: daemon writes decided", s._replace(daemon=decided)

    def _newer_state(self, s: State) -> Iterator[Move[State]]:
        """The signer refuses an older state; the daemon takes over its newest."""
        if "signer-copy" in self.dropped:
            return
        newest = s.signer.accepted
        adopted = s.daemon._replace(authorized=newest, closing=newest, agreed=False)
        yield f"signer knows state {newest}; daemon takes it over", s._replace(daemon=adopted)

    def _recover(self, s: State) -> Iterator[Move[State]]:
        """`pay.recover`: the merchant's records lead to the newest state."""
        floor = max(s.signer.accepted, 0)
        reached = max(s.seen, floor) if self.scenario.honest_merchant else floor
        d = s.daemon
        status = "funding" if reached == 0 else "revoking"
        closes = d.closing >= 0 or (
            self.scenario.lost == "both" and "recover-closes" not in self.dropped
        )
        if closes:
            status = "decided"
        recovered = Daemon(status, reached - 1, reached, reached if closes else -1)
        yield (
            f"recovery reaches state {reached}",
            s._replace(
                daemon=recovered,
                signer=s.signer._replace(accepted=max(s.signer.accepted, reached)),
            ),
        )

    # -- watch --------------------------------------------------------------------------------

    def _watch(self, s: State, action: Action) -> Iterator[Move[State]]:
        e = s.escrow
        if self.scenario.tight and e.phase == MARGIN:
            return
        if action is Action.SEND_OPEN and s.attached and not s.sent & OPEN:
            yield "watcher sends open", s._replace(sent=s.sent | OPEN)
        if action is Action.CLOSE:
            yield from self._own_close(s)
        pressing = action is Action.CLOSE and e.status == "EXPIRING" and e.phase >= SECOND_HALF
        usable = not e.struck and s.daemon.authorized >= 0 and "guard" not in self.dropped
        if action is Action.GUARD_CLOSE or (pressing and usable):
            yield from self._guard_close(s)
        if action is Action.DISPUTE_OWN and not s.sent & DISPUTE[e.on]:
            yield (
                f"watcher disputes the guard's close {e.on}",
                s._replace(sent=s.sent | DISPUTE[e.on]),
            )

    def _own_close(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        if d.status == "asked" and s.escrow.status == "OPEN":
            if d.agreed and not s.sent & MUTUAL[d.closing]:
                yield (
                    f"watcher sends mutual close {d.closing}",
                    s._replace(sent=s.sent | MUTUAL[d.closing]),
                )
            return
        if d.status != "decided":
            yield from self._decide(s)
            return
        if d.closing < s.signer.accepted and "signer-refuses" not in self.dropped:
            yield from self._newer_state(s)
            return
        transaction = MUTUAL[d.closing] if d.agreed else CLOSE[d.closing]
        if not s.sent & transaction:
            kind = "mutual close" if d.agreed else "close"
            yield (
                f"watcher sends {kind} {d.closing}",
                s._replace(sent=s.sent | transaction, signer=s.signer._replace(closing=d.closing)),
            )

    def _guard_close(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        if d.status != "decided":
            yield from self._decide(s)
        elif not s.sent & GUARD[d.closing]:
            yield (
                f"watcher sends guard close {d.closing}",
                s._replace(sent=s.sent | GUARD[d.closing]),
            )

    def _decide(self, s: State) -> Iterator[Move[State]]:
        d = s.daemon
        closing = d.closing if d.closing >= 0 else self.newest(d)
        if closing >= 0:
            decided = d._replace(status="decided", closing=closing)
            yield f"watcher writes decision {closing}", s._replace(daemon=decided)

    # -- mishaps ------------------------------------------------------------------------------

    def _mishaps(self, s: State) -> Iterator[Move[State]]:
        if s.attached:
            yield "signer goes away", s._replace(attached=False)
        else:
            yield "signer attaches", self._attach(s)
        if s.answer or s.compared:
            yield "daemon crashes", s._replace(answer="", attached=False, compared=False)
        may = self.scenario.lost == "daemon" or s.daemon.status != "new"
        if self.scenario.lost and may and s.backup is None and not s.restored:
            yield "backup taken", s._replace(backup=(s.daemon, s.signer))
        if s.backup is not None and s.escrow.phase == FIRST_HALF:
            yield from self._restore(s, *s.backup)

    def _restore(self, s: State, daemon: Daemon, signer: Signer) -> Iterator[Move[State]]:
        old = s._replace(
            daemon=daemon, answer="", attached=False, compared=False, backup=None, restored=True
        )
        if self.scenario.lost == "both":
            old = old._replace(signer=signer)
            if "suspect" not in self.dropped:
                status = daemon.status if daemon.closing >= 0 else "suspect"
                old = old._replace(daemon=daemon._replace(status=status, doubtful=True))
        yield f"old {self.scenario.lost} restored", old

    def _attach(self, s: State) -> State:
        """The signer attaches and is compared: `customerd.signing.compare` in short."""
        up = s._replace(attached=True, compared=True)
        d, own = s.daemon, s.signer
        if "compare" in self.dropped or d.status == "gone":
            return up
        if own.accepted < d.authorized:
            closing = max(own.closing, d.closing)
            return up._replace(signer=Signer(d.authorized, closing, max(own.completed, d.at)))
        if own.accepted > d.authorized:
            return up._replace(daemon=self._adopt(d, own))
        forgotten = own.closing >= 0 > d.closing and "signs" not in self.dropped
        if forgotten:
            return up._replace(daemon=d._replace(status="decided", closing=own.closing))
        return up

    def _adopt(self, d: Daemon, own: Signer) -> Daemon:
        if "signer-copy" in self.dropped:
            ending = d.status in ("asked", "decided")
            return d._replace(doubtful=True, status=d.status if ending else "suspect")
        if d.status == "new" and "adopt-first" in self.dropped:
            return d
        if d.status == "new" and own.accepted == 0:
            return d._replace(status="funding", authorized=0)
        in_flight = d.status == "proved" and own.accepted == d.at + 1
        closing = -1 if d.closing < 0 else own.accepted
        new = d._replace(authorized=own.accepted, closing=closing, agreed=False)
        if in_flight:
            return new._replace(status="revoking")
        if d.status in ("asked", "decided"):
            return new._replace(doubtful=True)
        return new._replace(status="suspect", doubtful=True, at=-1)

    # -- merchant and thief -------------------------------------------------------------------

    def _opponents(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        if e.status == "OPEN" and not self.scenario.honest_merchant:
            yield "merchant expires", self._next(s, e._replace(status="EXPIRING", phase=FIRST_HALF))
        if e.status == "AWAITING_MERCHANT":
            opened = e._replace(status="OPEN", phase=FIRST_HALF, funded=True)
            yield "merchant funds", self._next(s, opened)
            if "expire-awaiting" in self.dropped:
                expiring = e._replace(status="EXPIRING", phase=FIRST_HALF)
                yield "merchant expires unfunded", self._next(s, expiring)
        if e.status == "CLOSING" and e.on != FORGED:
            yield from self._disputes(s)
        if self.scenario.thief and e.status in ("OPEN", "EXPIRING"):
            for state in range(s.signer.accepted + 1):
                if not s.sent & GUARD[state]:
                    yield f"thief sends guard close {state}", s._replace(sent=s.sent | GUARD[state])
            if "permit" in self.dropped and not s.sent & GUARD_FORGED:
                yield (
                    "thief and merchant send a guard close on a made-up state",
                    s._replace(sent=s.sent | GUARD_FORGED),
                )

    def _disputes(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        ours = bool(s.sent & DISPUTE[e.on])
        if e.on > s.knows and not ours:
            return
        who = "dispute" if ours else "merchant disputes"
        seen = s._replace(sent=s.sent | DISPUTE[e.on]) if self.scenario.echo else s
        if e.by_guard and not self.scenario.plain and "void" not in self.dropped:
            void = Escrow("EXPIRING", struck=True, funded=e.funded)
            yield f"{who} {e.on}: the guard's close is void", self._next(seen, void)
        else:
            lost = e._replace(status="CLOSED", paid=0, on=-1, phase=FIRST_HALF)
            yield f"{who} {e.on}: the merchant takes all", self._next(seen, lost)

    # -- the chain ----------------------------------------------------------------------------

    def _next(self, s: State, escrow: Escrow) -> State:
        return s._replace(escrow=escrow, past=(*s.past, s.escrow)[-max(self.scenario.depth, 1) :])

    def _includes(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        if e.status == "ABSENT" and s.sent & OPEN:
            opened = (
                Escrow("AWAITING_MERCHANT") if self.scenario.dual else Escrow("OPEN", funded=True)
            )
            yield "open is included", self._next(s, opened)
        if e.status in ("OPEN", "EXPIRING"):
            yield from self._closes(s)

    def _closes(self, s: State) -> Iterator[Move[State]]:
        e = s.escrow
        posted = e._replace(status="CLOSING", phase=FIRST_HALF)
        guard = not e.struck and (e.status == "EXPIRING" or "guard-expiring" in self.dropped)
        for state in range(self.last + 1) if e.funded else ():
            if s.sent & CLOSE[state] and not (s.void_authorization and state):
                yield f"close {state} is included", self._next(s, posted._replace(on=state))
            if s.sent & GUARD[state] and guard and not (s.void_authorization and state):
                yield (
                    f"guard close {state} is included",
                    self._next(s, posted._replace(on=state, by_guard=True)),
                )
            if s.sent & MUTUAL[state] and not (s.void_authorization and state):
                ended = e._replace(status="CLOSED", phase=FIRST_HALF, paid=BALANCES[state])
                yield f"mutual close {state} is included", self._next(s, ended)
        if s.sent & GUARD_FORGED and guard and e.funded:
            yield (
                "the guard close on a made-up state is included",
                self._next(s, posted._replace(on=FORGED, by_guard=True)),
            )

    def _reorganises(self, s: State) -> Iterator[Move[State]]:
        if not s.past:
            return
        yield "the oldest transaction becomes final", s._replace(past=s.past[1:])
        if s.escrow.status in ENDED and "record-final" in self.dropped:
            gone = s._replace(daemon=s.daemon._replace(status="gone"), answer="")
            if gone != s:
                yield "daemon records the end, which is not final", gone
        if s.reorganised:
            return
        for depth in range(1, min(len(s.past), self.scenario.depth) + 1):
            back = s._replace(escrow=s.past[-depth], past=s.past[:-depth], reorganised=True)
            label = f"a reorganisation drops {depth}"
            yield label, back
            phase = back.escrow.phase
            late = back.escrow.status in ("EXPIRING", "CLOSING") and phase < MARGIN
            if self.scenario.shift and late:
                yield (
                    f"{label} and takes the chain into the margin",
                    back._replace(escrow=back.escrow._replace(phase=MARGIN)),
                )
            if self.scenario.shift and back.escrow.status == "AWAITING_MERCHANT" and phase < OVER:
                yield (
                    f"{label} and takes the chain over the time to fund",
                    back._replace(escrow=back.escrow._replace(phase=OVER)),
                )

    def _time(self, s: State, action: Action) -> Iterator[Move[State]]:
        e = s.escrow
        if e.status == "AWAITING_MERCHANT":
            if e.phase < OVER and not s.past:
                yield "the time to fund passes", s._replace(escrow=e._replace(phase=OVER))
            if e.phase >= OVER:
                who = "watcher" if action is Action.RECLAIM else "merchant"
                ended = Escrow("RECLAIMED", paid=BALANCES[0])
                yield f"{who} reclaims", self._next(s, ended)
        if e.status not in ("EXPIRING", "CLOSING"):
            return
        if e.phase < self.claim_opens and not s.past and not self._waits_for_us(s, action):
            yield _PASSES[e.phase], s._replace(escrow=e._replace(phase=e.phase + 1))
        if e.phase >= self.claim_opens:
            paid = 0 if e.status == "EXPIRING" or e.on == FORGED else BALANCES[e.on]
            who = "watcher" if action is Action.CLAIM else "merchant"
            ended = e._replace(status="CLOSED", paid=paid, on=-1, phase=FIRST_HALF)
            yield f"{who} claims: the customer gets {paid}", self._next(s, ended)

    def _waits_for_us(self, s: State, action: Action) -> bool:
        """Whether time has to wait: an honest customer's act is final before each deadline."""
        e = s.escrow
        if action in (Action.CLOSE, Action.GUARD_CLOSE, Action.DISPUTE_OWN):
            if self.scenario.tight and e.phase == MARGIN and not self._sent(s, action):
                return False
            return e.phase >= SECOND_HALF or action is Action.DISPUTE_OWN
        if not self.scenario.returns or s.attached:
            return False
        if self.scenario.once:
            return not s.compared
        guard_cannot = not s.compared or e.struck or e.by_guard
        return guard_cannot or (e.status == "CLOSING" and self.scenario.thief)

    def _sent(self, s: State, action: Action) -> bool:
        """Whether a transaction that helps is in the network already, whoever sent it."""
        if action is Action.DISPUTE_OWN:
            return bool(s.sent & DISPUTE[s.escrow.on])
        guard = 0 if s.escrow.struck else sum(GUARD)
        return bool(s.sent & (sum(CLOSE) | sum(MUTUAL) | guard))

    # -- properties ---------------------------------------------------------------------------

    def wrong(self, s: State) -> str | None:
        """S1: the customer gets at least what the newest states it has or was asked for give."""
        if s.escrow.status not in ENDED:
            return None
        due = min(BALANCES[s.had : max(s.seen, s.had) + 1])
        if s.escrow.paid < due:
            return f"S1: the customer gets {s.escrow.paid}, at least {due} is due"
        return None

    def helpful(self, label: str) -> bool:
        """Whether the customer and time, and the merchant if honest, can do this by themselves."""
        harm = ("thief", "merchant and", "backup", "old ", "a reorg", "daemon crash", "signer goes")
        if label.startswith(harm):
            return False
        return self.scenario.honest_merchant or not label.startswith("merchant")


def settled(s: State) -> bool:
    """Whether the channel is at an end, or no deposit was ever sent."""
    return s.escrow.status in ENDED or (s.escrow.status == "ABSENT" and not s.sent & OPEN)
