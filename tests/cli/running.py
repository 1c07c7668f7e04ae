"""Runs the program as a process: with pipes, or on a terminal of a given size."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "customerctl")
SECONDS = 20
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9])")


class Customerctl:
    """The program, for one socket."""

    def __init__(self, socket: Path) -> None:
        self.environment = {**os.environ, "CUSTOMERD_SOCKET": str(socket), "TZ": "UTC"}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE"):
            self.environment.pop(name, None)

    def run(
        self, *arguments: str, stdin: str | bytes = b"", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with pipes."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env={**self.environment, **(environment or {})},
            timeout=SECONDS,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def json(self, *arguments: str) -> Any:
        """Return the result that `--json` prints."""
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout)

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        """Start with pipes and return at once."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment,
            **settings,
        )

    def on_terminal(self, *arguments: str, columns: int = 80, **environment: str) -> Terminal:
        """Start on a terminal of its own."""
        return Terminal(
            arguments, columns, {**self.environment, "TERM": "xterm-256color", **environment}
        )


class Terminal:
    """A program on a pseudo terminal."""

    def __init__(
        self, arguments: tuple[str, ...], columns: int, environment: dict[str, str]
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self._written = b""
        self._deadline = time.monotonic() + SECONDS

    @property
    def raw(self) -> str:
        """Everything written so far, with escape sequences."""
        return self._written.decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything written so far, without escape sequences; redrawn parts appear repeatedly."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def await_text(self, text: str) -> None:
        """Return once this has been written."""
        while text not in self.text:
            assert self._read(), f"ended without {text!r}: {self.text}"

    def finish(self) -> int:
        """Return the exit code once the program has ended."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        if time.monotonic() > self._deadline:
            self.process.kill()
            raise AssertionError(f"not finished in time: {self.text[-2000:]}")
        if not select.select([self._master], [], [], 1)[0]:
            return True
        try:
            chunk = os.read(self._master, 1 << 16)
        except OSError:  # how Linux tells the end of a terminal
            return False
        self._written += chunk
        return bool(chunk)
