"""Running in the background where there is no systemd: the caller returns once the daemon is ready.

python-daemon does the double fork. The daemon speaks sd_notify as under systemd; the waiting parent
is the other end of it, so one way of telling readiness serves both.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn


class DetachError(Exception):
    """The daemon cannot be put in the background; the message says why."""


class PidFile:
    """A pid file whose lock ends with the process, so that it is never stale."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise DetachError(f"already running, pid {pid or 'not written yet'}") from None
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)  # its owner removed the file while we opened it
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def detach(
    run: Callable[[], int | None], *, pidfile: Path, logfile: Path, timeout: float = 60.0
) -> int:
    """Run `run` in the background; return 0 when it said READY=1, else 1 with the reason on stderr.

    Call it before there is an event loop or a second thread: neither outlives a fork. `run` must
    tell readiness through NOTIFY_SOCKET; its return value is the daemon's exit status, and a
    DetachError that it raises a reason for the caller. What the daemon prints goes to `logfile`
    (mode 0600). A daemon that is not ready within `timeout` seconds goes on, but the answer is 1,
    with what it waits for.
    """
    if "NOTIFY_SOCKET" in os.environ or "INVOCATION_ID" in os.environ:
        return _failed("--detach is not for systemd: run in the foreground under it")
    if threading.active_count() > 1:
        raise RuntimeError("detach() must be called before any thread is started")
    # The daemon's working folder is /.
    pidfile, logfile = pidfile.absolute(), logfile.absolute()
    try:
        log = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return _failed(f"{logfile}: {error.strerror}")
    # An abstract address needs no cleaning up; a name nobody can guess keeps others from it.
    address = f"customerd-{os.getpid()}-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as states:
        states.bind(f"\0{address}")
        # No process of the daemon is left when the pipe comes to its end; it also carries a reason.
        reading, writing = os.pipe()
        first_child = os.fork()
        if first_child == 0:
            os.close(reading)
            states.close()
            _become_daemon(run, pidfile, log, writing, f"@{address}")
        os.close(writing)
        os.close(log)
        try:
            os.waitpid(first_child, 0)  # ends at once, leaving the daemon to init
            return _wait(states, reading, logfile, timeout)
        finally:
            os.close(reading)


def _become_daemon(
    run: Callable[[], int | None], pidfile: Path, log: int, reasons: int, address: str
) -> NoReturn:
    status = 1
    try:
        import daemon  # noqa: PLC0415 - nobody else needs it

        os.environ["NOTIFY_SOCKET"] = address
        output: Any = os.fdopen(log, "ab", buffering=0)
        context = daemon.DaemonContext(
            # Its default for a child of init is not to detach at all.
            detach_process=True,
            pidfile=PidFile(pidfile),
            files_preserve=[reasons, output.fileno()],
            stdout=output,
            stderr=output,
            # The default umask is 0: everything the daemon makes would be writable by all.
            umask=0o077,
            working_directory="/",
            # The event loop's own handlers rule.
            signal_map={},
            prevent_core=True,
        )
        try:
            with context:
                status = run() or 0
        except (DetachError, OSError) as error:
            os.write(reasons, str(error).encode()[:4000])
            raise
    except SystemExit as leaving:
        # The first of the two forks leaves through here, too, by os._exit.
        status = leaving.code if isinstance(leaving.code, int) else 1
    except DetachError:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


def _wait(states: socket.socket, reading: int, logfile: Path, timeout: float) -> int:
    deadline, status = time.monotonic() + timeout, ""
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([states.fileno(), reading], [], [], left)
        if states.fileno() in readable:
            told = states.recv(65536).decode(errors="replace").split("\n")
            if "READY=1" in told:
                return 0
            for line in told:
                if line.startswith("STATUS="):
                    status = f": {line.removeprefix('STATUS=')}"
        elif reading in readable:
            reason = os.read(reading, 4096).decode(errors="replace")
            return _failed(reason or f"the daemon did not start; see {logfile}")
    return _failed(f"the daemon is not ready after {timeout:g} s{status}; see {logfile}")


def _failed(reason: str) -> int:
    print(f"customerd: {reason}", file=sys.stderr)  # noqa: T201
    return 1
