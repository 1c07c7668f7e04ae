"""Limits that a process with secrets sets for itself."""

from __future__ import annotations

import resource

_MANY = 1 << 20
"""Enough where the system sets no limit."""


def leave_no_core() -> None:
    """Let a crash leave no image of the memory, which holds keys, on the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def open_files() -> int:
    """Allow this process as many open files as it may allow itself; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
