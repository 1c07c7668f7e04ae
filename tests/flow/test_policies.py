"""The signer's limits and questions as the owner meets them: names, hints, what is shown."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from tests.flow.world import World
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.service.secretfile import write_secret


def set_policy(world: World, text: str) -> None:
    """Give the running signer a policy, and wait until it has it."""
    network = world.network
    before = network.signer.log.read_text().count("policy_reloaded")
    write_secret(network.signer_directory / "policy.toml", text.encode())
    os.kill(network.signer.pid, signal.SIGHUP)
    while network.signer.log.read_text().count("policy_reloaded") == before:
        os.sched_yield()


@pytest.fixture
def policed(world: World) -> Iterator[World]:
    """A world whose signer gets its default policy back."""
    yield world
    (world.network.signer_directory / "policy.toml").unlink(missing_ok=True)
    if world.network.signer.running:
        world.network.signer.kill()
    world.everything_runs()


def limits_of(world: World) -> dict[tuple[str, str], Any]:
    """What `signer-status` lists, by name and what it is about."""
    status = world.rpc("signer-status")
    return {(each["name"], each["about"]): each for each in status["limits"]}


def test_a_refusal_names_its_policy_and_what_to_do(policed: World) -> None:
    """An operation is refused under the policy's name, with a hint, and a time where one helps."""
    world = policed
    label = world.establish()
    spent = limits_of(world)
    assert ("policy-fee-cap", "ETH, fees of transactions") in spent
    set_policy(world, '[assets.ETH]\npayment = "0.3 ETH"\nday = "100 ETH"\n')
    used = limits_of(world)["policy-day-limit", "ETH, payments"]["used"]
    more = Decimal(used.split()[0]) + Decimal("0.5")
    set_policy(world, f'[assets.ETH]\npayment = "0.3 ETH"\nday = "{more} ETH"\n')
    too_much = world.refused("pay", label=label, amount="0.31 ETH")
    assert too_much["kind"] == "policy-payment-limit"
    assert too_much["retry"] == "after_change"
    assert "policy.toml" in too_much["hint"]
    world.pay(label, "0.3 ETH")
    later = world.refused("pay", label=label, amount="0.21 ETH")
    assert later["kind"] == "policy-day-limit"
    assert later["retry"] == "later"
    assert "0.2 ETH are left" in later["message"]
    assert "possible again from 2" in later["message"]
    shown = world.rpc("operation", operation=later["operation"])
    assert shown["status"] == "refused"
    assert shown["error"]["kind"] == "policy-day-limit"
    assert "signer-status" in shown["error"]["hint"]
    world.pay(label, "0.2 ETH")
    limit = limits_of(world)["policy-day-limit", "ETH, payments"]
    assert limit["used"] == limit["limit"]
    done = world.network.ctl("pay", label, "0.1 ETH")
    assert done.returncode == 1
    assert "policy-day-limit" in done.stderr
    status = world.network.ctl("signer-status")
    assert "policy-day-limit" in status.stdout
    assert world.show(label)["status"] == "idle"


def test_an_escrow_that_is_not_listed_gets_nothing(policed: World) -> None:
    """A new channel with a stranger's escrow is refused before anything is written about it."""
    set_policy(policed, f'[escrows]\nnobody = "0x{"11" * 20}"\n')
    address = policed.network.merchants["coffee"].address
    refused = policed.refused("establish", merchant=address, deposit="1 ETH")
    assert refused["kind"] == "policy-escrow-not-allowed"


@contextmanager
def person(world: World) -> Iterator[int]:
    """Somebody at `customersigner confirm`; gives the terminal."""
    controller, end = pty.openpty()
    directory = str(world.network.signer_directory)
    process = subprocess.Popen(
        [sys.executable, "-m", "customersigner", "--state-directory", directory, "confirm"],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: os.login_tty(os.dup(0)),  # noqa: PLW1509 - no threads here
    )
    os.close(end)
    try:
        read_until(controller, "Waiting for questions")
        yield controller
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def read_until(controller: int, text: str) -> str:
    """Read what a terminal shows until some text is there."""
    shown = ""
    while text not in shown:
        shown += os.read(controller, 4096).decode()
    return shown


def confirming(world: World, operation: str) -> None:
    """Wait until an operation waits for the person."""
    with BlockingClient(str(world.network.socket)) as events:
        events.call("subscribe", {})
        notifications = events.notifications()
        while world.rpc("operation", operation=operation)["step"] != "confirm":
            next(notifications)


HASTE = 1
"""Seconds that a daemon in haste gives each request."""
CONFIRM = '[assets.ETH]\nconfirm_above = "0.1 ETH"\n'


