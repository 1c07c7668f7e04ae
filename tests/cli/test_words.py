"""How durations, ages and foreign text are written."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customerctl.later import Later
from customerctl.words import age, clean, duration, lines_of


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 ms"),
        (0.0384, "38 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min"),
        (303, "5 min 3 s"),
        (3600, "1 h"),
        (11100, "3 h 5 min"),
        (183600, "2 d 3 h"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    """A duration is written with its two largest units."""
    assert duration(seconds) == words


def test_ages_are_shorter() -> None:
    """An age is written with its largest unit; a clock that went back means now."""
    assert [age(s) for s in (-5, 59.9, 60, 7199, 90000)] == ["0 s", "59 s", "1 min", "1 h", "1 d"]


@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    """Whatever comes in, only printable characters come out, on one line, as many as before."""
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned) == len(text)
    assert all(line.isprintable() for line in lines_of(text))


def test_a_cancelled_action_does_not_run() -> None:
    """What is to happen later happens once, and never after it was cancelled."""
    happened = threading.Event()
    Later(0, happened.set)
    assert happened.wait(10)
    never = threading.Event()
    later = Later(3600, never.set)
    later.cancel()
    later.cancel()
    assert not never.is_set()
