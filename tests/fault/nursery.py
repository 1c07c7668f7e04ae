"""A process that has imported every program already and forks one whenever it is asked to.

Importing is most of what a start costs, and hundreds of starts are needed. What runs after the fork
is the program as it is, behind the launcher.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zkchannels.devnet.child import dying_with_parent, readable
from zkchannels.devnet.service import Service

_PRELOADED = (
    "aiohttp",
    "customerd.__main__",
    "customerd.app",
    "customersigner.__main__",
    "customersigner.run",
    "merchantd.__main__",
    "merchantd.app",
    "tests.fault.launcher",
)
_SET_PARENT_DEATH_SIGNAL = 1


class Nursery:
    """Forks programs on request; a context manager that ends with everything it forked."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.fault.nursery", str(theirs.fileno())]
            self._process = subprocess.Popen(
                dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours

    def close(self) -> None:
        """End the nursery."""
        self._socket.close()
        self._process.wait()

    def fork(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """Start `command`, the launcher's arguments, with its output appended to a log."""
        request = {"command": command, "environment": dict(environment), "log": str(log)}
        self._socket.send(json.dumps(request).encode())
        return Forked(int(self._socket.recv(64)))


class Forked:
    """A process of the nursery, with what Service uses of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # The nursery collects ended children with its next request only: this cannot miss.
        self._end = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self._end)

    def poll(self) -> int | None:
        """Return 0 once the process has ended (its true exit code is the nursery's), else None."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return once the process has ended; raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and readable(self._end, seconds=timeout):
            self.returncode = 0
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process has not ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._end, number)


class ForkedService(Service):
    """A service whose process comes from a nursery."""

    def __init__(self, nursery: Nursery, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._nursery = nursery

    def _spawn(self, environment: Mapping[str, str]) -> Any:
        # Behind "python -m tests.fault.launcher"
        return self._nursery.fork(self._command[3:], environment, self.log)


def _serve(requests: socket.socket) -> None:
    """Fork whatever is asked for until the other side closes."""
    for module in _PRELOADED:
        __import__(module)
    gc.freeze()
    while text := requests.recv(65536):
        _collect()
        request = json.loads(text)
        pid = os.fork()
        if pid == 0:
            requests.close()
            os._exit(_become(**request))
        requests.send(str(pid).encode())


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _become(command: list[str], environment: dict[str, str], log: str) -> int:
    """Run the launcher in this fresh process; return its exit code."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
    random.seed()
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    from tests.fault import launcher

    sys.argv = ["launcher", *command]
    try:
        return launcher.main()
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
