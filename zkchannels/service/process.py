"""Limits that a process with secrets sets for itself."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

_MANY = 1 << 20
"""Enough where the system sets no limit."""
_PR_SET_DUMPABLE: Final = 4


def keep_memory_private() -> None:
    """Let nobody but root read this process' memory, alive or after a crash.

    No core file, and none handed to the system's collector of cores either, which a limit of 0
    does not stop; other processes of the same user can neither trace it nor read its memory.
    Raises OSError where the system refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def heed_sigterm() -> None:
    """End by SIGTERM before an event loop has a handler for it, as a container's first process.

    For that one the kernel ignores every signal that has none.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _leave)


async def to_the_end(work: Awaitable[T]) -> T:
    """Return what a program's main coroutine returns; no signal interrupts what is left then.

    Without the event loop, which ends next, SIGTERM would turn an orderly end into a failure.
    """
    try:
        return await work
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def reap_orphans(loop: asyncio.AbstractEventLoop) -> None:
    """As a container's first process, let no process that is left to us stay behind as a zombie.

    For programs that start no processes themselves: whoever does waits for them.
    """
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, _reap)
        _reap()


def _leave(*_: object) -> None:
    sys.exit(0)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def open_files() -> int:
    """Allow this process as many open files as it may allow itself; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
