"""What is drawn on a terminal: tables, panels, progress; colours only where they are wanted."""

from __future__ import annotations

import pytest

from customerd.rpc import methods
from tests.cli.owner import GUARD, Owner, channel
from tests.cli.running import Customerctl

YELLOW = "\x1b[1;33m"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def test_getinfo_is_a_panel_with_highlighted_alarms(owner: Owner, customerctl: Customerctl) -> None:
    """`getinfo` on a terminal draws a panel, alarms under it, those that may wait in yellow."""
    owner.alarms = [
        methods.Alert(kind="defend", message="answer by 18:00", label="coffee", level="warning")
    ]
    terminal = customerctl.on_terminal("getinfo")
    assert terminal.finish() == 0
    assert "─ customerd 0.1.0: ready ─" in terminal.text
    assert GUARD in terminal.text
    assert f"{YELLOW}! coffee: answer by 18:00 (defend)" in terminal.raw


def test_no_color_is_respected(owner: Owner, customerctl: Customerctl) -> None:
    """With NO_COLOR set no colour is written, and the words say it all."""
    owner.missing = ["safe_mode"]
    terminal = customerctl.on_terminal("getinfo", NO_COLOR="1")
    terminal.finish()
    assert not any(
        f"\x1b[{style}3{colour}m" in terminal.raw
        for style in ("", "1;", "2;")
        for colour in range(1, 8)
    )
    assert "customerd 0.1.0: safe" in terminal.text
    assert "not attached: safe mode" in terminal.text


@pytest.mark.parametrize("columns", [48, 80, 120])
def test_tables_keep_amounts_and_identifiers_whole(
    owner: Owner, customerctl: Customerctl, columns: int
) -> None:
    """At any width no line is longer than the terminal, and amounts and ids stay in one piece."""
    label = "the bookshop at the corner of the old town"
    owner.channels[label] = channel(label, customer=12_345_678_901)
    identity = customerctl.json("pay", label, "3.25 ETH", "--no-wait")["operation"]
    for command, wholes in (("list", ("0.1 ETH",)), ("operations", (identity, "3.25 ETH"))):
        terminal = customerctl.on_terminal(command, columns=columns)
        assert terminal.finish() == 0
        assert all(len(line.rstrip("\r")) <= columns for line in terminal.text.splitlines())
        assert all(whole in terminal.text for whole in wholes)


def test_a_fast_payment_is_one_line(owner: Owner, customerctl: Customerctl) -> None:
    """A payment that is done at once draws no progress, only its line and the note."""
    terminal = customerctl.on_terminal("pay", "coffee", "0.005 ETH")
    assert terminal.finish() == 0
    sentence, note = terminal.text.splitlines()
    assert sentence.startswith("✓ paid 0.005 ETH on coffee in ")
    assert note == "  merchant: enjoy your espresso"


def test_the_steps_are_shown_as_they_are_committed(owner: Owner, customerctl: Customerctl) -> None:
    """Progress shows each step when it is committed; an establish keeps them, cursor restored."""
    owner.hold_at = ("propose", "fund")
    terminal = customerctl.on_terminal(
        "establish", "zkchannel://merchant.example/0x00", "--deposit", "1 ETH", "--label", "tea"
    )
    terminal.await_text("proposing the channel to the merchant")
    assert "waiting until the deposit" not in terminal.text
    owner.await_held()
    owner.go_on()
    terminal.await_text("waiting until the deposit is final on chain")
    owner.await_held()
    owner.go_on()
    assert terminal.finish() == 0
    last = terminal.text.rpartition("✓  proposing")[2]
    assert "✓  checking the pay token" in last
    assert "✓ channel tea is open after" in last
    assert terminal.raw.rindex(SHOW_CURSOR) > terminal.raw.rindex(HIDE_CURSOR)


def test_steps_of_other_operations_are_not_shown(owner: Owner, customerctl: Customerctl) -> None:
    """Progress follows its own operation alone, also when it is joined in the middle."""
    owner.hold_at = ("prove", "settle")
    identity = customerctl.json("pay", "coffee", "0.01 ETH", "--no-wait")["operation"]
    owner.await_held()
    terminal = customerctl.on_terminal("wait", identity)
    terminal.await_text("proving the payment")
    customerctl.run("close", "coffee", "--no-wait")
    owner.await_held()
    owner.go_on()
    assert terminal.finish() == 0
    assert "✓ paid 0.01 ETH on coffee" in terminal.text
    assert "asking the merchant to agree" not in terminal.text
    owner.go_on()


def test_an_interrupt_restores_the_terminal(owner: Owner, customerctl: Customerctl) -> None:
    """Ctrl-C while progress is drawn leaves a visible cursor and the way back to the operation."""
    owner.hold_at, owner.announced = ("prove",), frozenset({"wait"})
    terminal = customerctl.on_terminal("pay", "coffee", "0.01 ETH")
    terminal.await_text("proving the payment")
    terminal.process.send_signal(2)
    assert terminal.finish() == 130
    assert f"customerctl wait {next(iter(owner.operations))}" in terminal.text
    assert terminal.raw.rindex(SHOW_CURSOR) > terminal.raw.rindex(HIDE_CURSOR)
    owner.go_on()


def test_a_refusal_leaves_the_steps_that_were_taken(owner: Owner, customerctl: Customerctl) -> None:
    """A payment that is refused after a while shows how far it came, then the reason."""
    owner.refused_operation = methods.Failure(kind="policy_refused", message="over the daily limit")
    owner.hold_at = ("prove",)
    terminal = customerctl.on_terminal("pay", "coffee", "0.01 ETH")
    terminal.await_text("proving the payment")
    owner.go_on()
    assert terminal.finish() == 1
    assert terminal.text.rstrip().endswith("customerctl: over the daily limit")
    assert "✓ paid" not in terminal.text


def test_json_on_a_terminal_is_not_decorated(owner: Owner, customerctl: Customerctl) -> None:
    """--json prints the same bytes on a terminal as in a pipe."""
    terminal = customerctl.on_terminal("show", "coffee", "--json")
    assert terminal.finish() == 0
    assert terminal.raw.replace("\r\n", "\n") == customerctl.run("show", "coffee", "--json").stdout


def test_a_slow_answer_is_told(owner: Owner, customerctl: Customerctl) -> None:
    """A daemon that takes long to answer: the terminal says what is waited for."""
    owner.silent = frozenset({"list"})
    terminal = customerctl.on_terminal("list")
    terminal.await_text("waiting for customerd to answer")
    terminal.process.send_signal(2)
    assert terminal.finish() == 130


def test_markup_in_foreign_text_means_nothing(owner: Owner, customerctl: Customerctl) -> None:
    """What looks like markup or an escape sequence in a note is shown as text."""
    owner.note = "[bold red]50% off[/] :smile: \x1b]0;title\x07"
    terminal = customerctl.on_terminal("pay", "coffee", "0.005 ETH")
    terminal.finish()
    assert "  merchant: [bold red]50% off[/] :smile: \ufffd]0;title\ufffd\n" in terminal.text
