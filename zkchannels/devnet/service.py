"""A service of the devnet: a process that says by sd_notify when it is ready and logs to a file."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from zkchannels.devnet.child import ChildFailed, dying_with_parent, readable


class Service:
    """A program started, stopped, killed and started again with the same command."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None
        self.told: list[str] = []
        """What the process said by sd_notify while it was waited for."""

    @property
    def command(self) -> list[str]:
        """The command line that is started."""
        return list(self._command)

    @property
    def pid(self) -> int:
        """Process id of the running service."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 30.0) -> float:
        """Start the process and return the seconds until it was ready; raises ChildFailed."""
        began = time.monotonic()
        self.launch()
        self.wait_told("READY=1", timeout=timeout)
        self._forget_notify()
        return time.monotonic() - began

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self._forget_notify()
        self.told = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"devnet-{os.getpid()}-{secrets.token_hex(8)}"
        self._notify.bind(f"\0{name}")
        self._process = self._spawn(
            {**os.environ, **self._environment, "NOTIFY_SOCKET": f"@{name}"}
        )

    def _spawn(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                dying_with_parent(self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def wait_told(self, text: str, *, timeout: float = 30.0) -> None:
        """Return once the process said this by sd_notify; raises ChildFailed if it ends before."""
        deadline = time.monotonic() + timeout
        assert self._process is not None
        assert self._notify is not None
        notify = self._notify
        ended = os.pidfd_open(self._process.pid)
        try:
            while True:
                left = deadline - time.monotonic()
                ready = readable(notify.fileno(), ended, seconds=left)
                if notify.fileno() in ready:
                    self.told.append(notify.recv(4096).decode())
                    if text in self.told[-1]:
                        return
                elif ended in ready:
                    raise ChildFailed(f"{self.name} ended at its start:\n{self.last_lines()}")
                else:
                    self.kill()
                    raise ChildFailed(f"{self.name} was too late: {text}\n{self.last_lines()}")
        finally:
            os.close(ended)

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the service's log."""
        if not self.log.is_file():
            return "(no output)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self, *, timeout: float = 15.0) -> int:
        """End the process by SIGTERM; return its exit code. Harmless when it has ended."""
        self._forget_notify()
        if self._process is None:
            return 0
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._forget_notify()
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def wait(self, timeout: float) -> int:
        """Wait for an end that the process comes to by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def _forget_notify(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None
