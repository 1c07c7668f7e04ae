"""The cgroups a box lives in: one of its own in every hierarchy that nspawn touches."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

REMOVED_WITHIN = 10.0


def hierarchies() -> list[Path]:
    """Return where the second version is mounted, and systemd's own tree of the first."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place))
    return found


def cgroup_of(name: str, hierarchy: Path) -> Path:
    """Return the cgroup of a box."""
    return hierarchy / f"box.{name}"


def join_cgroups(name: str) -> None:
    """Make the cgroups of a box and move this process there."""
    for hierarchy in hierarchies():
        cgroup = cgroup_of(name, hierarchy)
        cgroup.mkdir(exist_ok=True)
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def kill_cgroups(name: str, inside: str = "") -> None:
    """Kill every process of a box, or of one cgroup inside."""
    for hierarchy in hierarchies():
        for procs in (cgroup_of(name, hierarchy) / inside).rglob("cgroup.procs"):
            for pid in procs.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of a box, whose processes are killed if there are any."""
    deadline = time.monotonic() + REMOVED_WITHIN
    while not _removed(name) and time.monotonic() < deadline:
        kill_cgroups(name)
        time.sleep(0.02)  # the first version tells nobody when a cgroup is empty


def _removed(name: str) -> bool:
    gone = True
    for hierarchy in hierarchies():
        cgroup = cgroup_of(name, hierarchy)
        folders = [path for path in cgroup.rglob("*") if path.is_dir()] if cgroup.is_dir() else []
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(FileNotFoundError, OSError):
            cgroup.rmdir()
        gone = gone and not cgroup.exists()
    return gone
