"""A real journald of the test's own, in mounts where nothing of the machine's journal is.

Root is needed, and systemd's package; it does not have to run the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from zkchannels.devnet.service import Service

JOURNALD = "/lib/systemd/systemd-journald"
CATALOGUES = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
PATIENCE = 60.0
Entry = dict[str, Any]

_START = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d
printf '%s\\n' '[Journal]' Storage=volatile ReadKMsg=no Audit=no RateLimitBurst=0 \\
    ForwardToSyslog=no ForwardToWall=no RuntimeMaxUse=256M > /run/systemd/journald.conf.d/test.conf
mkdir /run/etc /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
echo 6d3c1c4df6e24d0e8b5bb9d38c1d0d2f > /etc/machine-id
test ! -e /dev/kmsg || mount --bind /dev/null /dev/kmsg
mkdir /run/catalog
cp "$0"/*.catalog /run/catalog
mount --bind /run/catalog /usr/lib/systemd/catalog
mount -t tmpfs tmpfs /var/lib/systemd
mkdir /var/lib/systemd/catalog
journalctl --update-catalog
SYSTEMD_LOG_TARGET=null exec "$1"
"""


class Journald:
    """A running journald; a context manager that ends it."""

    def __init__(self, directory: Path) -> None:
        apart = ["unshare", "--mount", "--propagation", "private", "--"]
        command = [*apart, "sh", "-c", _START, str(CATALOGUES), JOURNALD]
        # `unshare` is searched for in PATH by env, as the launcher wants a whole path.
        self.service = Service(
            "journald", ["/usr/bin/env", *command], log=directory / "journald.log"
        )

    def __enter__(self) -> Self:
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop()

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command where this journal is the machine's."""
        target = ["--target", str(self.service.pid), "--mount", f"--wd={Path.cwd()}"]
        return ["/usr/bin/env", "nsenter", *target, "--", *command]

    def connected(self, identifier: str, *command: str) -> list[str]:
        """The same, with the output led into the journal."""
        script = str(Path(__file__).with_name("connected.py"))
        return self.inside(sys.executable, script, identifier, *command)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever its exit code."""
        return subprocess.run(
            self.inside(*command), capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def read(self, *matches: str) -> list[Entry]:
        """Return the entries that match, oldest first, with all their fields."""
        assert self.run("journalctl", "--sync").returncode == 0
        done = self.run("journalctl", "--output=json", "--all", "--no-pager", *matches)
        assert done.returncode in (0, 1), done
        return [json.loads(line) for line in done.stdout.splitlines()]

    def until(self, holds: Callable[[list[Entry]], object], *matches: str) -> list[Entry]:
        """Return the entries once the condition holds for them."""
        ends = time.monotonic() + PATIENCE
        while not holds(found := self.read(*matches)):
            assert time.monotonic() < ends, Counter(entry.get("EVENT") for entry in found)
        return found

    def export(self) -> bytes:
        """Return everything in the journal as it is, every field of every entry."""
        assert self.run("journalctl", "--sync").returncode == 0
        command = self.inside("journalctl", "--output=export", "--all", "--no-pager")
        return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout


def python(journald: Journald, code: str, *arguments: str) -> Sequence[str]:
    """The command line of a program given as text, logging into the journal."""
    return journald.connected("program", sys.executable, "-c", code, *arguments)
