"""When alarms are due, by which clock, and that each is raised and cleared once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from customerd.watch.alarms import (
    Alarm,
    AlarmBook,
    Due,
    Level,
    blind_alarms,
    chain_time,
    deadline_alarms,
)

DUE = Due(begin=1000, before=2000, what="answer", label="coffee", channel=b"\1" * 32)


def kinds(now: int) -> list[str]:
    """The kinds of alarms for `DUE` at a time."""
    return [alarm.kind for alarm in deadline_alarms([DUE], now=now)]


def test_alarms_at_half_and_at_a_tenth_of_the_time() -> None:
    """From 50 % on an error, from 10 % on a critical one too, and after the end both still."""
    assert kinds(1499) == []
    assert kinds(1500) == ["deadline_half"]
    assert kinds(1899) == ["deadline_half"]
    assert kinds(1900) == ["deadline_half", "deadline_tenth"]
    assert kinds(9999) == ["deadline_half", "deadline_tenth"]
    half, tenth = deadline_alarms([DUE], now=1990)
    assert (half.level, tenth.level) == (Level.ERROR, Level.CRITICAL)
    assert tenth.deadline == 2000
    assert "10 s are left" in tenth.message
    assert "is over" in deadline_alarms([DUE], now=2000)[1].message


def test_a_fresh_deadline_is_another_alarm() -> None:
    """A deadline set anew for the same channel is told again."""
    again = replace(DUE, begin=3000, before=4000)
    (one, _), (other, _) = (deadline_alarms([due], now=5000) for due in (DUE, again))
    assert one.key != other.key


def test_a_chain_out_of_sight() -> None:
    """Patience first, then an alarm; with open channels one at half of what they allow, at 90 %."""

    def found(unseen: float, allowed: int | None) -> list[str]:
        alarms = blind_alarms(unseen=unseen, patience=120, allowed=allowed, why="no route")
        return [alarm.kind for alarm in alarms]

    assert found(120, 1000) == []
    assert found(121, 1000) == ["chain_not_followed"]
    assert found(500, 1000) == ["chain_not_followed", "blind_half"]
    assert found(900, 1000) == ["chain_not_followed", "blind_half", "blind_tenth"]
    assert found(900, None) == ["chain_not_followed"]
    (alarm,) = blind_alarms(unseen=121, patience=120, allowed=None, why="no route")
    assert alarm.message == "the chain is not followed: no route"


def test_the_clock() -> None:
    """Chain time while the chain is followed; the later of both clocks while it is not."""
    assert chain_time(seen=5000, ago=70, followed=True, clock=9000.5) == 5000
    assert chain_time(seen=5000, ago=70, followed=False, clock=9000.5) == 9000
    assert chain_time(seen=5000, ago=70, followed=False, clock=4000) == 5070
    assert chain_time(seen=None, ago=70, followed=False, clock=9000.5) == 9000


def test_raised_once_cleared_once() -> None:
    """However often it is looked at, and whatever its words, an alarm is new once and over once."""
    book, alarm = AlarmBook(), Alarm("fee_cap", "2 gwei", subject="close")
    assert book.since(alarm) is None
    assert book.turn([alarm], clock=1.0) == ([alarm], [])
    reworded = replace(alarm, message="3 gwei")
    assert book.turn([reworded], clock=2.0) == ([], [])
    assert book.since(alarm) == 1.0
    assert book.turn([], clock=3.0) == ([], [reworded])
    assert book.turn([], clock=4.0) == ([], [])
    assert book.turn([alarm], clock=5.0) == ([alarm], [])


@given(st.lists(st.sets(st.sampled_from("abcdef"))))
def test_raised_and_cleared_alternate(looks: list[set[str]]) -> None:
    """What holds is always what was raised and not cleared since."""
    book, holding = AlarmBook(), set[str]()
    for clock, look in enumerate(looks):
        new, over = book.turn([Alarm(kind, "") for kind in look], clock=clock)
        assert holding.isdisjoint(alarm.kind for alarm in new)
        assert holding.issuperset(alarm.kind for alarm in over)
        holding |= {alarm.kind for alarm in new}
        holding -= {alarm.kind for alarm in over}
        assert holding == look
