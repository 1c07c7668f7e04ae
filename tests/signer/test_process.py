"""The signer as people and systemd run it: init, run, show, kill -9, wrong secrets."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from customersigner import seedfile
from customersigner.derivation import Wallet, entropy_of
from customersigner.store import Store
from tests.signer.daemon import PATIENCE, Daemon, caller, listening, running
from tests.signer.support import Channel, Desk, Merchant, now
from zkchannels import abacus
from zkchannels.escrow.ethereum import checksum
from zkchannels.service.secretfile import write_secret
from zkchannels.wire import signer as wire

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PASSPHRASE = b"correct horse battery staple"
WALLET = Wallet(entropy_of(WORDS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a passphrase file and a state directory that holds a seed."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(PASSPHRASE + b"\n")
    passphrase.chmod(0o600)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    write_secret(state / "seed", sealed())
    return tmp_path


@cache
def sealed() -> bytes:
    """A seed file's contents, made once: that takes as long as opening it."""
    return seedfile.seal(entropy_of(WORDS), PASSPHRASE)


def command(folder: Path, *arguments: str, words: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end, words on its standard input."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "customersigner",
            "--state-directory",
            str(folder / "state"),
            *arguments,
        ],
        input=words,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def with_passphrase(folder: Path) -> tuple[str, str]:
    """The arguments that name the passphrase file."""
    return "--passphrase-file", str(folder / "passphrase")


async def test_a_killed_signer_repeats_what_it_wrote(folder: Path) -> None:
    """After kill -9 between write and answer the same request gives the same content, once."""
    daemon, merchant = Daemon(), Merchant()
    async with listening(folder / "signer.sock", daemon):
        async with running(folder) as process:
            channel = Channel(caller(await daemon.attached()), merchant, WALLET.account.address)
            await channel.call(wire.ESCROW, merchant.registration)
            await channel.establish()
            _, commitments = await channel.prove_pay(10)
            signature = merchant.key.blind_sign(commitments.close)
            params = channel.authorization_params(1, 0, signature)
            asked = asyncio.create_task(channel.call(wire.PAY_AUTHORIZE, params))
            stored = await asyncio.to_thread(written, folder, process.pid)
            await asyncio.gather(asked, return_exceptions=True)
        async with running(folder) as process:
            channel.call = caller(await daemon.attached())
            answer = await channel.call(wire.PAY_AUTHORIZE, params)
            assert answer.authorization.signature == stored
            assert abacus.verify_lock_opening(
                commitments.lock,
                abacus.decode_scalar(answer.lock_blinding),
                abacus.lock_of(answer.secret),
            )
            channel.index, channel.token = 1, merchant.key.blind_sign(commitments.state)
            channel.balances = [990, 60]
            token = wire.CompleteParams(channel.id, 1, 0, channel.token)
            await channel.call(wire.PAY_COMPLETE, token)
            await channel.pay(5)
            assert await process.stop() == 0
    text = process.output
    for secret in (answer.secret, answer.nonce, answer.lock_blinding, PASSPHRASE, WORDS.encode()):
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


def written(folder: Path, pid: int) -> bytes:
    """Wait until authorization 1 is on the disk, kill the process, and return what was written."""
    connection = sqlite3.connect(f"file:{folder}/state/signer.sqlite?mode=ro", uri=True)
    try:
        while True:
            row = connection.execute("SELECT signature FROM channel WHERE state_index = 1")
            found = row.fetchone()
            if found is not None:
                os.kill(pid, signal.SIGKILL)
                return bytes(found[0])
    finally:
        connection.close()


