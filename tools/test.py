"""Run all tests, in groups side by side: most of them wait for other processes.

python -m tools.test [options of pytest]. Each group is one pytest in random order; what it said is
shown when it ends. The last line counts everything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

GROUPS = (
    ("unit", "contract", "cli", "customerd", "service", "merchantd", "signer"),
    ("fault", "nine", "model", "soak", "recovery", "tokens", "journal"),
    ("flow", "chain", "chainfaults", "adversary", "postgres", "link"),
    ("debian", "systemd", "thief"),
)
NEED_ROOT = frozenset({"debian", "journal", "systemd"})
"""Folders whose tests boot a machine of their own; others than root go without, and are told."""
ROOT = Path("tests")
NOTHING_SELECTED = 5  # of a group, by options such as -k
_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped)")


def main() -> int:
    """Run the groups; 0 when every test passed."""
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("test_*.py")}
    if unlisted := folders - {name for group in GROUPS for name in group}:
        sys.stderr.write(f"in no group of tools/test.py: {', '.join(sorted(unlisted))}\n")
        return 1
    left_out = NEED_ROOT if os.geteuid() else frozenset()
    if left_out:
        sys.stderr.write(f"left out, they need root: {', '.join(sorted(left_out))}\n")
    started = [_start(tuple(name for name in group if name not in left_out)) for group in GROUPS]
    counted = {"passed": 0, "failed": 0, "skipped": 0}
    good = True
    for group, process, output in started:
        code = process.wait()
        output.seek(0)
        text = output.read()
        sys.stdout.write(f"== {', '.join(group)}\n{text}\n")
        sys.stdout.flush()
        for number, what in _COUNTED.findall(text.rstrip().rpartition("\n")[2]):
            counted["failed" if what == "error" else what] += int(number)
        good &= code in (0, NOTHING_SELECTED)
    if (share := int(os.environ.get("TEST_SHARE", "1"))) > 1:
        sys.stdout.write(f"one of {share} slow tests was taken today: make test-all takes all\n")
    skipped = f", {counted['skipped']} skipped" if counted["skipped"] else ""
    failed = counted["failed"] or int(not good)
    sys.stdout.write(f"{counted['passed']} passed, {failed} failed{skipped}\n")
    return int(not good)


def _start(group: tuple[str, ...]) -> tuple[tuple[str, ...], subprocess.Popen[str], IO[str]]:
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it outlives this function
    command = [sys.executable, "-m", "pytest", *(str(ROOT / name) for name in group), *sys.argv[1:]]
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
    return group, process, output


if __name__ == "__main__":
    sys.exit(main())
