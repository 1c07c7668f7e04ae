"""What the watcher does about one channel: one table over local record and chain, pure and total.

The table is `TABLE`; the first row that fits decides. `docs/protocol.md` lists the rules that the
reasons name. An action whose transaction is already sent is the same action again: the lane sends
one transaction per purpose, until it is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from customerd.channels.record import Status
from zkchannels.escrow.record import ChannelStatus


class Phase(Enum):
    """Where the chain's time is in a running delay."""

    FIRST_HALF = "first half"
    LATE = "late"
    OVER = "over"


class Posted(Enum):
    """Which close state is posted on the chain."""

    NOTHING = "nothing"
    OURS = "ours"  # the newest complete one, or the one it may be replaced by
    STALE = "stale"  # ours, and a newer one is complete: only a thief or an old database posts it
    FOREIGN = "foreign"  # a lock that is none of ours


class Action(Enum):
    """What the watcher does about one channel."""

    NONE = "none"
    SEND_OPEN = "send-open"
    CLOSE = "close"
    GUARD_CLOSE = "guard-close"
    CLAIM = "claim"
    RECLAIM = "reclaim"
    DISPUTE_OWN = "dispute-own"
    ASK_MERCHANT = "ask-merchant"
    WAIT_FOR_SIGNER = "wait-for-signer"
    RECORD = "record"
    REOPEN = "reopen"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that decides; `docs/watcher.md` explains.

    `chain` is the status at the newest block, `final` at the newest final one. `posted` and
    `closed_by_guard` mean something while CLOSING. `guard_usable`: the guard is enabled, has a
    permit and is not struck off. `signer`: attached, and its records compared. `compared`: they
    were compared at least once since the daemon's start.
    """

    local: Status
    chain: ChannelStatus
    final: ChannelStatus
    phase: Phase
    posted: Posted
    closed_by_guard: bool
    guard_usable: bool
    signer: bool
    compared: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The action, and why, for people."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table: fits when every column that is given contains the situation's value."""

    action: Action
    reason: str
    local: frozenset[Status] | None = None
    chain: frozenset[ChannelStatus] | None = None
    phase: frozenset[Phase] | None = None
    final: frozenset[ChannelStatus] | None = None
    posted: frozenset[Posted] | None = None
    closed_by_guard: bool | None = None
    guard_usable: bool | None = None
    signer: bool | None = None
    compared: bool | None = None

    def fits(self, now: Situation) -> bool:
        """Return whether this row is about the situation."""
        return (
            (self.local is None or now.local in self.local)
            and (self.chain is None or now.chain in self.chain)
            and (self.phase is None or now.phase in self.phase)
            and (self.final is None or now.final in self.final)
            and (self.posted is None or now.posted in self.posted)
            and self.closed_by_guard in (None, now.closed_by_guard)
            and self.guard_usable in (None, now.guard_usable)
            and self.signer in (None, now.signer)
            and self.compared in (None, now.compared)
        )


_PAYING = frozenset(
    {
        Status.FUNDING,
        Status.IDLE,
        Status.PROVED,
        Status.REVOKING,
    }
)
_ENDING = frozenset({Status.ASKED, Status.DECIDED})
_NEW = frozenset({Status.NEW})
_SUSPECT = frozenset({Status.SUSPECT})
_CLOSED = frozenset({Status.CLOSED})

_ENDED = frozenset({ChannelStatus.CLOSED, ChannelStatus.RECLAIMED})
_ABSENT = frozenset({ChannelStatus.ABSENT})
_AWAITING = frozenset({ChannelStatus.AWAITING_MERCHANT})
_OPEN = frozenset({ChannelStatus.OPEN})
_EXPIRING = frozenset({ChannelStatus.EXPIRING})
_CLOSING = frozenset({ChannelStatus.CLOSING})

KNOWN_LOCAL = _PAYING | _ENDING | _NEW | _SUSPECT | _CLOSED
KNOWN_CHAIN = _ENDED | _ABSENT | _AWAITING | _OPEN | _EXPIRING | _CLOSING
"""The statuses that the table was written for: "any" in a row means these, and no new one."""

_STALE = frozenset({Posted.STALE})
_FIRST_HALF = frozenset({Phase.FIRST_HALF})
_OVER = frozenset({Phase.OVER})

