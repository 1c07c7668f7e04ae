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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

GROUPS = (
    ("unit", "contract", "cli", "customerd", "service", "merchantd", "signer"),
    ("fault", "nine", "model", "soak", "recovery", "tokens", "journal"),
    ("flow", "chain", "chainfaults", "adversary", "postgres", "link"),
    ("debian", "systemd", "thief"),
)
NEED_MACHINES = frozenset({"debian", "systemd"})
"""Folders whose tests boot a machine; where none can be, they are left out, and that is told."""
NEED_ROOT = NEED_MACHINES | {"journal"}
CANNOT_BOOT = 125
"""What tools/box ends with when no machine comes up."""
ROOT = Path("tests")
NOTHING_SELECTED = 5  # of a group, by options such as -k
_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped)")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/(?!unit/)\S+?::.*?)(?: - .*)?$", re.MULTILINE)
TRIED_AGAIN = 3
"""At most so many tests of real processes are tried once more, alone, and that is told: a machine
that is shared may keep them waiting too long beside the others. More is no accident."""


def main() -> int:
    """Run the groups; 0 when every test passed."""
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("test_*.py")}
    if unlisted := folders - {name for group in GROUPS for name in group}:
        sys.stderr.write(f"in no group of tools/test.py: {', '.join(sorted(unlisted))}\n")
        return 1
    left_out, why = _left_out()
    started = [_start(tuple(name for name in group if name not in left_out)) for group in GROUPS]
    counted = {"passed": 0, "failed": 0, "skipped": 0}
    good, failed_tests = True, list[str]()
    for group, code, text in _as_they_end(started):
        sys.stdout.write(f"== {', '.join(group)}\n{text}\n")
        sys.stdout.flush()
        for number, what in _COUNTED.findall(text.rstrip().rpartition("\n")[2]):
            counted["failed" if what == "error" else what] += int(number)
        good &= code in (0, NOTHING_SELECTED)
        failed_tests += _FAILED.findall(text)
    if not good and counted["failed"] == len(failed_tests) <= TRIED_AGAIN:
        good = _pass_alone(failed_tests)
        if good:
            counted["passed"] += counted["failed"]
            counted["failed"] = 0
    if left_out:
        sys.stdout.write(f"NOT TESTED: {', '.join(sorted(left_out))}: {why}\n")
    if (share := int(os.environ.get("TEST_SHARE", "1"))) > 1:
        sys.stdout.write(f"one of {share} slow tests was taken today: make test-all takes all\n")
    skipped = f", {counted['skipped']} skipped" if counted["skipped"] else ""
    failed = counted["failed"] or int(not good)
    sys.stdout.write(f"{counted['passed']} passed, {failed} failed{skipped}\n")
    return int(not good)


def _pass_alone(names: list[str]) -> bool:
    """Try failed tests once more, with nothing else at work; say what came of it."""
    done = subprocess.run([sys.executable, "-m", "pytest", *names], check=False)
    outcome = "passed only alone" if done.returncode == 0 else "failed alone, too"
    sys.stdout.write(f"{outcome}: {', '.join(names)}\n")
    return done.returncode == 0


def _left_out() -> tuple[frozenset[str], str]:
    """Return the folders that cannot be tested here, and why not."""
    if os.geteuid():
        return NEED_ROOT, "they need root"
    command = [sys.executable, "-m", "tools.box", "with", f"customerd-try-{os.getpid()}"]
    tried = subprocess.run([*command, "--", "true"], capture_output=True, text=True, check=False)
    if tried.returncode == CANNOT_BOOT:
        return NEED_MACHINES, f"no machine can be booted here: {tried.stderr.strip()}"
    return frozenset(), ""


def _start(group: tuple[str, ...]) -> tuple[tuple[str, ...], subprocess.Popen[str], IO[str]]:
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it outlives this function
    command = [sys.executable, "-m", "pytest", *(str(ROOT / name) for name in group), *sys.argv[1:]]
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
    return group, process, output


def _as_they_end(
    started: list[tuple[tuple[str, ...], subprocess.Popen[str], IO[str]]],
) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """Wait for the groups; yield each with its exit code and all it said."""
    with ThreadPoolExecutor(max_workers=len(started)) as waiting:
        ends = {waiting.submit(process.wait): (group, said) for group, process, said in started}
        for end in as_completed(ends):
            group, said = ends[end]
            said.seek(0)
            yield group, end.result(), said.read()


if __name__ == "__main__":
    sys.exit(main())