@pytest.mark.parametrize("step", ["establish.prove", "pay.prove", "close.authorize"])
async def test_a_signer_killed_at_any_request_never_contradicts_itself(
    folder: Path, step: str
) -> None:
    """Killed without waiting after a request was sent, the repeat is answered and life goes on."""
    daemon, merchant = Daemon(), Merchant()
    async with listening(folder / "signer.sock", daemon):
        async with running(folder) as process:
            channel = Channel(caller(await daemon.attached()), merchant, WALLET.account.address)
            await channel.call(wire.ESCROW, merchant.registration)
            if step != "establish.prove":
                await channel.establish()
            asked = {
                "establish.prove": channel.prove_establish,
                "pay.prove": lambda: channel.prove_pay(10),
                "close.authorize": channel.close,
            }[step]
            task = asyncio.create_task(asked())
            await asyncio.to_thread(os.kill, process.pid, signal.SIGKILL)
            await asyncio.gather(task, return_exceptions=True)
        async with running(folder):
            channel.call = caller(await daemon.attached())
            await asked()
            await asked()
            if step == "establish.prove":
                await channel.establish()
            if step != "close.authorize":
                await channel.pay(10)
            assert (await channel.close()).index == channel.index


async def test_it_tells_systemd_and_stops_cleanly(folder: Path, tmp_path: Path) -> None:
    """READY comes before any daemon is there, STOPPING with SIGTERM, and the exit status is 0."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = tmp_path / "notify"
    notify.bind(str(address))
    notify.settimeout(PATIENCE)
    try:
        async with running(folder, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="100000") as process:
            seen = set[bytes]()
            while not {b"READY=1", b"WATCHDOG=1"} <= seen:
                seen |= set((await asyncio.to_thread(notify.recv, 4096)).split(b"\n"))
            assert await process.stop() == 0
            while b"STOPPING=1" not in seen:
                seen |= set((await asyncio.to_thread(notify.recv, 4096)).split(b"\n"))
    finally:
        notify.close()


async def test_one_store_has_one_signer(folder: Path) -> None:
    """A second signer on the same store ends at once and says why."""
    daemon = Daemon()
    async with listening(folder / "signer.sock", daemon), running(folder):
        await daemon.attached()
        async with running(folder) as second:
            assert await second.wait() == 1
        assert "another signer is running" in second.output


def test_init_shows_the_words_once_on_a_terminal(folder: Path) -> None:
    """A new seed's words appear on the terminal, belong to the seed file, and are nowhere else."""
    (folder / "state" / "seed").unlink()
    controller, terminal = pty.openpty()
    arguments = ["--state-directory", str(folder / "state"), "init", *with_passphrase(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "customersigner", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    assert process.wait(PATIENCE) == 0
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    lines = [line.split(". ") for line in shown.splitlines() if ". " in line]
    words = " ".join(line[1] for line in lines if line[0].strip().isdigit())
    wallet = Wallet(entropy_of(words))
    assert checksum(wallet.account.address) in shown
    seed = folder / "state" / "seed"
    assert seedfile.load(seed, PASSPHRASE) == entropy_of(words)
    assert seed.stat().st_mode & 0o777 == 0o600
    again = command(folder, "init", *with_passphrase(folder))
    assert again.returncode == 1
    assert "never overwritten" in again.stderr


def test_words_are_never_shown_to_a_pipe(folder: Path) -> None:
    """Without a terminal a new seed is not made at all."""
    (folder / "state" / "seed").unlink()
    done = command(folder, "init", *with_passphrase(folder))
    assert done.returncode == 1
    assert "on a terminal" in done.stderr
    assert not (folder / "state" / "seed").exists()


def test_a_seed_is_restored_from_its_words(folder: Path) -> None:
    """Words on standard input give the same wallet again and are not repeated."""
    (folder / "state" / "seed").unlink()
    done = command(folder, "init", "--restore", *with_passphrase(folder), words=WORDS + "\n")
    assert done.returncode == 0
    assert checksum(WALLET.account.address) in done.stdout
    assert "sausage" not in done.stdout + done.stderr
    wrong = WORDS.replace("yellow", "winner") + "\n"
    (folder / "state" / "seed").unlink()
    done = command(folder, "init", "--restore", *with_passphrase(folder), words=wrong)
    assert done.returncode == 1
    assert "sausage" not in done.stdout + done.stderr


@pytest.mark.parametrize("answers", [("one", "one"), ("one", "other"), ("", "")])
def test_a_passphrase_is_asked_twice_and_never_shown(folder: Path, answers: list[str]) -> None:
    """On a terminal a new passphrase is typed twice, unseen; a difference or nothing is refused."""
    (folder / "state" / "seed").unlink()
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [
            *("setsid", "--ctty", "--wait", sys.executable, "-m", "customersigner"),
            *("--state-directory", str(folder / "state"), "init"),
        ],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = ""
    for prompt, answer in zip(("Passphrase of the seed: ", "again: "), answers, strict=True):
        while prompt not in shown:
            shown += os.read(controller, 4096).decode()
        os.write(controller, answer.encode() + b"\n")
    good = answers == ("one", "one")
    assert (process.wait(PATIENCE) == 0) is good
    shown += os.read(controller, 65536).decode()
    os.close(controller)
    assert (folder / "state" / "seed").exists() is good
    assert ("These words are the wallet" in shown) is good
    assert not any(answer and f": {answer}" in shown for answer in answers)


def test_show_tells_the_wallet_and_its_channels(folder: Path) -> None:
    """It prints account, identity and channels, and no secret, also beside a running signer."""
    desk = Desk(folder / "state", entropy=entropy_of(WORDS))
    try:
        channel = now(desk.channel())
        now(channel.establish())
        secret = now(channel.pay(7)).secret
        now(channel.close())
        done = command(folder, "show", *with_passphrase(folder))
    finally:
        desk.close()
    assert done.returncode == 0
    account, identity, shown = done.stdout.splitlines()
    assert account.split() == ["account", checksum(WALLET.account.address)]
    assert identity.split() == ["identity", checksum(WALLET.identity)]
    assert f"0x{channel.id.hex()}" in shown
    assert shown.endswith("state 1: 993 / 57 units, closing")
    assert secret.hex() not in done.stdout


@pytest.mark.parametrize("fault", ["passphrase", "empty", "open", "seed", "tampered", "missing"])
def test_it_does_not_start_on_wrong_secrets(folder: Path, fault: str) -> None:
    """Wrong or empty passphrases, files open to others, changed or missing seeds end with 1."""
    seed, passphrase = folder / "state" / "seed", folder / "passphrase"
    match fault:
        case "passphrase":
            passphrase.write_bytes(b"wrong horse")
        case "empty":
            passphrase.write_bytes(b"\n")
        case "open":
            passphrase.chmod(0o644)
        case "seed":
            seed.chmod(0o640)
        case "tampered":
            seed.write_bytes(seed.read_bytes()[:-6] + b"AAAAA\n")
        case "missing":
            seed.unlink()
    done = command(folder, "run", *with_passphrase(folder))
    assert done.returncode == 1
    assert done.stderr.startswith("customersigner: ")
    assert "Traceback" not in done.stderr
    assert "horse" not in done.stderr


def test_without_terminal_file_or_credential_there_is_no_passphrase(folder: Path) -> None:
    """It says what to give instead of waiting for input that cannot come."""
    done = command(folder, "show")
    assert done.returncode == 1
    assert "--passphrase-file" in done.stderr


def test_a_systemd_credential_opens_the_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential with the documented name stands in for the passphrase file."""
    credentials = folder / "credentials"
    credentials.mkdir()
    (credentials / "customersigner.passphrase").write_bytes(PASSPHRASE)
    (credentials / "customersigner.passphrase").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert command(folder, "show").returncode == 0


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("sokcet = 'x'", "socket"),
        ("log_levle = 'info'", "log_level"),
    ],
)
def test_wrong_settings_are_named(folder: Path, configuration: str, message: str) -> None:
    """An unknown key is refused before anything runs."""
    path = folder / "customersigner.toml"
    path.write_text(configuration)
    done = command(folder, "--config", str(path), "run", *with_passphrase(folder))
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_store_is_refused(folder: Path) -> None:
    """Another wallet's store, a file open to others, or one that is no store does not start."""
    store = folder / "state" / "signer.sqlite"
    Store.open(store, b"\x01" * 20).close()
    done = command(folder, "run", *with_passphrase(folder))
    assert (done.returncode, "another seed" in done.stderr) == (1, True)
    store.chmod(0o644)
    done = command(folder, "run", *with_passphrase(folder))
    assert (done.returncode, "0600" in done.stderr) == (1, True)
    store.write_bytes(b"no database at all" * 100)
    store.chmod(0o600)
    done = command(folder, "run", *with_passphrase(folder))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
