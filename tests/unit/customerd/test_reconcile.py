"""The reconcile table: every combination has a row, and every row does what protects the money."""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, replace
from enum import Enum
from typing import Any, get_type_hints

import pytest

from customerd.channels.record import Status
from customerd.watch import reconcile as module
from customerd.watch.reconcile import (
    KNOWN_CHAIN,
    KNOWN_LOCAL,
    TABLE,
    Action,
    MissingRow,
    Phase,
    Posted,
    Situation,
    phase_of,
    posted_of,
    reconcile,
)
from zkchannels.escrow.record import ChannelStatus

PAYING = {Status.FUNDING, Status.IDLE, Status.PROVED, Status.REVOKING}
LIVE = PAYING | {Status.ASKED, Status.DECIDED}
ENDED = {ChannelStatus.CLOSED, ChannelStatus.RECLAIMED}

USUAL = Situation(
    local=Status.IDLE,
    chain=ChannelStatus.OPEN,
    final=ChannelStatus.OPEN,
    phase=Phase.FIRST_HALF,
    posted=Posted.NOTHING,
    closed_by_guard=False,
    guard_usable=True,
    signer=True,
    compared=True,
)
EXPIRING = replace(USUAL, chain=ChannelStatus.EXPIRING)
CLOSING = replace(USUAL, local=Status.DECIDED, chain=ChannelStatus.CLOSING, posted=Posted.OURS)


def values_of(kind: Any) -> tuple[Any, ...]:
    """Every value of a field: an enumeration's members, or both booleans."""
    if kind is bool:
        return (True, False)
    assert issubclass(kind, Enum), f"{kind} cannot be enumerated"
    return tuple(kind)


def situations() -> Iterator[Situation]:
    """Every combination there is, taken from the type: a new field takes part by itself."""
    hints = get_type_hints(Situation)
    names = [field.name for field in fields(Situation)]
    for values in itertools.product(*(values_of(hints[name]) for name in names)):
        yield Situation(**dict(zip(names, values, strict=True)))


def expected(now: Situation) -> Action:  # noqa: C901, PLR0912
    """The table once more, in other words: by what is on the chain, then by who is there."""
    match now.chain:
        case ChannelStatus.CLOSED | ChannelStatus.RECLAIMED:
            ended = now.final in ENDED and now.local is not Status.CLOSED
            return Action.RECORD if ended else Action.NONE
        case _ if now.local is Status.CLOSED:
            return Action.REOPEN
        case ChannelStatus.ABSENT:
            return Action.SEND_OPEN if now.local in PAYING else Action.NONE
        case ChannelStatus.AWAITING_MERCHANT:
            return Action.RECLAIM if now.phase is Phase.OVER else Action.NONE
        case ChannelStatus.CLOSING if now.posted is Posted.OURS:
            if now.phase is not Phase.OVER:
                return Action.NONE
            return Action.CLAIM if now.signer or not now.closed_by_guard else Action.ALARM
        case ChannelStatus.CLOSING:
            ours = now.posted is Posted.STALE and now.closed_by_guard and now.signer
            return Action.DISPUTE_OWN if ours else Action.ALARM
        case _ if now.local is Status.NEW:
            return Action.ALARM
        case ChannelStatus.OPEN if now.local in PAYING:
            return Action.NONE
        case ChannelStatus.OPEN if now.local in LIVE:
            return Action.CLOSE if now.signer else Action.WAIT_FOR_SIGNER
        case ChannelStatus.OPEN:
            return Action.ASK_MERCHANT
        case _:
            early = now.phase is Phase.FIRST_HALF
            if now.local is Status.SUSPECT and early:
                return Action.ASK_MERCHANT
            if now.signer:
                return Action.CLOSE
            if not now.guard_usable:
                return Action.ALARM
            waits = early and not now.compared
            return Action.WAIT_FOR_SIGNER if waits else Action.GUARD_CLOSE


