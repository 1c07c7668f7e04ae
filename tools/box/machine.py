"""Starting, entering and ending a box: what the command line and the tests call."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from tools.box.cgroups import hierarchies, remove_cgroups

T = TypeVar("T")

STATES = Path("/run/customerd-boxes")
PACKAGES = "systemd systemd-container dbus util-linux"
NEEDED = ("systemd-nspawn", "nsenter", "setpriv", "mount")
SIZE = "6g"
BOOT_WITHIN = 120.0
END_WITHIN = 45.0
REMOVED_WITHIN = 15.0
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_CLONE_NEWNET = 0x40000000
# nsenter joins namespaces, but neither nspawn's bounding set nor its filter of system calls:
# `date -s` or `insmod` in a shell of the box would reach the host's kernel.
_FORBIDDEN = (
    "sys_time",
    "sys_module",
    "sys_rawio",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "mac_admin",
    "mac_override",
    "sys_pacct",
)
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
}
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


class BoxError(Exception):
    """A box cannot be had or used; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a box is made of."""

    tree: str | None = None
    """A folder or a tar file that it boots; the host's own root when None."""
    size: str = SIZE
    """How much may be written in it."""
    binds: tuple[str, ...] = ()
    """Folders of the host that it may write, SOURCE or SOURCE:PLACE."""
    binds_read_only: tuple[str, ...] = ()
    """Folders of the host that it may read."""
    copies: tuple[str, ...] = ()
    """Files and folders copied into it before it boots, SOURCE:PLACE; owned by root there."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of its PID 1, for systemd itself."""


