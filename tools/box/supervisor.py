"""The process a box hangs on: it prepares the root, keeps systemd-nspawn, cleans up at the end.

Started by `Box.up` with a listening control socket; a second process waits for its end. A client
sends one line: `leader` is answered with the process id of PID 1 once the box has booted, `after
PID` likewise once another PID 1 has; `down` ends the box, and the connection with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tools.box.cgroups import join_cgroups, kill_cgroups
from tools.box.machine import STATES, Box, Plan

REBOOTED = 133
"""What nspawn ends with, under --keep-unit, when the box wants to be started again."""
POWEROFF_WITHIN = 20.0
PRIVATE = Path("/run/box")
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CLONE_NEWNS = 0x00020000
USUAL = {
    *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "media"),
    *("opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var"),
}
"""Folders of the host's root that a box over it sees; what else there is, is somebody's data."""


def main() -> None:
    """Run one box to its end, then remove what is left of it, whatever ended it."""
    name, control, owner = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    child = os.fork()
    if child:
        os.close(control)
        _ignore_signals()
        os.waitpid(child, 0)
        Box(name).remove_rests()
        return
    plan = Plan(**json.loads((STATES / name / "plan.json").read_text()))
    # Its own cgroup first, else nspawn leaves some of its own in the root.
    join_cgroups(name)
    # Its own mounts: with its last process the overlay and all that is in it are gone.
    if ctypes.CDLL(None).unshare(_CLONE_NEWNS):
        raise OSError("no mount namespace can be had")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    # nspawn leaves folders in /run where the host's is no tmpfs; this one goes with the box.
    _mount("tmpfs", "/run", "mode=755")
    asyncio.run(_supervise(name, plan, socket.socket(fileno=control), owner))


def _ignore_signals() -> None:
    """Leave it to the child to end in order when it is told to."""
    for number in _ORDERS:
        signal.signal(number, signal.SIG_IGN)


async def _supervise(name: str, plan: Plan, control: socket.socket, owner: int) -> None:
    root = _prepare(name, plan)
    supervisor = Supervisor(name, _nspawn(name, root, plan), plan.environment)
    loop = asyncio.get_running_loop()
    for number in _ORDERS:
        loop.add_signal_handler(number, supervisor.ending.set)
    if owner:
        try:
            descriptor = os.pidfd_open(owner)
        except ProcessLookupError:
            return
        loop.add_reader(descriptor, supervisor.ending.set)
    server = await asyncio.start_unix_server(supervisor.answer, sock=control)
    try:
        await supervisor.run()
    finally:
        server.close()


class Supervisor:
    """Keeps nspawn running through reboots, until its end is asked for."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.ending = asyncio.Event()
        self._name = name
        self._command = command
        self._environment = environment
        self._changed = asyncio.Condition()
        self._starting = 0
        self._booted = 0
        self._over = False

    async def run(self) -> None:
        """Boot again and again while the box reboots; returns when it is off."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                address = PRIVATE / "notify"
                notify.bind(str(address))
                notify.setblocking(False)
                async with asyncio.TaskGroup() as group:
                    listening = group.create_task(self._listen(notify))
                    while not self.ending.is_set() and await self._boot(address) == REBOOTED:
                        self._booted = 0
                    listening.cancel()
        finally:
            async with self._changed:
                self._over = True
                self._changed.notify_all()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client."""
        with contextlib.suppress(ConnectionError):
            question, _, given = (await reader.readline()).decode().strip().partition(" ")
            if question == "down":
                self.ending.set()
                await asyncio.Event().wait()  # the end of the process ends the connection
            before = int(given or 0)
            async with self._changed:
                await self._changed.wait_for(lambda: self._over or self._booted not in (0, before))
            writer.write(b"error it has ended\n" if self._over else b"%d\n" % self._booted)
            await writer.drain()
        writer.close()

    async def _boot(self, notify: Path) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            env={
                "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                "NOTIFY_SOCKET": str(notify),
                # The host may have cgroups of both kinds; the box has a pure tree of the second.
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                **self._environment,
            },
        )
        ended = asyncio.ensure_future(process.wait())
        asked = asyncio.ensure_future(self.ending.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not ended.done():
            process.terminate()  # nspawn makes it an orderly poweroff
            await asyncio.wait((ended,), timeout=POWEROFF_WITHIN)
        if not ended.done():
            kill_cgroups(self._name, "payload")
            await asyncio.wait((ended,), timeout=POWEROFF_WITHIN)
        if not ended.done():
            process.kill()
        return await ended

    async def _listen(self, notify: socket.socket) -> None:
        """Take what nspawn says: who is PID 1, and that it has booted."""
        loop = asyncio.get_running_loop()
        while True:
            for line in (await loop.sock_recv(notify, 65536)).decode().split("\n"):
                key, _, value = line.partition("=")
                if key == "X_NSPAWN_LEADER_PID":
                    self._starting = int(value)
                elif key == "READY":
                    async with self._changed:
                        self._booted = self._starting
                        self._changed.notify_all()


def _nspawn(name: str, root: Path, plan: Plan) -> list[str]:
    command = [
        "setpriv",
        "--pdeathsig=KILL",  # with nspawn its PID 1 ends, and with that the box
        "--",
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={root}",
        f"--machine={name}",
        f"--hostname={name}",
        "--notify-ready=yes",
        # There need be neither systemd nor D-Bus on the host.
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--private-network",
        "--private-users=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        "--kill-signal=SIGRTMIN+3",
        # Without bpf() systemd skips IPAddressDeny= and DevicePolicy= in silence.
        "--system-call-filter=bpf",
        "--capability=CAP_BPF,CAP_PERFMON",
    ]
    if plan.tree is None:
        command += [
            f"--tmpfs={folder}:mode=755"
            for folder in sorted(Path("/").iterdir())
            if folder.is_dir() and not folder.is_symlink() and folder.name not in USUAL
        ]
    command += [f"--bind={bind}" for bind in plan.binds]
    command += [f"--bind-ro={bind}" for bind in plan.binds_read_only]
    return command


def _prepare(name: str, plan: Plan) -> Path:
    """Mount the overlay and make of the copy a machine of its own."""
    PRIVATE.mkdir()
    _mount("tmpfs", str(PRIVATE), f"mode=755,size={plan.size}")
    for folder in ("lower", "upper", "work", "root"):
        (PRIVATE / folder).mkdir()
    root, lower = PRIVATE / "root", Path(plan.tree or "/")
    if lower.is_file():
        unpack = ["tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        subprocess.run([*unpack, "--file", lower, "-C", PRIVATE / "lower"], check=True)
        lower = PRIVATE / "lower"
    layers = f"lowerdir={lower},upperdir={PRIVATE / 'upper'},workdir={PRIVATE / 'work'}"
    _mount("overlay", str(root), f"nodev,{layers}")
    etc = root / "etc"
    _replace(etc / "machine-id", secrets.token_hex(16) + "\n")
    _replace(etc / "hostname", name + "\n")
    _replace(etc / "hosts", f"127.0.0.1 localhost {name}\n::1 localhost\n")
    _replace(etc / "fstab", "")
    with contextlib.suppress(FileNotFoundError):
        _replace(etc / "resolv.conf", Path("/etc/resolv.conf").read_text())
    _remove(root / "var/lib/dbus/machine-id")
    _remove(root / ".dockerenv")
    # Images of containers forbid by this that a package starts its service.
    _remove(root / "usr/sbin/policy-rc.d")
    shutil.rmtree(root / "var/log/journal", ignore_errors=True)
    (root / "var/log/journal").mkdir(parents=True)
    for folder in ("dev", "proc", "run", "sys", "tmp"):
        (root / folder).mkdir(exist_ok=True)
    if plan.tree is None:
        # Nothing is enabled that the host happens to have; its database may be in use.
        for pattern in ("*.wants", "*.requires"):
            for folder in (etc / "systemd/system").glob(pattern):
                shutil.rmtree(folder)
        for place in ("etc/postgresql", "var/lib/postgresql"):
            for entry in sorted((root / place).glob("*")):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for copy in plan.copies:
        source, _, place = copy.partition(":")
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["cp", "--archive", "--no-preserve=ownership", "--no-target-directory"]
        subprocess.run([*command, source, target], check=True)
    return root


def _mount(kind: str, place: str, options: str) -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, "box", place], check=True)


def _replace(path: Path, text: str) -> None:
    """Write a file in the place of one that may be a link out of the tree."""
    _remove(path)
    path.write_text(text)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
