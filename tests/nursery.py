"""A process that has imported every program already and forks one whenever it is asked to.

Importing is most of what a start costs, and thousands of starts are needed. What runs after the
fork is the program as it is, in a process of its own with real descriptors, signals and exit code.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zkchannels.devnet.child import dying_with_parent, readable
from zkchannels.devnet.network import Network
from zkchannels.devnet.service import Service

PROGRAMS = {
    "customerd": "customerd.__main__",
    "customersigner": "customersigner.__main__",
    "merchantd": "merchantd.__main__",
    "tests.fault.launcher": "tests.fault.launcher",
}
"""What can be forked, by what follows `python -m`, and where its `main` is."""
_PRELOADED = (
    *PROGRAMS.values(),
    "aiohttp",
    "customerd.app",
    "customersigner.run",
    "merchantd.app",
    "merchantd.initialise",
)
_SET_PARENT_DEATH_SIGNAL = 1
_MODULE = 2
"""Where in a command line the program is: python -m PROGRAM ..."""


class Nursery:
    """Forks programs on request; what it forked ends with it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
            self._process = subprocess.Popen(
                dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._turn = threading.Lock()

    def fork(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        given: Path | None = None,
        errors: Path | None = None,
    ) -> Forked:
        """Start `python -m ...` with its output appended to a log, and a file as its input.

        `errors`: where its standard error goes, if not into the log.
        """
        request = {
            "command": command[_MODULE:],
            "environment": dict(environment),
            "log": str(log),
            "given": str(given or os.devnull),
            "errors": str(errors or log),
        }
        return Forked(self, self._ask(request))

    def exit_code(self, pid: int) -> int:
        """Return the exit code of an ended process, minus the signal that ended it."""
        return self._ask({"ended": pid})

    def _ask(self, request: Mapping[str, Any]) -> int:
        with self._turn:
            self._socket.send(json.dumps(request).encode())
            return int(self._socket.recv(64))


class Forked:
    """A process of the nursery, with what Service uses of subprocess.Popen."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        # The nursery collects it when its exit code is asked for only: this cannot miss.
        self._end = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self._end)

    def poll(self) -> int | None:
        """Return the exit code once the process has ended, else None."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return once the process has ended; raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and readable(self._end, seconds=timeout):
            self.returncode = self._nursery.exit_code(self.pid)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process has not ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._end, number)


class ForkedService(Service):
    """A service whose process comes from the nursery."""

    def _spawn(self, environment: Mapping[str, str]) -> Any:
        return shared().fork(self._command, environment, self.log)


@functools.cache
def shared() -> Nursery:
    """Return the nursery of this process, made at its first use; it ends with the process."""
    return Nursery()


def is_ours(command: Sequence[str]) -> bool:
    """Whether a command line is one that a nursery forks."""
    return command[1] == "-m" and command[_MODULE] in PROGRAMS


def new_service(name: str, command: list[str], *, log: Path) -> Service:
    """Return a service that is forked from what is imported already, if it is one of ours."""
    if is_ours(command):
        return ForkedService(name, command, log=log)
    return Service(name, command, log=log)


class ForkedNetwork(Network):
    """The network with programs that come from a nursery."""

    def new_service(self, name: str, command: list[str], *, log: Path) -> Service:
        """Have our programs forked."""
        return new_service(name, command, log=log)

    def execute(self, command: list[str], *, given: str = "") -> str:
        """Run a program of ours to its end and return what it printed."""
        if not is_ours(command):
            return super().execute(command, given=given)
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            output, errors, typed = (Path(directory) / name for name in ("out", "errors", "in"))
            typed.write_text(given)
            process = shared().fork(command, os.environ, output, given=typed, errors=errors)
            if process.wait() != 0:
                told = errors.read_text() or output.read_text()
                raise RuntimeError(f"{' '.join(command[_MODULE:])} failed:\n{told}")
            return output.read_text()


# -- the process itself ----------------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Fork whatever is asked for until the other side closes."""
    for module in _PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    while text := requests.recv(65536):
        request = json.loads(text)
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            requests.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            requests.close()
            os._exit(_become(**request))
        requests.send(str(pid).encode())


def _become(
    command: list[str], environment: dict[str, str], log: str, given: str, errors: str
) -> int:
    """Run the program in this fresh process; return its exit code."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
    random.seed()
    os.environ.clear()
    os.environ.update(environment)
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for descriptor, path, flags in ((0, given, os.O_RDONLY), (1, log, append), (2, errors, append)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    program, *arguments = command
    sys.argv = [program, *arguments]
    try:
        code: int = sys.modules[PROGRAMS[program]].main()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
