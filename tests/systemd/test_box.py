"""The machine that the other tests boot: apart from the host, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.systemd.waiting import until
from tools.box import Box, BoxError
from tools.box.cgroups import cgroup_of, hierarchies
from tools.box.machine import STATES
from zkchannels.devnet.child import readable


def traces(name: str) -> list[str]:
    """What the host has of a box."""
    folders = [STATES / name, *(cgroup_of(name, place) for place in hierarchies())]
    mounts = Path("/proc/self/mounts").read_text()
    return [str(each) for each in folders if each.exists()] + [name] * (name in mounts)


def supervisor(box: Box) -> int:
    """The process that the box hangs on: nspawn's parent, which is that of PID 1."""
    status = Path(f"/proc/{box.leader}/stat").read_text()
    nspawn = int(status.rpartition(")")[2].split()[1])
    return int(Path(f"/proc/{nspawn}/stat").read_text().rpartition(")")[2].split()[1])


def test_it_is_a_machine_of_its_own_and_leaves_nothing() -> None:
    """What is written and named inside is not seen outside, survives a reboot, and is gone then."""
    name = f"apart-{os.getpid()}"
    before = {path: Path(path).read_bytes() for path in ("/etc/hostname", "/etc/passwd")}
    host = os.uname().nodename
    with Box.up(name) as box:
        assert box.shell("systemctl", "is-system-running").stdout == "running\n"
        assert box.shell("hostname").stdout == f"{name}\n"
        box.shell("useradd", "stranger")
        box.shell("touch", "/usr/kept")
        box.run("mount", "-t", "tmpfs", "none", "/mnt")
        assert [line.split(":")[0].strip() for line in _devices(box)] == ["lo"]
        assert {path.name for path in box.path("/root").iterdir()} <= {".ssh"}  # systemd's own
        date = box.run("date", "--set=2001-01-01", check=False)
        assert date.returncode != 0
        assert box.shell("date", "--set=2001-01-01", check=False).returncode != 0
        first = box.leader
        box.reboot()
        assert box.leader != first
        assert box.path("/usr/kept").exists()
    assert not Path("/usr/kept").exists()
    assert os.uname().nodename == host
    assert {path: Path(path).read_bytes() for path in before} == before
    assert traces(name) == []


def test_it_ends_with_its_owner() -> None:
    """A killed run of the tests leaves no machine behind."""
    name = f"owned-{os.getpid()}"
    with subprocess.Popen(["sleep", "infinity"]) as owner:
        box = Box.up(name, owner=owner.pid)
        inside = os.pidfd_open(box.leader)
        owner.kill()
    until(lambda: not traces(name))
    assert readable(inside, seconds=60) == {inside}
    os.close(inside)
    with pytest.raises(BoxError, match="there is no box"):
        _ = Box(name).leader


def test_a_killed_one_leaves_nothing() -> None:
    """Not even SIGKILL for the process that keeps it leaves the machine running."""
    name = f"killed-{os.getpid()}"
    box = Box.up(name)
    inside = os.pidfd_open(box.leader)
    os.kill(supervisor(box), signal.SIGKILL)
    until(lambda: not traces(name))
    assert readable(inside, seconds=60) == {inside}
    os.close(inside)


def _devices(box: Box) -> list[str]:
    return box.shell("cat", "/proc/net/dev").stdout.splitlines()[2:]
