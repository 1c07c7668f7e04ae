"""Establish, pay, refund, close and wait: what is asked, how their end is told."""

from __future__ import annotations

import json
import re
import signal

import pytest
from msgspec.structs import replace

from customerd.rpc import methods
from tests.cli.owner import ESCROW, Owner
from tests.cli.running import Customerctl

ADDRESS = f"zkchannel://merchant.example/{ESCROW}"


def test_a_payment_is_told_in_one_line(owner: Owner, customerctl: Customerctl) -> None:
    """A payment tells amount, channel, duration, what remains, and the merchant's note."""
    done = customerctl.run("pay", "coffee", "0.005 ETH")
    assert (done.returncode, done.stderr) == (0, "")
    sentence, note = done.stdout.splitlines()
    assert re.fullmatch(r"✓ paid 0\.005 ETH on coffee in \d+ ms; 0\.095 ETH left", sentence), (
        sentence
    )
    assert note == "  merchant: enjoy your espresso"


def test_the_amount_may_be_given_as_two_words(owner: Owner, customerctl: Customerctl) -> None:
    """`pay coffee 0.005 ETH` and `pay --note x coffee 0.005 ETH` mean the same amount."""
    for arguments in (
        ("pay", "coffee", "0.005", "ETH"),
        ("pay", "--note", "x", "coffee", "0.005", "ETH"),
        ("pay", "coffee", "--note=x", "0.005", "ETH"),
    ):
        assert customerctl.json(*arguments)["amount"]["units"] == 5_000_000


def test_an_amount_without_asset_is_refused(owner: Owner, customerctl: Customerctl) -> None:
    """A bare number is never taken for units: it moves no money."""
    done = customerctl.run("pay", "coffee", "5000000")
    assert done.returncode == 1
    assert 'write an amount as "0.005 ETH"' in done.stderr
    assert owner.operations == {}


def test_a_refund_is_told_in_one_line(owner: Owner, customerctl: Customerctl) -> None:
    """A refund tells what came back and what there is now."""
    customerctl.run("pay", "coffee", "0.005 ETH")
    shown = customerctl.run("refund", "coffee", "0.001 ETH").stdout
    assert re.match(r"✓ refunded 0\.001 ETH on coffee in \d+ ms; 0\.096 ETH left\n", shown)


def test_a_payment_without_receipt_is_highlighted(owner: Owner, customerctl: Customerctl) -> None:
    """A payment that the merchant did not confirm is told as paid, with what that means."""
    owner.receipt, owner.note = False, None
    done = customerctl.run("pay", "coffee", "0.005 ETH")
    assert done.returncode == 0
    assert done.stdout.startswith("! paid 0.005 ETH on coffee")
    assert "the channel is being closed" in done.stdout


def test_the_note_is_sent(owner: Owner, customerctl: Customerctl) -> None:
    """`--note TEXT` sends the text, `--note -` what standard input holds, without its newline."""
    customerctl.run("pay", "coffee", "0.001 ETH", "--note", "one espresso, été")
    customerctl.run("pay", "coffee", "0.001 ETH", "--note", "-", stdin="table 5\nno sugar\n")
    notes = [params.note for name, params in owner.calls if name == "pay"]
    assert notes == ["one espresso, été", "table 5\nno sugar"]
    done = customerctl.run("pay", "coffee", "0.001 ETH", "--note", "-", stdin=b"\xff\xfe")
    assert (done.returncode, len(owner.operations)) == (2, 2)


def test_establish_sends_all_options(owner: Owner, customerctl: Customerctl) -> None:
    """`establish` sends address, deposits, label, note and key; its end names the channel."""
    done = customerctl.run(
        "establish",
        ADDRESS,
        *("--deposit", "0.5 ETH", "--merchant-deposit", "0.1 ETH", "--label", "tea"),
        *("--note", "hello", "--idempotency-key", "first"),
    )
    assert owner.calls[0] == (
        "establish",
        methods.EstablishParams(
            merchant=ADDRESS,
            deposit="0.5 ETH",
            merchant_deposit="0.1 ETH",
            label="tea",
            note="hello",
            wait=False,
            idempotency_key="first",
        ),
    )
    assert re.fullmatch(r"✓ channel tea is open after \d+ ms; 0\.5 ETH to spend\n", done.stdout), (
        done
    )


def test_close_tells_who_gets_what(owner: Owner, customerctl: Customerctl) -> None:
    """`close --force` closes unilaterally and tells both shares."""
    done = customerctl.run("close", "coffee", "--force")
    assert owner.calls[0][1].force is True
    assert re.fullmatch(
        r"✓ channel coffee is closed after \d+ ms: "
        r"0\.1 ETH for you, 0 ETH for the merchant\n",
        done.stdout,
    ), done