def test_a_payment_waits_for_the_person_and_nothing_else_does(policed: World) -> None:
    """The operation stands at its step, other channels pay, and yes and no are its outcomes."""
    world = policed
    label, other = world.establish(), world.establish()
    set_policy(world, CONFIRM)
    alone = world.refused("pay", label=label, amount="0.2 ETH")
    assert alone["kind"] == "policy-confirmation-required"
    assert "customersigner confirm" in alone["hint"]
    with person(world) as terminal:
        paid = answered_by(world, label, amount="0.2 ETH", note="lunch \x1b[31m")
        shown = read_until(terminal, "[y/N]")
        assert "Pay 0.2 ETH" in shown
        assert "lunch \ufffd[31m" in shown
        confirming(world, paid)
        status = world.network.ctl("operation", paid)
        assert "confirmation" in status.stdout
        world.pay(other, "0.05 ETH")
        assert world.rpc("getinfo")["mode"] == "ready"
        os.write(terminal, b"y\n")
        assert world.rpc("wait", operation=paid)["status"] == "done"
        declined = answered_by(world, label, amount="0.3 ETH")
        assert "Pay 0.3 ETH" in read_until(terminal, "[y/N]")
        os.write(terminal, b"n\n")
        refused = world.rpc("wait", operation=declined)
        assert refused["error"]["kind"] == "policy-confirmation-declined"
        world.pay(label, "0.1 ETH")


def test_a_deposit_waits_for_the_person_too(policed: World) -> None:
    """A new channel is asked for with its deposit; a no leaves nothing behind."""
    world = policed
    set_policy(world, CONFIRM)
    address = world.network.merchants["coffee"].address
    with person(world) as terminal:
        for word, label in (("n", "not-wanted"), ("y", "wanted")):
            made = world.rpc(
                "establish", merchant=address, deposit="0.7 ETH", label=label, wait=False
            )
            shown = read_until(terminal, "[y/N]")
            assert "Deposit 0.7 ETH into a channel with the escrow 0x" in shown
            confirming(world, made["operation"])
            os.write(terminal, f"{word}\n".encode())
            outcome = world.settle(made["operation"])
            if word == "n":
                assert outcome["error"]["kind"] == "policy-confirmation-declined"
                assert world.refused("show", label=label)["kind"] == "not_found"
            else:
                assert outcome["status"] == "done"
    world.pay("wanted", "0.1 ETH")


def test_a_signer_that_dies_while_somebody_thinks_asks_again(policed: World) -> None:
    """The payment waits for the signer, is asked for once more, and is made once."""
    world = policed
    label = world.establish()
    before = world.balances(label)
    set_policy(world, CONFIRM)
    with person(world) as terminal:
        paid = answered_by(world, label, amount="0.2 ETH")
        read_until(terminal, "[y/N]")
        confirming(world, paid)
        world.network.signer.kill()
        world.network.wait_mode("safe")
    (world.network.signer_directory / "confirm.sock").unlink(missing_ok=True)
    # Stopped before it dials: the person has to be there first.
    started = world.network.signer
    os.kill(world.network.daemon.pid, signal.SIGSTOP)
    started.start()
    while not (world.network.signer_directory / "confirm.sock").exists():
        os.sched_yield()
    with person(world) as terminal:
        os.kill(world.network.daemon.pid, signal.SIGCONT)
        read_until(terminal, "[y/N]")
        os.write(terminal, b"y\n")
        assert world.rpc("wait", operation=paid)["status"] == "done"
    assert world.balances(label)[0] == before[0] - 2 * 10**8


def test_a_cancelled_payment_is_not_asked_for_any_more(policed: World) -> None:
    """Cancelling takes the question off the terminal; a late yes pays nothing."""
    world = policed
    label = world.establish()
    before = world.balances(label)
    set_policy(world, CONFIRM)
    with person(world) as terminal:
        unwanted = answered_by(world, label, amount="0.2 ETH")
        read_until(terminal, "[y/N]")
        confirming(world, unwanted)
        assert world.rpc("cancel", operation=unwanted)["status"] == "cancelled"
        read_until(terminal, "The question was withdrawn.")
        os.write(terminal, b"y\n")
        paid = answered_by(world, label, amount="0.3 ETH")
        assert "Pay 0.3 ETH" in read_until(terminal, "[y/N]")
        confirming(world, paid)
        os.write(terminal, b"y\n")
        assert world.rpc("wait", operation=paid)["status"] == "done"
    assert world.rpc("operation", operation=unwanted)["status"] == "cancelled"
    assert world.balances(label)[0] == before[0] - 3 * 10**8


def test_a_person_may_take_longer_than_a_request(policed: World) -> None:
    """The answer is waited for beyond the time of a request, and the link serves others."""
    world, network = policed, policed.network
    label, other = world.establish(), world.establish()
    set_policy(world, CONFIRM)
    usual = network.daemon
    usual.stop()
    hasty = {"CUSTOMERD_SIGNER_REQUEST_TIMEOUT": f"{HASTE}s"}
    network.daemon = Service("customerd", usual.command, log=usual.log, environment=hasty)
    try:
        network.daemon.start()
        world.everything_runs()
        generation = world.rpc("signer-status")["generation"]
        with person(world) as terminal:
            paid = answered_by(world, label, amount="0.2 ETH")
            read_until(terminal, "[y/N]")
            confirming(world, paid)
            asked = time.monotonic()
            while time.monotonic() - asked < 3 * HASTE:
                world.pay(other, 1)
            assert world.rpc("operation", operation=paid)["step"] == "confirm"
            os.write(terminal, b"y\n")
            assert world.rpc("wait", operation=paid)["status"] == "done"
        assert world.rpc("signer-status")["generation"] == generation
    finally:
        network.daemon.stop()
        network.daemon = usual
        world.everything_runs()


def answered_by(world: World, label: str, **params: Any) -> str:
    """Begin a payment; returns its operation."""
    return str(world.rpc("pay", label=label, wait=False, **params)["operation"])
