"""A service manager's half of systemd's protocol, for one service of a test.

Real descriptors, real signals, a real datagram socket: listening sockets and stored descriptors are
handed over by LISTEN_FDS; READY, STATUS, WATCHDOG, FDSTORE, FDSTOREREMOVE and BARRIER are taken as
sd_notify(3) says. A watchdog that is fed no more ends the service by SIGABRT.
"""

from __future__ import annotations

import array
import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from zkchannels.devnet.child import ChildFailed
from zkchannels.devnet.service import Service

MOST_FDS = 768
# The launcher gives the descriptors the numbers 3, 4, ... and has LISTEN_PID name its own process,
# which is the service's; the service ends with the test (see zkchannels.devnet.child). As with
# systemd it may open 1024 files, whatever it is given, until it asks for more.
_LAUNCHER = """
import ctypes, fcntl, os, resource, sys
parent, count = int(sys.argv[1]), int(sys.argv[2])
ctypes.CDLL(None).prctl(1, 15)
os.getppid() == parent or sys.exit(1)
given, command = [int(each) for each in sys.argv[3:3 + count]], sys.argv[3 + count:]
apart = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 3 + count + 100) for each in given]
for each in given:
    os.close(each)
for number, each in enumerate(apart, 3):
    os.dup2(each, number)
if count:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
os.execv(command[0], command)
"""