def test_a_close_with_a_delay_tells_until_when(owner: Owner, customerctl: Customerctl) -> None:
    """A unilateral close that is final but not paid out yet says so, and until when."""
    owner.hold_at = ("settle",)
    process = customerctl.start("close", "coffee", "--force")
    owner.await_held()
    identity = next(iter(owner.operations))
    process.terminate()
    process.communicate()
    owner.go_on()
    customerctl.run("wait", identity)
    owner.channels["coffee"] = replace(
        owner.channels["coffee"], chain_status="closing", deadline=1_800_000_000
    )
    shown = customerctl.run("wait", identity).stdout
    assert "the escrow holds the money until 2027-01-15 08:00:00, then pays 0.1 ETH" in shown


def test_every_request_can_be_repeated(owner: Owner, customerctl: Customerctl) -> None:
    """Each operation is requested with a key: the caller's, or a fresh one."""
    customerctl.run("pay", "coffee", "0.001 ETH")
    customerctl.run("pay", "coffee", "0.001 ETH")
    customerctl.run("pay", "coffee", "0.001 ETH", "--idempotency-key", "order-7")
    keys = [params.idempotency_key for name, params in owner.calls if name == "pay"]
    assert keys[2] == "order-7"
    assert len({*keys}) == 3


def test_no_wait_returns_the_operation(owner: Owner, customerctl: Customerctl) -> None:
    """`--no-wait` returns while the operation is at work and says how to come back to it."""
    owner.hold_at = ("propose",)
    done = customerctl.run("pay", "coffee", "0.01 ETH", "--no-wait")
    identity = next(iter(owner.operations))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "pay 0.01 ETH on coffee: queued; the daemon goes on with it",
        f"  customerctl wait {identity}",
    ]
    owner.go_on()
    assert customerctl.run("wait", identity).stdout.startswith("✓ paid 0.01 ETH on coffee")


def test_a_refused_operation_fails(owner: Owner, customerctl: Customerctl) -> None:
    """An operation that ends refused exits 1 with the reason; with --json as an error object."""
    owner.refused_operation = methods.Failure(
        kind="rejected_by_merchant", message="we are closed on sundays"
    )
    done = customerctl.run("pay", "coffee", "0.01 ETH")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "customerctl: we are closed on sundays\n"
    for arguments in (("pay", "coffee", "0.01 ETH"), ("wait", next(iter(owner.operations)))):
        done = customerctl.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (1, "")
        error = json.loads(done.stdout)["error"]
        assert error["message"] == "we are closed on sundays"
        assert error["code"] < -32000
        assert error["data"]["kind"] == "rejected_by_merchant"
        assert error["data"]["retry"] == "after_change"
        assert error["data"]["operation"] in owner.operations


def test_a_cancelled_operation_fails_whoever_waits(owner: Owner, customerctl: Customerctl) -> None:
    """Who waits for an operation that somebody else cancels is told, and exits 1."""
    owner.hold_at = ("propose",)
    waiting = customerctl.start("pay", "coffee", "0.01 ETH")
    owner.await_held()
    assert customerctl.run("cancel", next(iter(owner.operations))).returncode == 0
    _, told = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert "cancelled before anything was bound" in told


def test_wait_gives_up_after_its_timeout(owner: Owner, customerctl: Customerctl) -> None:
    """`wait --timeout` exits 1, says that the operation goes on, and leaves it alone."""
    owner.hold_at = ("propose",)
    identity = customerctl.json("pay", "coffee", "0.01 ETH", "--no-wait")["operation"]
    done = customerctl.run("wait", identity, "--timeout", "0")
    assert done.returncode == 1
    assert "the operation goes on" in done.stderr
    assert owner.operations[identity].status == "running"


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_leaves_the_operation_at_work(
    owner: Owner, customerctl: Customerctl, *, as_json: bool
) -> None:
    """Ctrl-C exits 130, says that the operation goes on and how to look at it."""
    owner.hold_at, owner.announced = ("prove",), frozenset({"wait"})
    process = customerctl.start("pay", "coffee", "0.01 ETH", *(["--json"] if as_json else []))
    owner.await_held()
    owner.await_held()
    identity = next(iter(owner.operations))
    process.send_signal(signal.SIGINT)
    shown, told = process.communicate(timeout=20)
    assert process.returncode == 130
    if as_json:
        error = json.loads(shown)["error"]
        assert error["data"]["kind"] == "interrupted"
        assert error["data"]["operation"] == identity
    else:
        assert told == (
            f"customerctl: interrupted\n  the operation goes on: customerctl wait {identity}\n"
        )
    owner.go_on()
    assert customerctl.run("wait", identity).returncode == 0


def test_an_interrupt_before_the_answer_says_what_is_unknown(
    owner: Owner, customerctl: Customerctl
) -> None:
    """Ctrl-C before the daemon has answered says that it may have taken the operation."""
    owner.silent = frozenset({"pay"})
    process = customerctl.start("pay", "coffee", "0.01 ETH")
    owner.await_held()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "whether customerd took the pay is unknown" in told
    assert "customerctl operations" in told
