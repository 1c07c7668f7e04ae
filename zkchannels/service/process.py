"""Limits that a process with secrets sets for itself."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

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


def open_files() -> int:
    """Allow this process as many open files as it may allow itself; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