class Box:
    """One booted machine; a context manager that ends it."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise BoxError(f"{name!r} is no name: letters, digits and -, 31 at most")
        self.name = name
        self.state = STATES / name
        self._leader: int | None = None

    # -- life ---------------------------------------------------------------------------------

    @classmethod
    def up(cls, name: str, plan: Plan | None = None, *, owner: int | None = None) -> Self:
        """Boot a machine; returns when it has booted. It ends when the process `owner` ends.

        Raises BoxError, with what systemd said, when it does not boot, and when there is one of
        this name. What a killed one left behind is removed first.
        """
        box = cls(name)
        _check_host()
        STATES.mkdir(mode=0o700, exist_ok=True)
        if box.state.exists() and not box._supervised():
            box.remove_rests()
            STATES.mkdir(mode=0o700, exist_ok=True)
        try:
            box.state.mkdir(mode=0o700)
        except FileExistsError:
            raise BoxError(f"there is a box {name}: end it with `down {name}`") from None
        try:
            box._launch(plan or Plan(), owner)
            box.wait_booted()
        except BaseException:
            box.down()
            raise
        return box

    def down(self) -> None:
        """Power it off and remove every trace of it; harmless when there is none."""
        if not self.state.exists():
            return
        if self._supervised():
            with contextlib.suppress(OSError, BoxError):
                self._ask("down", timeout=END_WITHIN)
            # All is removed at its end; if those who do that were killed, it is left to us.
            deadline = time.monotonic() + REMOVED_WITHIN
            while self.state.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        self.remove_rests()

    def reboot(self) -> None:
        """Have its systemd reboot, and wait until it has; what it wrote stays."""
        before = self.leader
        self.shell("systemctl", "reboot", check=False)
        self._leader = int(self._ask(f"after {before}", timeout=BOOT_WITHIN))

    def wait_booted(self) -> None:
        """Return once it has booted; raises BoxError with what was said when it does not."""
        try:
            self._leader = int(self._ask("leader", timeout=BOOT_WITHIN))
        except (OSError, ValueError, BoxError) as error:
            log = self.state / "log"
            said = log.read_text(errors="replace")[-4000:] if log.exists() else "no log is left"
            raise BoxError(f"box {self.name} did not boot ({error})\n{said}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- use ----------------------------------------------------------------------------------

    @property
    def leader(self) -> int:
        """The process id, on the host, of its PID 1."""
        if self._leader is None:
            if not self.state.exists():
                raise BoxError(f"there is no box {self.name}")
            self._leader = int(self._ask("leader", timeout=BOOT_WITHIN))
        return self._leader

    @property
    def root(self) -> Path:
        """Its root folder as the host sees it, its /run and sockets included."""
        return Path(f"/proc/{self.leader}/root")

    def path(self, inside: str) -> Path:
        """Return where the host finds a file of the box."""
        return self.root / inside.lstrip("/")

    def entering(
        self, *command: str, network: bool = False, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return a command line for the host that runs a command inside, as root.

        `network`: with the host's network, to fetch packages; services are still reached over
        their Unix sockets.
        """
        namespaces = ["-m", "-u", "-i", "-p", "-C", *([] if network else ["-n"])]
        given = {**_ENVIRONMENT, **(environment or {})}
        if network:
            given |= {name: os.environ[name] for name in _PROXIES if name in os.environ}
        return [
            "nsenter",
            f"--target={self.leader}",
            *namespaces,
            "--",
            "setpriv",
            "--pdeathsig=KILL",  # what runs inside ends with who called it
            "--bounding-set=" + ",".join(f"-{name}" for name in _FORBIDDEN),
            "env",
            "--ignore-environment",
            *(f"{name}={value}" for name, value in given.items()),
            *command,
        ]

    def shell(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside, outside of all units; the quickest way."""
        return _run(self.entering(*command), **options)

    def with_network(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside with the host's network."""
        return _run(self.entering(*command, network=True), **options)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a unit of its own, with the real limits of one."""
        return _run(self.entering(*as_unit(*command)), **options)

    def on_its_network(self, work: Callable[[], T]) -> T:
        """Call a function whose new sockets belong to the box's network."""
        answers: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                _join_network(self.leader)
                answers.append(work())
            except BaseException as error:
                errors.append(error)

        # The network belongs to a thread; this one ends with the call.
        thread = threading.Thread(target=inside, name=f"box {self.name}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return answers[0]

    def push(self, source: Path, place: str) -> None:
        """Copy a file or folder of the host into the box."""
        _copy(source, self.path(place))

    def pull(self, place: str, target: Path) -> None:
        """Copy a file or folder of the box to the host."""
        _copy(self.path(place), target)

    # -- parts --------------------------------------------------------------------------------

    def _launch(self, plan: Plan, owner: int | None) -> None:
        (self.state / "plan.json").write_text(json.dumps(asdict(plan)))
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening,
            (self.state / "log").open("ab") as log,
        ):
            listening.bind(str(self._control))
            listening.listen(16)
            command = [sys.executable, "-m", "tools.box.supervisor", self.name]
            command += [str(listening.fileno()), str(owner or 0)]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )
        # A child that nobody waits for stays as a zombie.
        threading.Thread(target=process.wait, name=f"box {self.name}", daemon=True).start()

    @property
    def _control(self) -> Path:
        return self.state / "control"

    def _supervised(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self._control)) == 0

    def _ask(self, question: str, *, timeout: float) -> str:
        """Ask the supervisor, which answers when it can; "" when it has ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(self._control))
            connection.sendall(question.encode() + b"\n")
            with connection.makefile("rb") as file:
                answer = file.readline().decode().strip()
        if answer.startswith("error"):
            raise BoxError(answer.removeprefix("error "))
        return answer

    def remove_rests(self) -> None:
        """Kill what is left of it and remove its cgroups and its folder."""
        remove_cgroups(self.name)
        shutil.rmtree(self.state, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATES.rmdir()


def as_unit(*command: str) -> list[str]:
    """Return a command line for inside that runs a command as a unit of its own."""
    options = ["--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]
    return ["systemd-run", *options, "--setenv=LANG=C.UTF-8", "--", *command]


def _run(
    command: Sequence[str], *, check: bool = True, given: str = "", timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, input=given, timeout=timeout
    )
    if check and done.returncode:
        raise BoxError(
            f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", source, target], check=True)


def _join_network(leader: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{leader}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _check_host() -> None:
    if os.geteuid() != 0:
        raise BoxError("a box needs root")
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        raise BoxError(f"not found: {', '.join(missing)}; on Debian: apt-get install {PACKAGES}")
    if not any((place / "cgroup.procs").exists() for place in hierarchies()):
        raise BoxError("no cgroup2 is mounted")
