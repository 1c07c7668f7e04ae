"""How many lines of the log may be written, by a clock that the test holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from zkchannels.service.flood import ALL_LINES, LINES, Flood


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def admitted(flood: Flood, count: int, kind: str = "x", subject: object = None) -> int:
    """Return how many of so many lines may be written."""
    return sum(flood.admit(kind, subject, "warning") is not None for _ in range(count))


def test_burst_then_rate() -> None:
    """A burst is let through, then a steady rate; the next line tells how many were held back."""
    clock = Clock()
    flood = Flood(clock)
    assert admitted(flood, 1000) == LINES.burst
    clock.now += 10
    assert flood.admit("x", None, "warning") == 1000 - LINES.burst
    assert flood.admit("x", None, "warning") == 0
    assert admitted(flood, 1000) == 10 * LINES.per_second - 2


def test_what_is_owed_is_told_once() -> None:
    """When a flood ends without a further line its count can be asked for, once."""
    clock = Clock()
    flood = Flood(clock)
    admitted(flood, 100)
    admitted(flood, 100, subject="an operation")
    assert flood.owed() == []
    clock.now += 1
    assert flood.owed() == [("x", 200 - 2 * LINES.burst)]
    assert flood.owed() == []
    assert flood.admit("x", None, "info") == 0


def test_all_kinds_together_are_bounded_but_for_errors() -> None:
    """Many kinds or subjects do not add up to a flood; an error is written all the same."""
    flood = Flood(Clock())
    written = sum(admitted(flood, 50, subject=number) for number in range(1000))
    assert written == ALL_LINES.burst
    assert flood.admit("new", None, "info") is None
    assert flood.admit("new", None, "error") is not None


def test_memory_is_bounded() -> None:
    """However many subjects there are, only so many are remembered."""
    clock = Clock()
    flood = Flood(clock)
    for number in range(20_000):
        flood.admit("x", number, "error")
    assert len(flood._buckets) <= 4096


@given(some.lists(some.tuples(some.floats(0, 5), some.integers(0, 3)), max_size=300))
def test_never_more_than_burst_and_rate(moments: list[tuple[float, int]]) -> None:
    """Whatever comes when, no more is written than burst plus rate times the time gone by."""
    clock = Clock()
    flood, written, held = Flood(clock), 0, 0
    for pause, lines in moments:
        clock.now += pause / 10
        for _ in range(lines * 20):
            before = flood.admit("x", None, "info")
            written += before is not None
            held += before is None
    assert written <= LINES.burst + LINES.per_second * clock.now + 1
    assert written + held == sum(20 * lines for _, lines in moments)
