"""Waiting for what other processes come to by themselves."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tools.box import Box
from zkchannels.jsonrpc.client import ConnectError
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError

T = TypeVar("T")
PATIENCE = 60.0
PAUSE = 0.05
_NEVER = threading.Event()


def until(look: Callable[[], T | None]) -> T:
    """Look again until something is found: systemd tells nobody outside what it comes to."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("it does not come to that")
        _NEVER.wait(PAUSE)


def answered(ask: Callable[[], T]) -> T:
    """Ask until there is an answer: the daemon may end while it reads the question."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (ConnectError, ConnectionLost, RequestTimeout, OSError):
            if time.monotonic() > deadline:
                raise
        except RpcError as error:
            again = isinstance(error.data, dict) and error.data.get("kind") == "not_ready"
            if not again or time.monotonic() > deadline:
                raise


@contextmanager
def journal_of(box: Box, *matches: str) -> Iterator[Callable[[str], None]]:
    """Yield what waits until the journal has a new line with a text in it."""
    shown = box.shell("journalctl", "--lines=1", "--output=cat", "--show-cursor").stdout
    after = shown.splitlines()[-1].removeprefix("-- cursor: ")
    options = ["--follow", "--no-pager", "--output=cat", f"--after-cursor={after}", *matches]
    with subprocess.Popen(
        box.entering("journalctl", *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        lines = following.stdout

        def wait(text: str) -> None:
            too_late = threading.Timer(PATIENCE, following.kill)
            too_late.start()
            try:
                if not any(text in line for line in lines):
                    raise AssertionError(f"the journal does not get a line with {text!r}")
            finally:
                too_late.cancel()

        try:
            yield wait
        finally:
            following.kill()
