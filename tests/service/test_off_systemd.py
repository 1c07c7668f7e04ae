"""Without systemd: in the background by `--detach`, and as a container's only process."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.customerd.conftest import Alone
from zkchannels.devnet.child import readable
from zkchannels.jsonrpc.client import BlockingClient, ConnectError

Detach = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def alone(memory_directory: Path, database_dsn: str) -> Alone:
    """A daemon that is not started yet, in a folder with a short path."""
    return Alone(memory_directory / f"off{secrets.token_hex(3)}", database_dsn)


def _end(pid: int, order: signal.Signals = signal.SIGTERM) -> None:
    ended = os.pidfd_open(pid)
    signal.pidfd_send_signal(ended, order)
    assert readable(ended, seconds=20)
    os.close(ended)


@pytest.fixture
def detach(alone: Alone) -> Iterator[Detach]:
    """Starts the daemon in the background; one that is left is ended."""
    pidfile = alone.directory / "pid"

    def start(*more: str, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        files = ["--pidfile", str(pidfile), "--logfile", str(alone.directory / "log")]
        return subprocess.run(
            [*alone.command, "--detach", *files, *more],
            capture_output=True,
            text=True,
            check=False,
            pass_fds=pass_fds,
        )

    yield start
    if pidfile.exists():
        _end(int(pidfile.read_text()))


def test_detached_it_serves_when_its_caller_returns(alone: Alone, detach: Detach) -> None:
    """The caller returns 0 when the daemon serves: of its own session, with nothing inherited."""
    reading, writing = os.pipe()
    done = detach(pass_fds=(writing,))
    os.close(writing)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = alone.rpc("getinfo")["pid"]
    assert int((alone.directory / "pid").read_text()) == pid
    assert os.getsid(pid) != os.getsid(0)
    assert os.read(reading, 1) == b""  # nobody has its other end any more
    os.close(reading)
    # stdin, stdout and stderr: the log, or nothing.
    targets = {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)}
    assert targets == {"/dev/null", str(alone.directory / "log")}

    second = detach()
    assert second.returncode == 1
    assert second.stderr == f"customerd: already running, pid {pid}\n"
    assert alone.rpc("getinfo")["pid"] == pid


def test_a_killed_one_is_started_again(alone: Alone, detach: Detach) -> None:
    """What a killed daemon left behind does not keep the next one from starting."""
    assert detach().returncode == 0
    first = alone.rpc("getinfo")["pid"]
    _end(first, signal.SIGKILL)
    assert detach().returncode == 0
    assert alone.rpc("getinfo")["pid"] != first


def test_why_it_does_not_start_is_told_to_the_caller(alone: Alone, detach: Detach) -> None:
    """What keeps the daemon from starting is on the caller's standard error, with exit code 1."""
    (alone.directory / "guard.key").write_text("secret")
    (alone.directory / "guard.key").chmod(0o644)
    done = detach()
    assert done.returncode == 1
    assert "guard.key is open to others (mode 0644): chmod 600" in done.stderr
    assert not (alone.directory / "pid").exists()

    (alone.directory / "guard.key").unlink()
    alone.config.write_text("[chain]\nendpoint = []\n")
    wrong = detach()
    assert wrong.returncode == 2
    assert "did you mean endpoints?" in wrong.stderr


def test_not_ready_in_time_is_told_with_what_it_waits_for(alone: Alone, detach: Detach) -> None:
    """Without its database the daemon goes on waiting; the caller is told for what."""
    nowhere = alone.config.read_text().replace("dsn = ", 'dsn = "host=/nowhere" #')
    alone.config.write_text(nowhere)
    done = detach("--timeout", "3")
    assert done.returncode == 1
    assert "not ready after 3 s: waiting for PostgreSQL: " in done.stderr
    assert alone.rpc("getinfo")["mode"] == "starting"


ROOTLESS = [] if os.geteuid() == 0 else ["--user"]


@pytest.fixture
def contained(alone: Alone) -> Iterator[int]:
    """A daemon as the first process of a namespace; its number outside."""
    mapped = [*ROOTLESS, "--map-root-user"] if ROOTLESS else []
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    command = ["unshare", *mapped, "--pid", "--fork", "--kill-child", *alone.command]
    with (alone.directory / "log").open("wb") as log:
        outside = subprocess.Popen(command, stderr=log, env=environment)
    deadline = time.monotonic() + 30
    while True:
        try:
            with BlockingClient(str(alone.socket), timeout=20) as client:
                client.call("list")
            break
        except ConnectError:
            assert outside.poll() is None, (alone.directory / "log").read_text()
            assert time.monotonic() < deadline, (alone.directory / "log").read_text()
            select.select([], [], [], 0.05)
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text()
    yield int(children)
    outside.kill()  # the daemon goes with it
    outside.wait()


def test_as_the_first_process_it_ends_by_sigterm(alone: Alone, contained: int) -> None:
    """The kernel drops signals for a namespace's first process: SIGTERM ends the daemon anyway."""
    assert alone.rpc("getinfo")["pid"] == 1
    _end(contained)
    lines = (alone.directory / "log").read_text()
    assert '"event":"stopping"' in lines.replace(" ", "")
    assert "Traceback" not in lines


def test_as_the_first_process_it_leaves_no_zombies(alone: Alone, contained: int) -> None:
    """Orphans that the namespace leaves to its first process are waited for."""
    entered = ["--user", "--preserve-credentials"] if ROOTLESS else []
    enter = ["nsenter", *entered, "--target", str(contained), "--pid", "sh", "-c"]
    # The shell ends first; its children are the daemon's from then on, and end one by one.
    subprocess.run([*enter, "for each in 0.1 0.2 0.3; do sleep $each & done"], check=True)
    children = Path(f"/proc/{contained}/task/{contained}/children")
    deadline = time.monotonic() + 20
    while children.read_text():
        assert time.monotonic() < deadline, "zombies are left"
        select.select([], [], [], 0.05)
    assert alone.rpc("getinfo")["pid"] == 1
