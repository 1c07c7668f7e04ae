"""Detaching, with real processes: the answer of the parent is the truth about the daemon."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PARENT = """
import sys
from pathlib import Path
from zkchannels.service.detach import detach

def run():
    import asyncio, os, signal, socket, subprocess
    from zkchannels.service.notify import Notifier
    BODY

sys.exit(detach(run, pidfile=Path("pid"), logfile=Path("log"), timeout=TIMEOUT))
"""
SERVE = """
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await (await asyncio.create_subprocess_exec("true")).wait()
        open(FOLDER + "/made", "w").close()
        print("descriptors", sorted(map(int, os.listdir("/proc/self/fd")))[:-1], flush=True)
        Notifier.from_environment().ready("ready")
        await stop.wait()
        print("ended", flush=True)
        return 7
    return asyncio.run(main())
"""

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a daemon in a folder of its own; daemons left are ended."""

    def start(
        body: str = SERVE, timeout: float = 30.0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        code = PARENT.replace("    BODY", body.replace("FOLDER", repr(str(tmp_path))))
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NOTIFY_SOCKET", "INVOCATION_ID")
        }
        clean["PYTHONPATH"] = str(Path(__file__).parents[3])
        return subprocess.run(
            [sys.executable, "-c", code.replace("TIMEOUT", str(timeout))],
            cwd=tmp_path,
            env={**clean, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    yield start
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(pid_in(tmp_path), signal.SIGKILL)


def pid_in(folder: Path) -> int:
    """Return the daemon's process id."""
    return int((folder / "pid").read_text())


def end(folder: Path, order: signal.Signals) -> None:
    """Send a signal to the daemon and wait until it is gone."""
    pid = pid_in(folder)
    process = os.pidfd_open(pid)
    os.kill(pid, order)
    assert select.select([process], [], [], 10)[0]
    os.close(process)


def test_returns_when_ready(start: Start, tmp_path: Path) -> None:
    """The parent returns 0 once the daemon is ready; the daemon has a clean process of its own."""
    done = start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    status = Path(f"/proc/{pid_in(tmp_path)}/status").read_text()
    assert "Umask:\t0077" in status
    assert Path(f"/proc/{pid_in(tmp_path)}/cwd").readlink() == Path("/")
    assert os.getsid(pid_in(tmp_path)) != os.getsid(0)
    for name in ("made", "log"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    end(tmp_path, signal.SIGTERM)
    assert "ended" in (tmp_path / "log").read_text()
    assert not (tmp_path / "pid").exists()


def test_second_start_is_refused(start: Start, tmp_path: Path) -> None:
    """A second start is told, on standard error, which process runs, and changes nothing."""
    start()
    pid = pid_in(tmp_path)
    done = start()
    assert done.returncode == 1
    assert f"already running, pid {pid}" in done.stderr
    assert pid_in(tmp_path) == pid


def test_starts_again_after_kill(start: Start, tmp_path: Path) -> None:
    """A killed daemon leaves nothing that keeps the next one from starting."""
    start()
    end(tmp_path, signal.SIGKILL)
    assert (tmp_path / "pid").exists()
    assert start().returncode == 0


def test_crash_before_ready(start: Start, tmp_path: Path) -> None:
    """A daemon that fails before it is ready gives 1 and a hint at its log with the traceback."""
    done = start("    raise RuntimeError('boom')")
    assert done.returncode == 1
    assert f"did not start; see {tmp_path / 'log'}" in done.stderr
    assert "RuntimeError: boom" in (tmp_path / "log").read_text()


def test_failing_exit_before_ready(start: Start) -> None:
    """A daemon that returns without ever being ready has failed, whatever it returned."""
    assert start("    return 0").returncode == 1
    assert start("    raise SystemExit(0)").returncode == 1


def test_reason_reaches_the_caller(start: Start) -> None:
    """An operating system error that kept the daemon from starting is shown to the caller."""
    done = start("    open('/nowhere/at/all')")
    assert done.returncode == 1
    assert "/nowhere/at/all" in done.stderr


def test_slow_start_is_not_success(start: Start, tmp_path: Path) -> None:
    """A daemon that is not ready in time gives 1, and goes on."""
    done = start("    signal.pause()", timeout=0.5)
    assert done.returncode == 1
    assert "not ready after 0.5 s" in done.stderr
    os.kill(pid_in(tmp_path), 0)


@pytest.mark.parametrize("variable", ["NOTIFY_SOCKET", "INVOCATION_ID"])
def test_never_under_systemd(start: Start, tmp_path: Path, variable: str) -> None:
    """Under systemd, which would lose sight of the daemon, detaching is refused."""
    done = start(**{variable: "x"})
    assert done.returncode == 1
    assert "systemd" in done.stderr
    assert not (tmp_path / "pid").exists()


def test_log_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    """A log file that cannot be opened is told before anything is started."""
    (tmp_path / "log").mkdir()
    done = start()
    assert done.returncode == 1
    assert "log: Is a directory" in done.stderr