TABLE: tuple[Row, ...] = (
    # the end
    Row(
        chain=_ENDED,
        local=_CLOSED,
        action=Action.NONE,
        reason="the end is recorded",
    ),
    Row(
        chain=_ENDED,
        final=frozenset(ChannelStatus) - _ENDED,
        action=Action.NONE,
        reason="ended, but a reorganisation may still take that back (record-final)",
    ),
    Row(
        chain=_ENDED,
        action=Action.RECORD,
        reason="ended, and final (record-final)",
    ),
    Row(
        local=_CLOSED,
        action=Action.REOPEN,
        reason="the chain went back behind the recorded end",
    ),
    # before the channel is open
    Row(
        chain=_ABSENT,
        local=_PAYING,
        action=Action.SEND_OPEN,
        reason="closing authorization 0 is here, the deposit is not on the chain",
    ),
    Row(
        chain=_ABSENT,
        action=Action.NONE,
        reason="nothing is deposited, and no deposit is wanted",
    ),
    Row(
        chain=_AWAITING,
        phase=_OVER,
        action=Action.RECLAIM,
        reason="the merchant did not fund in time",
    ),
    Row(
        chain=_AWAITING,
        action=Action.NONE,
        reason="the merchant may still fund",
    ),
    # a close is posted
    Row(
        chain=_CLOSING,
        posted=frozenset({Posted.FOREIGN, Posted.NOTHING}),
        action=Action.ALARM,
        reason="closed on a state that is not ours, which permits exclude (permit)",
    ),
    Row(
        chain=_CLOSING,
        posted=_STALE,
        closed_by_guard=True,
        signer=True,
        action=Action.DISPUTE_OWN,
        reason="the guard's close is on a revoked state, at any time (own-dispute, late-dispute)",
    ),
    Row(
        chain=_CLOSING,
        posted=_STALE,
        closed_by_guard=True,
        action=Action.ALARM,
        reason="the guard's close is on a revoked state, and only the signer can undo it",
    ),
    Row(
        chain=_CLOSING,
        posted=_STALE,
        action=Action.ALARM,
        reason="our own close is on a revoked state, which the signer excludes (signer-refuses)",
    ),
    Row(
        chain=_CLOSING,
        phase=_OVER,
        closed_by_guard=True,
        signer=False,
        action=Action.ALARM,
        reason="without the signer it is not certain that the guard's close is our newest state",
    ),
    Row(
        chain=_CLOSING,
        phase=_OVER,
        action=Action.CLAIM,
        reason="the delay of our close is over",
    ),
    Row(
        chain=_CLOSING,
        action=Action.NONE,
        reason="our close is posted, its delay runs",
    ),
    # open or expiring
    Row(
        local=_NEW,
        action=Action.ALARM,
        reason="money is locked without a closing authorization (ca0-before-open)",
    ),
    Row(
        chain=_OPEN,
        local=_SUSPECT,
        action=Action.ASK_MERCHANT,
        reason="perhaps not the newest state: recover it, or close mutually (suspect)",
    ),
    Row(
        chain=_OPEN,
        local=_ENDING,
        signer=True,
        action=Action.CLOSE,
        reason="a close was decided (close-final)",
    ),
    Row(
        chain=_OPEN,
        local=_ENDING,
        action=Action.WAIT_FOR_SIGNER,
        reason="a close was decided, and the guard may not close in OPEN (guard-expiring)",
    ),
    Row(
        chain=_OPEN,
        action=Action.NONE,
        reason="the channel is in use",
    ),
    Row(
        chain=_EXPIRING,
        local=_SUSPECT,
        phase=_FIRST_HALF,
        action=Action.ASK_MERCHANT,
        reason="perhaps not the newest state: recover it while there is time (suspect)",
    ),
    Row(
        chain=_EXPIRING,
        signer=True,
        action=Action.CLOSE,
        reason="the merchant demands a close",
    ),
    Row(
        chain=_EXPIRING,
        guard_usable=False,
        action=Action.ALARM,
        reason="the merchant demands a close, and only the signer can make it",
    ),
    Row(
        chain=_EXPIRING,
        phase=_FIRST_HALF,
        compared=False,
        action=Action.WAIT_FOR_SIGNER,
        reason="perhaps a restored database: the guard waits for half of the delay (wait-half)",
    ),
    Row(
        chain=_EXPIRING,
        action=Action.GUARD_CLOSE,
        reason="the merchant demands a close, and no signer is attached (guard)",
    ),
)


class MissingRow(LookupError):
    """No row of the table fits: cannot happen, the tests go through every combination."""


def reconcile(now: Situation) -> Decision:
    """Return what to do about a channel: the first row of `TABLE` that fits.

    Raises MissingRow for a status that the table was not written for.
    """
    if now.local not in KNOWN_LOCAL or not {now.chain, now.final} <= KNOWN_CHAIN:
        raise MissingRow(now)
    for row in TABLE:
        if row.fits(now):
            return Decision(row.action, row.reason)
    raise MissingRow(now)


def posted_of(status: ChannelStatus, *, state: int | None, completed: int | None) -> Posted:
    """Return which close is posted, from the index of our state that has its lock (None: none).

    `completed` is the newest state whose pay token has arrived. A close on it is never undone by
    us, though the next state be authorized: the payment between them was in flight, either outcome
    is right, and a void would make the channel depend on the signer (rule `own-dispute`).
    """
    if status is not ChannelStatus.CLOSING:
        return Posted.NOTHING
    if state is None:
        return Posted.FOREIGN
    return Posted.STALE if completed is not None and state < completed else Posted.OURS


def phase_of(*, deadline: int, delay: int, margin: int, now: int) -> Phase:
    """Return where the chain's time (of its newest block) is before a deadline; all in seconds.

    `claim` and `reclaim` open after the deadline. Acts are due a margin before it, the longest
    reorganisation that is expected (margin), so the halves are those of the time until then.
    A deadline of 0 is none.
    """
    if deadline == 0:
        return Phase.FIRST_HALF
    if now > deadline:
        return Phase.OVER
    late_from = deadline - margin - (delay - margin) // 2
    return Phase.LATE if now >= late_from else Phase.FIRST_HALF
