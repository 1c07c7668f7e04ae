"""Child processes that say when they are ready and that die with their parent."""

from __future__ import annotations

import collections
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

# prctl(PR_SET_PDEATHSIG, SIGTERM) holds across exec: the child ends when the thread that started it
# does, even if that was killed. The program need not know.
_LAUNCHER = (
    "import ctypes, os, sys; parent = int(sys.argv[1]); ctypes.CDLL(None).prctl(1, 15);"
    "os.getppid() == parent or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


def readable(*descriptors: int, seconds: float | None) -> set[int]:
    """Return which of these can be read within some seconds, None for ever, whatever their numbers.

    Not `select`, which takes none from 1024 on: a test may hold many connections.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    limit = None if seconds is None else max(0.0, seconds) * 1000
    return {found for found, _ in poll.poll(limit)}


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as a process that ends with the calling thread."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


class ChildFailed(RuntimeError):
    """A child process ended, or stayed silent, instead of becoming ready; has its last output."""


class Child:
    """A running program whose output is read to the end, so that it never blocks on it.

    Constructed when the program has written a line that contains `ready`; raises ChildFailed.
    """

    def __init__(self, command: Sequence[str], *, ready: str, timeout: float = 30.0) -> None:
        self._process = subprocess.Popen(
            dying_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._last: collections.deque[str] = collections.deque(maxlen=40)
        try:
            self.ready_line = self._wait(ready, time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise
        self._reader = threading.Thread(target=self._drain, name="child output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self, *, timeout: float = 10.0) -> None:
        """End the process by SIGTERM, or SIGKILL if that did not help; harmless if it has ended."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.join()
        self._output.close()

    def _wait(self, ready: str, deadline: float) -> str:
        pending = b""
        while True:
            if not readable(self._output.fileno(), seconds=deadline - time.monotonic()):
                raise ChildFailed(f"not ready in time: {self._said()}")
            piece = os.read(self._output.fileno(), 65536)
            if not piece:
                raise ChildFailed(f"ended at its start: {self._said()}")
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                self._last.append(text)
                if ready in text:
                    return text

    def _said(self) -> str:
        return "\n".join(self._last) or "(no output)"

    def _drain(self) -> None:
        for line in self._output:
            self._last.append(line.decode(errors="replace").rstrip())
