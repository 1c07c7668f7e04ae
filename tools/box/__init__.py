"""A throw-away machine with a real systemd as PID 1, for tests on hosts that have none running.

`systemd-nspawn` boots a copy-on-write overlay over the host's own root, or over another tree. The
box has its own processes, network (loopback only), users, cgroups and /run; what it writes is kept
in memory and is gone with it. Root, overlayfs and a mounted cgroup2 are needed, and the packages
systemd, systemd-container and util-linux.

    python -m tools.box up web
    python -m tools.box run web systemctl status
    python -m tools.box down web
"""

from __future__ import annotations

from tools.box.machine import Box, BoxError, Plan

__all__ = ["Box", "BoxError", "Plan"]
