"""A service of the devnet: a process that says by sd_notify when it is ready and logs to a file."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from zkchannels.devnet.child import ChildFailed, dying_with_parent


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
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            name = f"devnet-{os.getpid()}-{secrets.token_hex(8)}"
            notify.bind(f"\0{name}")
            self._process = self._spawn(
                {**os.environ, **self._environment, "NOTIFY_SOCKET": f"@{name}"}
            )
            self._wait_ready(notify, began + timeout)
        return time.monotonic() - began

    def _spawn(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                dying_with_parent(self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def _wait_ready(self, notify: socket.socket, deadline: float) -> None:
        assert self._process is not None
        ended = os.pidfd_open(self._process.pid)
        try:
            while True:
                left = deadline - time.monotonic()
                readable, _, _ = select.select([notify.fileno(), ended], [], [], max(0.0, left))
                if notify.fileno() in readable:
                    if b"READY=1" in notify.recv(4096):
                        return
                elif ended in readable:
                    raise ChildFailed(f"{self.name} ended at its start:\n{self.last_lines()}")
                else:
                    self.kill()
                    raise ChildFailed(f"{self.name} was not ready in time:\n{self.last_lines()}")
        finally:
            os.close(ended)

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the service's log."""
        if not self.log.exists():
            return "(no output)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self, *, timeout: float = 15.0) -> int:
        """End the process by SIGTERM; return its exit code. Harmless when it has ended."""
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
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
