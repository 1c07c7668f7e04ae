"""What a merchant says: nonsense reaches no terminal, floods fill no disk, nothing is obeyed."""

from __future__ import annotations

import time

import pytest

from tests.adversary.arena import Arena, plain
from tests.cli.running import Customerctl
from tests.flow.world import ETHER_UNITS

NONSENSE = "tea\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e\u2066\x00\x08\ufeff\nand\x1b[8m more"
"""Escape sequences, C1 controls, a return, changed directions of writing, NUL and more."""
SAID = {
    "fail": {"do": "fail", "code": 5, "message": NONSENSE, "data": {"kind": NONSENSE}},
    "rejected": {"do": "refuse", "kind": "rejected", "message": NONSENSE},
}


def steers(text: str) -> bool:
    """Whether a terminal would obey something in a text that no result of ours writes."""
    forbidden = ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\u2066", "\x00", "\x08", "\x1b[8m")
    return any(part in text for part in forbidden)


def on_terminal(ctl: Customerctl, *arguments: str) -> str:
    """Return everything that a command writes on a terminal, escape sequences included."""
    terminal = ctl.on_terminal(*arguments)
    terminal.finish()
    return terminal.raw


def test_no_note_steers_a_terminal(arena: Arena) -> None:
    """A service note of control characters is shown harmless, on a terminal and in a pipe."""
    (label,) = arena.channels(1)
    arena.order(pay_revoke={"do": "change", "fields": {"note": NONSENSE}})
    operation = arena.pay(label, 1000)["operation"]
    arena.order(pay_propose=SAID["rejected"])
    refused = arena.outcome(arena.begin("pay", label=label, amount=1000))
    assert refused["error"]["kind"] == "rejected_by_merchant"
    ctl = Customerctl(arena.network.socket)
    for arguments in (
        ("operation", operation),
        ("operation", refused["operation"]),
        ("wait", operation),
        ("operations",),
        ("history",),
        ("show", label),
        ("pay", label, "0.001 ETH"),
        ("operation", operation, "--json"),
    ):
        done = ctl.run(*arguments)
        assert not steers(done.stdout + done.stderr), arguments
        if arguments[0] in ("operation", "wait", "pay"):
            assert "tea" in done.stdout + done.stderr, arguments
    for arguments in (("wait", operation), ("operation", refused["operation"])):
        assert not steers(on_terminal(ctl, *arguments)), arguments
    arena.order()
    assert arena.balances(label) == (ETHER_UNITS - 1000, 1000)


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_no_refusal_steers_a_terminal_or_the_log(arena: Arena, said: dict[str, object]) -> None:
    """What a merchant says at the beginning of a channel is harmless on terminal and in the log."""
    address = arena.network.merchants["coffee"].address
    arena.order(hello=said, establish_propose=said)
    ctl = Customerctl(arena.network.socket)
    for _ in range(2):
        done = ctl.run("establish", address, "1 ETH", "--label", "nonsense")
        assert done.returncode != 0
        assert not steers(done.stdout + done.stderr)
        shown = on_terminal(ctl, "establish", address, "1 ETH", "--label", "nonsense")
        assert not steers(shown)
        arena.order(establish_propose=said)
    assert not steers(arena.network.daemon.log.read_text())
    assert arena.refused("show", label="nonsense")["kind"] == "not_found"


FLOODS = {
    "answers": '{"jsonrpc":"2.0","id":99,"result":{}}\n',
    "errors": '{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"no"}}\n',
    "calls": '{"jsonrpc":"2.0","id":1,"method":"stop","params":{}}\n',
    "empty lines": "\n" * 40,
    "late answers": '{"jsonrpc":"2.0","id":1,"result":{}}\n',
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS)
def test_a_flood_fills_no_log_and_holds_up_nobody(arena: Arena, text: str) -> None:
    """While a merchant floods a payment, the owner is answered at once and little is logged."""
    (label,) = arena.channels(1)
    before = arena.network.daemon.log.stat().st_size
    arena.order(pay_prove={"do": "write", "what": "flood", "text": text})
    operation = arena.begin("pay", label=label, amount=1000)
    arena.reached("pay.prove")
    slowest = 0.0
    for _ in range(20):
        began = time.monotonic()
        arena.unhurt()
        slowest = max(slowest, time.monotonic() - began)
    arena.others_pay()
    assert slowest < 1.0
    arena.order()
    assert arena.outcome(operation)["status"] == "done"
    assert arena.network.daemon.log.stat().st_size - before < 50_000
    assert "stop" not in plain(arena.rpc("history", limit=20))
