"""Limits that a process with secrets sets for itself."""

from __future__ import annotations

import resource


def leave_no_core() -> None:
    """Let a crash leave no image of the memory, which holds keys, on the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