class Managed(Service):
    """A service under a manager: its sockets outlive it, and so does what it stores."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        sockets: Mapping[str, Path] | None = None,
        store: int = 0,
        watchdog: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`sockets` by FileDescriptorName; `store` is FileDescriptorStoreMax."""
        super().__init__(name, command, log=log, environment=environment)
        self._most = store
        self._watchdog = watchdog
        self._fed = float("inf")
        self._heard = threading.Condition()
        self._stored: list[tuple[str, int]] = []
        self._closing = False
        self.aborted = threading.Event()
        """Set once the watchdog had to end the service."""
        self._address = f"manager-{os.getpid()}-{secrets.token_hex(8)}"
        self._states = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._states.bind(f"\0{self._address}")
        self._states.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._look, self._poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._listening = [(label, _listen(path)) for label, path in (sockets or {}).items()]
        self._thread = threading.Thread(target=self._run, name=f"manager of {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the service and let go of everything."""
        self.stop()
        self._closing = True
        os.write(self._poke, b".")
        self._thread.join()
        for _, listening in self._listening:
            listening.close()
        self._states.close()
        os.close(self._look)
        os.close(self._poke)

    @property
    def stored(self) -> list[str]:
        """Names of the descriptors in the store."""
        with self._heard:
            return [name for name, _ in self._stored]

    def kept(self, name: str) -> int:
        """Return a stored descriptor."""
        with self._heard:
            return next(descriptor for label, descriptor in self._stored if label == name)

    def keep(self, name: str, descriptor: int) -> None:
        """Store a descriptor as if the service had."""
        with self._heard:
            self._stored.append((name, descriptor))

    def wait_stored(self, names: Sequence[str], *, timeout: float = 20.0) -> None:
        """Return once exactly these are stored."""
        with self._heard:
            found = self._heard.wait_for(
                lambda: sorted(name for name, _ in self._stored) == sorted(names), timeout
            )
        assert found, self.stored

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with self._heard:
            self.told = []
            self._fed = float("inf")
        given = {"NOTIFY_SOCKET": f"@{self._address}"}
        if self._watchdog is not None:
            given["WATCHDOG_USEC"] = str(int(self._watchdog * 1_000_000))
        self._process = self._spawn({**os.environ, **self._environment, **given})

    def _spawn(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._heard:
            stored = list(self._stored)
        passed = [(name, each.fileno()) for name, each in self._listening] + stored
        descriptors = [descriptor for _, descriptor in passed]
        names = ":".join(name for name, _ in passed)
        numbers = [str(each) for each in descriptors]
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*launcher, str(len(numbers)), *numbers, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "LISTEN_FDNAMES": names},
                pass_fds=descriptors,
            )

    def wait_told(self, text: str, *, timeout: float = 30.0) -> None:
        """Return once the process said this by sd_notify; raises ChildFailed if it ends before."""
        deadline = time.monotonic() + timeout
        assert self._process is not None
        ended = os.pidfd_open(self._process.pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        try:
            with self._heard:
                while not any(text in told for told in self.told):
                    left = deadline - time.monotonic()
                    if left < 0:
                        said = self.last_lines()
                        raise ChildFailed(f"{self.name} was too late: {text}\n{said}")
                    # Its end has no other sign for this thread than a look now and then.
                    self._heard.wait(min(left, 0.2))
                    if poll.poll(0) and not any(text in told for told in self.told):
                        raise ChildFailed(f"{self.name} ended:\n{self.last_lines()}")
        finally:
            os.close(ended)

    def wait_next(self, text: str, *, timeout: float = 30.0) -> None:
        """Return once the process says this, from now on."""
        with self._heard:
            before = len(self.told)
            found = self._heard.wait_for(
                lambda: any(text in told for told in self.told[before:]), timeout
            )
        assert found, f"{self.name} was too late: {text}\n{self.last_lines()}"

    def pause(self, *, timeout: float = 30.0) -> None:
        """End the process as the first half of `systemctl restart` does."""
        assert super().stop(timeout=timeout) == 0, self.last_lines()

    def restart(self, *, timeout: float = 30.0) -> float:
        """End the process and start it again, as `systemctl restart` does; seconds it took."""
        began = time.monotonic()
        self.pause(timeout=timeout)
        self.start(timeout=timeout)
        return time.monotonic() - began

    def stop(self, *, timeout: float = 15.0) -> int:
        """End the process and let go of what it stored, as `systemctl stop` does."""
        code = super().stop(timeout=timeout)
        with self._heard:
            for _, descriptor in self._stored:
                os.close(descriptor)
            self._stored.clear()
        return code

    def _forget_notify(self) -> None:
        """Go on listening: what a process says at its end counts."""

    # -- the manager's thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            poll = select.poll()
            poll.register(self._states.fileno(), select.POLLIN)
            poll.register(self._look, select.POLLIN)
            with self._heard:
                watched = [descriptor for _, descriptor in self._stored]
            for descriptor in watched:
                poll.register(descriptor, 0)
            events = dict(poll.poll(self._patience()))
            if self._look in events:
                os.read(self._look, 64)
            if self._states.fileno() in events:
                self._receive()
            for descriptor in watched:
                if events.get(descriptor, 0) & (select.POLLHUP | select.POLLERR):
                    self._drop(lambda stored, gone=descriptor: stored[1] == gone)
            self._guard()

    def _patience(self) -> float | None:
        if self._watchdog is None or self._fed == float("inf"):
            return None
        return max(0.0, self._fed + self._watchdog - time.monotonic()) * 1000 + 1

    def _guard(self) -> None:
        """End a service whose watchdog was fed too long ago."""
        if self._watchdog is None or time.monotonic() < self._fed + self._watchdog:
            return
        self._fed = float("inf")
        if self.running:
            os.kill(self.pid, signal.SIGABRT)
            self.aborted.set()

    def _receive(self) -> None:
        room = socket.CMSG_SPACE(4 * MOST_FDS)
        data, extras, _, _ = self._states.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
        received = array.array("i")
        for level, kind, content in extras:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
        lines = data.decode().split("\n")
        values = dict(line.partition("=")[::2] for line in lines)
        with self._heard:
            if "FDSTORE" in values:
                while received and len(self._stored) < self._most:
                    self._stored.append((values.get("FDNAME", "stored"), received.pop(0)))
            for unwanted in received:
                os.close(unwanted)
            if "READY" in values or "WATCHDOG" in values:
                self._fed = time.monotonic()
            if "BARRIER" not in values:
                self.told.append(data.decode())
            self._heard.notify_all()
        if "FDSTOREREMOVE" in values:
            self._drop(lambda stored: stored[0] == values.get("FDNAME"))

    def _drop(self, chosen: object) -> None:
        assert callable(chosen)
        with self._heard:
            for stored in [each for each in self._stored if chosen(each)]:
                self._stored.remove(stored)
                with contextlib.suppress(OSError):
                    os.close(stored[1])
            self._heard.notify_all()


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening.bind(os.fspath(path))
    path.chmod(0o600)
    listening.listen(1024)
    return listening
