"""The reconcile table: what to do about a channel, from its record, the chain and who is there.

Pure and total: every combination has a row with its reason (docs/watcher.md). It is asked after
every change and every start and may be asked as often as one likes: an action whose transaction was
sent before is simply sent again until it is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from customerd.channels.record import LIVE, Status
from zkchannels.escrow.record import ChannelStatus


class Action(Enum):
    """What the watcher may do about a channel."""

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


class Phase(Enum):
    """Where chain time stands in a running delay."""

    FIRST_HALF = "first half"
    LATE = "second half"
    OVER = "over"


class Posted(Enum):
    """Which state a channel is being closed on."""

    NOTHING = "nothing"
    NEWEST = "our newest state"
    STALE = "an older state of ours"
    FOREIGN = "a lock that is not ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that the decision depends on."""

    local: Status
    chain: ChannelStatus
    final: ChannelStatus
    """The channel's status on the final part of the chain."""
    phase: Phase
    posted: Posted
    closed_by_guard: bool
    guard_usable: bool
    """Enabled, and not struck off by a voided close."""
    signer: bool
    """Attached, and its records compared."""
    compared: bool
    """Whether any signer was compared with the database since the daemon started."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and the reason of its row."""

    action: Action
    reason: str


_ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)
_BEFORE_CLOSE = LIVE - {Status.ASKED, Status.DECIDED}


def phase_of(*, deadline: int, delay: int, margin: int, now: int) -> Phase:
    """Return the phase of a delay; all times are chain time in seconds.

    The second half ends a margin early: an act must be final the longest expected reorganisation
    before `claim` opens (rule `margin`), so it begins early enough to leave as much time.
    """
    if deadline == 0 or now <= deadline - delay // 2 - margin:
        return Phase.FIRST_HALF
    return Phase.LATE if now <= deadline else Phase.OVER


def posted_of(record: ChannelStatus, *, state: int | None, newest: int | None) -> Posted:
    """Say which state is being closed on, from the index found for its lock."""
    if record is not ChannelStatus.CLOSING:
        return Posted.NOTHING
    if state is None:
        return Posted.FOREIGN
    return Posted.NEWEST if state == newest else Posted.STALE


def reconcile(situation: Situation) -> Decision:
    """Return the one action for a situation; total over all combinations."""
    if situation.chain in _ENDED:
        return _ended(situation)
    if situation.local is Status.CLOSED:
        return Decision(Action.REOPEN, "the recorded end is not on the chain any more")
    return _ROWS[situation.chain](situation)


def _ended(situation: Situation) -> Decision:
    if situation.final not in _ENDED:
        return Decision(Action.NONE, "the end is recorded when it is final")
    if situation.local is Status.CLOSED:
        return Decision(Action.NONE, "recorded and final")
    return Decision(Action.RECORD, "the end is final")


def _absent(situation: Situation) -> Decision:
    if situation.local in _BEFORE_CLOSE:
        return Decision(Action.SEND_OPEN, "the deposit is not on chain; the same transaction again")
    return Decision(Action.NONE, "nothing is on chain and nothing is wanted there")


def _awaiting(situation: Situation) -> Decision:
    if situation.phase is Phase.OVER:
        return Decision(Action.RECLAIM, "the merchant did not fund its share in time")
    return Decision(Action.NONE, "the merchant has time to fund its share")


def _open(situation: Situation) -> Decision:
    if situation.local is Status.NEW:
        return Decision(Action.ALARM, "funded without a closing authorization: cannot happen")
    if situation.local is Status.SUSPECT:
        return Decision(
            Action.ASK_MERCHANT, "signer and database may be old: recover, or close by agreement"
        )
    if situation.local in _BEFORE_CLOSE:
        return Decision(Action.NONE, "the operation at work goes on")
    if situation.signer:
        return Decision(Action.CLOSE, "a close was decided")
    return Decision(Action.WAIT_FOR_SIGNER, "a close was decided and only the signer can send it")


def _expiring(situation: Situation) -> Decision:  # noqa: PLR0911 - one return per row
    if situation.local is Status.NEW:
        return Decision(Action.ALARM, "expiring without a closing authorization: cannot happen")
    early = situation.phase is Phase.FIRST_HALF
    if situation.local is Status.SUSPECT and early:
        return Decision(
            Action.ASK_MERCHANT, "an old state would be disputed; the merchant may help"
        )
    if situation.signer:
        return Decision(Action.CLOSE, "the merchant started a close: silence would cost everything")
    if not situation.guard_usable:
        if early:
            return Decision(Action.WAIT_FOR_SIGNER, "the guard may not close; the signer must")
        return Decision(Action.ALARM, "the guard may not close and the signer is away")
    if situation.compared:
        return Decision(Action.GUARD_CLOSE, "the signer is away; the guard answers the expire")
    if early:
        return Decision(
            Action.WAIT_FOR_SIGNER, "the database may be old: the signer is given half the delay"
        )
    return Decision(Action.GUARD_CLOSE, "half the delay is over without the signer")


def _closing(situation: Situation) -> Decision:
    if situation.posted is Posted.NEWEST:
        if situation.phase is not Phase.OVER:
            return Decision(Action.NONE, "closing on the newest state; the delay runs")
        if situation.closed_by_guard and not situation.signer:
            return Decision(
                Action.ALARM, "only an attached signer can tell that the guard closed on the newest"
            )
        return Decision(Action.CLAIM, "the delay is over")
    if situation.posted is Posted.STALE:
        if situation.closed_by_guard and situation.signer:
            return Decision(Action.DISPUTE_OWN, "the guard closed on an old state: void it")
        return Decision(Action.ALARM, "closing on an old state of ours")
    return Decision(Action.ALARM, "closing on a lock that is not ours: cannot happen")


_ROWS = {
    ChannelStatus.ABSENT: _absent,
    ChannelStatus.AWAITING_MERCHANT: _awaiting,
    ChannelStatus.OPEN: _open,
    ChannelStatus.EXPIRING: _expiring,
    ChannelStatus.CLOSING: _closing,
}
