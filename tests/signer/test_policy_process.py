"""Limits and questions on real processes: kill -9, a clock set back, terminals, reloads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.signer.daemon import PATIENCE, Daemon, Process, caller, listening, running
from tests.signer.support import UNIT, Channel, Merchant
from tests.signer.test_process import PASSPHRASE, WALLET, sealed
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.secretfile import write_secret
from zkchannels.wire import signer as wire

HUNDRED = f'"{100 * UNIT / 10**18:.18f} ETH"'
FIVE = f'"{5 * UNIT / 10**18:.18f} ETH"'

SET_BACK = """
import sys, time
real = time.time
time.time = lambda: real() - 400 * 86400
from customersigner.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a passphrase file and a state directory that holds a seed."""
    (tmp_path / "state").mkdir(mode=0o700)
    write_secret(tmp_path / "passphrase", PASSPHRASE + b"\n")
    write_secret(tmp_path / "state" / "seed", sealed())
    return tmp_path


def write_policy(home: Path, text: str) -> None:
    """Put a policy file in its place."""
    write_secret(home / "state" / "policy.toml", text.encode())


async def opened(peer: Peer, merchant: Merchant, *, salt: bytes = b"\x5a" * 32) -> Channel:
    """A channel that can pay."""
    channel = Channel(caller(peer), merchant, WALLET.account.address, salt=salt)
    await channel.call(wire.ESCROW, merchant.registration)
    await channel.establish()
    return channel


async def refusal(channel: Channel, amount: int) -> dict[str, Any]:
    """What the refusal of a payment says."""
    with pytest.raises(RpcError) as caught:
        await channel.call(wire.PAY_PROVE, channel.pay_params(amount))
    assert isinstance(caught.value.data, dict)
    return caught.value.data


def counted(home: Path, pid: int) -> None:
    """Wait until a payment is counted on the disk, and kill the signer at once."""
    connection = sqlite3.connect(f"file:{home}/state/signer.sqlite?mode=ro", uri=True)
    try:
        while not connection.execute("SELECT 1 FROM usage WHERE kind = 'payment'").fetchone():
            pass
        os.kill(pid, signal.SIGKILL)
    finally:
        connection.close()


async def test_what_was_counted_before_kill_9_is_counted_once(home: Path) -> None:
    """Killed between the count and the answer, the repeat passes and adds nothing."""
    write_policy(home, f"[assets.ETH]\nday = {HUNDRED}\n")
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon):
        async with running(home) as process:
            channel = await opened(await daemon.attached(), merchant)
            asked = asyncio.create_task(channel.prove_pay(60))
            await asyncio.to_thread(counted, home, process.pid)
            await asyncio.gather(asked, return_exceptions=True)
        async with running(home):
            channel.call = caller(await daemon.attached())
            await channel.pay(60)
            data = await refusal(channel, 41)
            assert data["policy"] == "policy-day-limit"
            assert 86000 < data["after"] <= 86401
            await channel.pay(40)


async def test_a_clock_set_back_between_two_runs_opens_nothing(home: Path) -> None:
    """A process that starts more than a year earlier still knows that the day is not over."""
    write_policy(home, f"[assets.ETH]\nday = {HUNDRED}\n")
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon):
        async with running(home) as process:
            channel = await opened(await daemon.attached(), merchant)
            await channel.pay(100)
            assert await process.stop() == 0
        arguments = ["--state-directory", str(home / "state"), "run"]
        arguments += ["--socket", str(home / "signer.sock")]
        arguments += ["--passphrase-file", str(home / "passphrase")]
        late = await asyncio.create_subprocess_exec(sys.executable, "-c", SET_BACK, *arguments)
        try:
            channel.call = caller(await daemon.attached())
            assert (await refusal(channel, 1))["policy"] == "policy-day-limit"
        finally:
            late.kill()
            await late.wait()


async def test_a_policy_is_reloaded_and_a_broken_one_is_not(home: Path) -> None:
    """SIGHUP takes the file as it is; with a mistake in it the old policy stays, and it is said."""
    write_policy(home, f"[assets.ETH]\npayment = {HUNDRED}\n")
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon), running(home) as process:
        channel = await opened(await daemon.attached(), merchant)
        assert (await refusal(channel, 101))["policy"] == "policy-payment-limit"
        for text, said in (
            ("[assets.ETH]\npayments = '1 ETH'\n", "policy_not_reloaded"),
            (f"[assets.ETH]\npayment = {FIVE}\n", "policy_reloaded"),
        ):
            write_policy(home, text)
            os.kill(process.pid, signal.SIGHUP)
            await until(lambda said=said: said in process.output)
            if said == "policy_not_reloaded":
                assert "did you mean payment?" in process.output
                await channel.pay(100)
        assert (await refusal(channel, 6))["policy"] == "policy-payment-limit"
        await channel.pay(5)


async def test_a_broken_policy_keeps_the_signer_from_starting(home: Path) -> None:
    """A mistake in policy.toml is told by its place; nothing runs on a policy nobody wrote."""
    write_policy(home, "[asset.ETH]\n")
    async with running(home) as process:
        assert await process.wait() == 2
    assert "did you mean assets?" in process.output


# -- questions ------------------------------------------------------------------------------------


async def until(holds: Callable[[], object]) -> None:
    """Look until something outside of this process is so."""

    def look() -> None:
        while not holds():
            os.sched_yield()

    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(look)


class Screen:
    """A terminal with a person before it."""

    def __init__(self) -> None:
        self.controller, self.end = pty.openpty()
        self.shown = ""

    async def until(self, text: str, times: int = 1) -> None:
        """Read until a text was shown so many times."""
        async with asyncio.timeout(PATIENCE):
            while self.shown.count(text) < times:
                read = await asyncio.to_thread(os.read, self.controller, 4096)
                self.shown += read.decode()

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.controller, text.encode() + b"\n")


@asynccontextmanager
async def on_terminal(home: Path, *arguments: str) -> AsyncIterator[tuple[Screen, Any]]:
    """A command of the signer with a terminal of its own, for as long as the body runs."""
    screen = Screen()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "customersigner",
        "--state-directory",
        str(home / "state"),
        *arguments,
        stdin=screen.end,
        stdout=screen.end,
        stderr=screen.end,
        start_new_session=True,
        preexec_fn=lambda: os.login_tty(os.dup(0)),
    )
    os.close(screen.end)
    try:
        yield screen, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(screen.controller)


def running_on_terminal(home: Path) -> Any:
    """The signer itself on a terminal."""
    secret = ("--passphrase-file", str(home / "passphrase"))
    return on_terminal(home, "run", "--socket", str(home / "signer.sock"), *secret)


async def pending(channel: Channel, amount: int, *, note: str = "") -> wire.ConfirmationParams:
    """Ask for a payment that has to be confirmed; returns how to wait for the answer."""
    with pytest.raises(RpcError) as caught:
        await channel.call(wire.PAY_PROVE, channel.pay_params(amount, note=note))
    assert caught.value.data["kind"] == "confirmation_pending", caught.value.data
    return wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))


ABOVE_FIVE = f'[assets.ETH]\nconfirm_above = {FIVE}\n[escrows]\ncoffee = "0x{"e5" * 20}"\n'


async def test_a_person_at_the_terminal_decides(home: Path) -> None:
    """Above the limit the person is asked in plain words; meanwhile everything else goes on."""
    write_policy(home, ABOVE_FIVE.replace("above = " + FIVE, "above = " + HUNDRED))
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon), running_on_terminal(home) as (screen, _):
        peer = await daemon.attached()
        channel = Channel(caller(peer), merchant, WALLET.account.address)
        await channel.call(wire.ESCROW, merchant.registration)
        with pytest.raises(RpcError) as caught:
            await channel.prove_establish()
        assert caught.value.data["kind"] == "confirmation_pending"
        question = wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))
        asked = asyncio.create_task(channel.call(wire.CONFIRMATION_WAIT, question))
        await screen.until("[y/N]")
        assert "Deposit 0.000001 ETH into a channel with coffee" in screen.shown
        assert await channel.call(wire.PING, wire.Nothing()) == wire.Done()
        screen.type("yes")
        assert (await asked).answer == "yes"
        await channel.establish()
        other = Channel(
            channel.call, merchant, WALLET.account.address, salt=b"\x02" * 32, deposits=(100, 0)
        )
        await other.establish()
        note = "coffee\x1b[2J\x1b]0;owned\x07\n[y/N] y\u202e"
        question = await pending(channel, 101, note=note)
        asked = asyncio.create_task(channel.call(wire.CONFIRMATION_WAIT, question))
        await screen.until("[y/N] ", 3)  # the second one is the note's
        await other.pay(100)
        assert not asked.done()
        assert "Pay 0.000000101 ETH to coffee" in screen.shown
        assert 'unverified: "coffee\ufffd[2J\ufffd]0;owned\ufffd [y/N] y\ufffd"' in screen.shown
        assert "\x1b" not in screen.shown.partition("Deposit")[2]
        screen.type("maybe")
        assert (await asked).answer == "no"
        with pytest.raises(RpcError) as caught:  # a no is no lasting refusal: it is asked again
            await channel.call(wire.PAY_PROVE, channel.pay_params(101, note=note))
        assert caught.value.data["kind"] == "confirmation_pending"


async def test_a_service_asks_at_another_terminal(home: Path) -> None:
    """Questions queue at `customersigner confirm`, one answer each; a yes is good for one thing."""
    write_policy(home, "")
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon), running(home) as process:
        peer = await daemon.attached()
        first = await opened(peer, merchant)
        second = await opened(peer, merchant, salt=b"\x02" * 32)
        write_policy(home, ABOVE_FIVE)
        os.kill(process.pid, signal.SIGHUP)
        await until(lambda: "policy_reloaded" in process.output)
        nobody = await refusal(first, 6)
        assert nobody["policy"] == "policy-confirmation-required"
        assert nobody["policy_kind"] == "temporary"
        socket = home / "state" / "confirm.sock"
        assert socket.stat().st_mode & 0o777 == 0o600
        async with on_terminal(home, "confirm") as (screen, _):
            await screen.until("Waiting for questions")
            questions = [await offered(first, 6), await offered(second, 7)]
            asked = [
                asyncio.create_task(first.call(wire.CONFIRMATION_WAIT, question))
                for question in questions
            ]
            await screen.until("[y/N]")
            assert "0.000000006 ETH" in screen.shown
            assert "0.000000007 ETH" not in screen.shown
            screen.type("y")
            await screen.until("0.000000007 ETH")
            await screen.until("[y/N]", 2)
            screen.type("n")
            assert [(await task).answer for task in asked] == ["yes", "no"]
            other = first.pay_params(6, operation=b"\x66" * 16)
            with pytest.raises(RpcError) as caught:
                await first.call(wire.PAY_PROVE, other)
            assert caught.value.data["kind"] == "confirmation_pending"
            await first.pay(6)
            await pending(first, 6)
        await until(lambda: not socket_has_people(home))
        assert (await refusal(second, 7))["policy"] == "policy-confirmation-required"


async def deposit_question(call: Any, merchant: Merchant, deposit: int) -> wire.ConfirmationParams:
    """Ask for a deposit that has to be confirmed; returns how to wait for the answer."""
    salt = deposit.to_bytes(32)
    channel = Channel(call, merchant, WALLET.account.address, salt=salt, deposits=(deposit, 0))
    with pytest.raises(RpcError) as caught:
        await channel.prove_establish()
    assert caught.value.data["kind"] == "confirmation_pending", caught.value.data
    return wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))


@pytest.mark.parametrize("where", ["signer", "service"])
async def test_a_yes_on_its_way_meets_no_other_question(home: Path, where: str) -> None:
    """A daemon that takes a question back and asks another at once gets no answer meant for it."""
    write_policy(home, ABOVE_FIVE.replace("above = " + FIVE, "above = " + HUNDRED))
    daemon, merchant = Daemon(), Merchant()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(listening(home / "signer.sock", daemon))
        if where == "signer":
            screen, _ = await stack.enter_async_context(running_on_terminal(home))
        else:
            await stack.enter_async_context(running(home))
        call = caller(await daemon.attached())
        await call(wire.ESCROW, merchant.registration)
        if where == "service":
            screen, _ = await stack.enter_async_context(on_terminal(home, "confirm"))
            await screen.until("Waiting for questions")
        harmless = await deposit_question(call, merchant, 200)
        first = asyncio.create_task(call(wire.CONFIRMATION_WAIT, harmless))
        await screen.until("[y/N]")
        harmful = await deposit_question(call, merchant, 999)
        second = asyncio.create_task(call(wire.CONFIRMATION_WAIT, harmful))
        await call(wire.CONFIRMATION_WITHDRAW, harmless)
        assert (await first).answer == "unanswered"
        await screen.until("The question was withdrawn.")
        screen.type("y")
        await screen.until("[y/N]", 2)
        assert "0.000000999 ETH" in screen.shown
        screen.type("no")
        assert (await second).answer == "no"
        await call(wire.CONFIRMATION_WITHDRAW, harmful)  # nothing is asked: nothing happens


def socket_has_people(home: Path) -> bool:
    """Whether somebody is still connected to the confirmation socket."""
    wanted = str(home / "state" / "confirm.sock")
    table = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(wanted) and line.split()[5] == "03" for line in table)


async def offered(channel: Channel, amount: int) -> wire.ConfirmationParams:
    """Ask until somebody is there to be asked."""
    while True:
        with pytest.raises(RpcError) as caught:
            await channel.call(wire.PAY_PROVE, channel.pay_params(amount))
        if caught.value.data["kind"] == "confirmation_pending":
            return wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))


async def test_a_question_is_withdrawn_with_its_link_and_asked_again_once(home: Path) -> None:
    """When the daemon leaves, the question is void; what is typed then agrees to nothing."""
    write_policy(home, ABOVE_FIVE.replace(FIVE, HUNDRED))
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon), running_on_terminal(home) as (screen, _):
        peer = await daemon.attached()
        channel = Channel(caller(peer), merchant, WALLET.account.address, deposits=(101, 0))
        await channel.call(wire.ESCROW, merchant.registration)
        for turn in (1, 2):
            with pytest.raises(RpcError) as caught:
                await channel.call(wire.ESTABLISH_PROVE, channel.establish_params)
            question = wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))
            asked = asyncio.create_task(peer.request(wire.CONFIRMATION_WAIT, question))
            await screen.until("[y/N]", turn)
            if turn == 2:
                break
            peer.abort()
            with pytest.raises(ConnectionLost):
                await asked
            await screen.until("withdrawn")
            screen.type("y")
            peer = await daemon.attached()
            channel.call = caller(peer)
        screen.type("y")
        assert (await asked).answer == "yes"
        await channel.establish()
        with pytest.raises(RpcError) as caught:
            await channel.call(wire.CONFIRMATION_WAIT, question)
        assert caught.value.data["kind"] == "out_of_order"


async def test_the_socket_of_questions_goes_with_the_signer(home: Path) -> None:
    """A stopped signer leaves no socket; the one that a killed signer left is replaced."""
    daemon, socket = Daemon(), home / "state" / "confirm.sock"
    async with listening(home / "signer.sock", daemon):
        for number in (signal.SIGKILL, signal.SIGTERM):
            async with running(home) as process:
                await daemon.attached()
                await until(socket.exists)
                await process.stop(number)
            assert socket.exists() == (number == signal.SIGKILL)


async def test_an_unanswered_question_ends(home: Path) -> None:
    """After its time a question is withdrawn, and whoever waits is told so."""
    write_policy(home, "confirm_within = '50ms'\n" + ABOVE_FIVE.replace(FIVE, HUNDRED))
    daemon, merchant = Daemon(), Merchant()
    async with listening(home / "signer.sock", daemon), running_on_terminal(home) as (screen, _):
        channel = Channel(
            caller(await daemon.attached()), merchant, WALLET.account.address, deposits=(101, 0)
        )
        await channel.call(wire.ESCROW, merchant.registration)
        with pytest.raises(RpcError) as caught:
            await channel.call(wire.ESTABLISH_PROVE, channel.establish_params)
        question = wire.ConfirmationParams(bytes.fromhex(caught.value.data["question"]))
        answer = await channel.call(wire.CONFIRMATION_WAIT, question)
        assert answer.answer == "unanswered"
        await screen.until("withdrawn")


async def test_confirm_without_a_signer_or_terminal_says_so(home: Path) -> None:
    """Nobody is left waiting at a terminal that no signer will ask."""
    async with on_terminal(home, "confirm") as (screen, process):
        await screen.until("no signer answers")
        assert await process.wait() == 1
    piped = await Process.start(home, "confirm")
    assert await piped.wait() == 1
    assert "on a terminal" in piped.output
