"""What commands print."""

from __future__ import annotations

import json

import pytest

from merchantd.output import show_json, show_record, show_table


def test_record_shows_amounts_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """One field per line; amounts with their asset, nothing as a dash, truth as yes or no."""
    show_record({"deposit": 5, "deposit_text": "5 ETH", "ended": None, "expire_requested": True})
    assert capsys.readouterr().out.splitlines() == [
        "deposit           5 ETH",
        "ended             -",
        "expire requested  yes",
    ]


def test_notes_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a customer's note are shown, not sent."""
    show_record({"note": "\x1b[2Jhello\n\x9b31m"})
    assert capsys.readouterr().out == "note  \ufffd[2Jhello\ufffd\ufffd31m\n"


def test_piped_table_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal a list is plain lines for other programs."""
    show_table([{"a": 1, "b": None}, {"a": 2, "b": "x"}], {"First": "a", "Second": "b"})
    assert capsys.readouterr().out == "1\t-\n2\tx\n"


def test_json_keeps_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the units as integers beside the text."""
    show_json({"deposit": 2**62, "deposit_text": "much"})
    assert json.loads(capsys.readouterr().out) == {"deposit": 2**62, "deposit_text": "much"}