def test_total_and_as_written() -> None:
    """Every combination has a row, and each gives the action of the independent second table."""
    for now in situations():
        decision = reconcile(now)
        assert decision.action is expected(now), now
        assert decision.reason


def test_every_row_decides_something() -> None:
    """No row is hidden behind earlier ones, no two rows give the same reason."""
    reached = {reconcile(now).reason for now in situations()}
    assert reached == {row.reason for row in TABLE}
    assert len(reached) == len(TABLE)


def test_every_action_is_in_the_table() -> None:
    """There is no action that no situation leads to."""
    assert {row.action for row in TABLE} == set(Action)


def test_a_new_status_has_no_row_until_it_is_given_one() -> None:
    """Each status is one the table was written for; of any other it says that no row fits."""
    assert set(Status) == KNOWN_LOCAL
    assert set(ChannelStatus) == KNOWN_CHAIN

    class Later(Enum):
        PAUSED = "paused"

    for field in ("local", "chain", "final"):
        with pytest.raises(MissingRow):
            reconcile(replace(USUAL, **{field: Later.PAUSED}))  # type: ignore[arg-type]


def test_pure() -> None:
    """The table reads no clock, file, network or setting: it imports types alone, keeps nothing."""
    imported = {
        name
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    allowed = {"__future__", "dataclasses", "enum"}
    assert imported == allowed | {"customerd.channels.record", "zkchannels.escrow.record"}
    before = copy.deepcopy(TABLE)
    first = [reconcile(now) for now in situations()]
    assert first == [reconcile(now) for now in situations()]
    assert before == TABLE
    with pytest.raises(FrozenInstanceError):
        USUAL.local = Status.NEW  # type: ignore[misc]


LEAVES = {
    Action.CLOSE: {Status.DECIDED},
    Action.GUARD_CLOSE: {Status.DECIDED},
    Action.RECORD: {Status.CLOSED},
    Action.REOPEN: {Status.DECIDED},
}
"""What carrying out an action writes into the local record; the others write nothing."""


def written(now: Situation) -> Situation:
    """The situation after the decision was carried out once, and before the chain shows it."""
    action = reconcile(now).action
    if action is Action.CLOSE and now.local is Status.ASKED and now.chain is ChannelStatus.OPEN:
        return now  # closed by agreement: that is asked for, nothing is decided alone
    (local,) = LEAVES.get(action, {now.local})
    return replace(now, local=local)


def test_idempotent() -> None:
    """A decision carried out twice leaves what once leaves, and asks for nothing it did not."""
    for now in situations():
        once = written(now)
        again = written(once)
        first, second = reconcile(now).action, reconcile(once).action
        if first is Action.REOPEN:  # the record is open again: what the chain asks for follows
            assert second is not Action.REOPEN
            assert written(again) == again
            continue
        assert again == once, now
        assert second in (first, Action.NONE), now


SPOTS = [
    (replace(USUAL), Action.NONE, "in use"),
    (replace(USUAL, chain=ChannelStatus.ABSENT), Action.SEND_OPEN, "not on the chain"),
    (replace(USUAL, local=Status.NEW), Action.ALARM, "ca0-before-open"),
    (replace(USUAL, local=Status.ASKED), Action.CLOSE, "close-final"),
    (replace(USUAL, local=Status.ASKED, signer=False), Action.WAIT_FOR_SIGNER, "guard-expiring"),
    (replace(USUAL, local=Status.SUSPECT), Action.ASK_MERCHANT, "suspect"),
    (replace(USUAL, local=Status.CLOSED), Action.REOPEN, "went back"),
    (replace(EXPIRING), Action.CLOSE, "demands a close"),
    (replace(EXPIRING, signer=False), Action.GUARD_CLOSE, "guard"),
    (replace(EXPIRING, signer=False, compared=False), Action.WAIT_FOR_SIGNER, "wait-half"),
    (
        replace(EXPIRING, signer=False, compared=False, phase=Phase.LATE),
        Action.GUARD_CLOSE,
        "guard",
    ),
    (replace(EXPIRING, signer=False, guard_usable=False), Action.ALARM, "only the signer"),
    (replace(EXPIRING, guard_usable=False), Action.CLOSE, "demands a close"),
    (replace(EXPIRING, local=Status.SUSPECT), Action.ASK_MERCHANT, "suspect"),
    (replace(EXPIRING, local=Status.SUSPECT, phase=Phase.LATE), Action.CLOSE, "demands a close"),
    (replace(CLOSING), Action.NONE, "delay runs"),
    (replace(CLOSING, phase=Phase.OVER), Action.CLAIM, "delay of our close is over"),
    (
        replace(CLOSING, phase=Phase.OVER, closed_by_guard=True, signer=False),
        Action.ALARM,
        "not certain",
    ),
    (replace(CLOSING, posted=Posted.FOREIGN), Action.ALARM, "permit"),
    (replace(CLOSING, posted=Posted.FOREIGN, phase=Phase.OVER), Action.ALARM, "permit"),
    (
        replace(CLOSING, posted=Posted.STALE, closed_by_guard=True, phase=Phase.OVER),
        Action.DISPUTE_OWN,
        "late-dispute",
    ),
    (replace(CLOSING, posted=Posted.STALE), Action.ALARM, "signer-refuses"),
    (
        replace(USUAL, chain=ChannelStatus.CLOSED, final=ChannelStatus.OPEN),
        Action.NONE,
        "record-final",
    ),
    (
        replace(USUAL, chain=ChannelStatus.CLOSED, final=ChannelStatus.CLOSED),
        Action.RECORD,
        "record-final",
    ),
    (
        replace(USUAL, chain=ChannelStatus.AWAITING_MERCHANT, phase=Phase.OVER),
        Action.RECLAIM,
        "did not fund",
    ),
]


@pytest.mark.parametrize(("now", "action", "reason"), SPOTS)
def test_rows_with_their_reasons(now: Situation, action: Action, reason: str) -> None:
    """Each row of the documented table, by its reason."""
    decision = reconcile(now)
    assert decision.action is action
    assert reason in decision.reason


def test_suspect_never_closes_alone_in_open() -> None:
    """A channel that is perhaps old is never closed unilaterally while it is OPEN (suspect)."""
    for now in situations():
        if now.local is Status.SUSPECT and now.chain is ChannelStatus.OPEN:
            assert reconcile(now).action is Action.ASK_MERCHANT


def test_the_guard_only_acts_in_expiring() -> None:
    """The guard never closes in OPEN, nor when it is unusable or a signer can (guard-expiring)."""
    for now in situations():
        if reconcile(now).action is Action.GUARD_CLOSE:
            assert now.chain is ChannelStatus.EXPIRING
            assert now.guard_usable
            assert not now.signer


def test_posted_close() -> None:
    """A posted lock is ours, stale when a newer state is complete, or foreign."""
    closing = ChannelStatus.CLOSING
    assert posted_of(ChannelStatus.OPEN, state=None, completed=3) is Posted.NOTHING
    assert posted_of(closing, state=None, completed=3) is Posted.FOREIGN
    assert posted_of(closing, state=0, completed=None) is Posted.OURS
    assert posted_of(closing, state=4, completed=3) is Posted.OURS
    assert posted_of(closing, state=3, completed=3) is Posted.OURS
    assert posted_of(closing, state=2, completed=3) is Posted.STALE


def test_phases() -> None:
    """The halves end a margin before the deadline; `claim` opens after it."""

    def phase(now: int) -> Phase:
        return phase_of(deadline=10_000, delay=1000, margin=100, now=now)

    assert phase(9000) is Phase.FIRST_HALF
    assert phase(9449) is Phase.FIRST_HALF
    assert phase(9450) is Phase.LATE
    assert phase(10_000) is Phase.LATE
    assert phase(10_001) is Phase.OVER
    assert phase_of(deadline=0, delay=1000, margin=100, now=5) is Phase.FIRST_HALF
