"""What a command costs beside starting Python and doing nothing.

Both take turns in each round, so that noise meets them alike, on one processor; the least time of
each counts: on the clock, and of the processor alone, which a busy machine disturbs less. They
start in two places: a fresh environment into which the packages are copied and compiled as an
installation does (`installed`, the strict one), and the environment this runs in (`here`), where
starting Python itself takes longer. The daemon's place is taken by a peer with all its methods.
Run it as `python bench/cli.py`, with `--json` for a program to read.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.cli.owner import Owner

ROOT = Path(__file__).resolve().parents[1]
TARGET = 2.0
SCRIPT = """\
#!{python}
import sys
from customerctl.__main__ import main
if __name__ == '__main__':
    sys.exit(main())
"""


def install(place: Path) -> Path:
    """Make an environment with what the command line needs and its console script."""
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    packages = place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for name in ("customerctl", "zkchannels"):
        shutil.copytree(ROOT / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(packages, quiet=2)
    script = place / "bin" / "customerctl"
    script.write_text(SCRIPT.format(python=python))
    script.chmod(0o755)
    return place / "bin"


def commands(installed: Path) -> dict[str, list[str]]:
    """Return what is compared, by name."""
    python, here = str(installed / "python"), sys.executable
    return {
        "installed: python -c pass": [python, "-c", "pass"],
        "installed: customerctl getinfo": [str(installed / "customerctl"), "getinfo"],
        "installed: customerctl --version": [str(installed / "customerctl"), "--version"],
        "here: python -c pass": [here, "-c", "pass"],
        "here: python -m customerctl getinfo": [here, "-m", "customerctl", "getinfo"],
        "here: ... getinfo --json": [here, "-m", "customerctl", "getinfo", "--json"],
        "here: ... history --limit 5 (argparse)": [
            *(here, "-m", "customerctl", "history", "--limit", "5")
        ],
    }


def measure(
    timed: dict[str, list[str]], socket: Path, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the milliseconds of each command in each round: on the clock, of the processor."""
    environment = {**os.environ, "CUSTOMERD_SOCKET": str(socket)}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH"):
        environment.pop(name, None)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, command in timed.items():
            began = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            clock = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"failed: {' '.join(command)}")
            if number:  # the first round fills caches
                taken[name].append((clock * 1000, (usage.ru_utime + usage.ru_stime) * 1000))
    return taken


def compare(taken: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return the least times of each command and their ratios to doing nothing at its place."""
    least = {
        name: tuple(min(column) for column in zip(*times, strict=True))
        for name, times in taken.items()
    }
    found = {}
    for name, (clock, processor) in least.items():
        floor = least[f"{name.partition(':')[0]}: python -c pass"]
        found[name] = {
            "clock": clock,
            "clock_ratio": clock / floor[0],
            "processor": processor,
            "processor_ratio": processor / floor[1],
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        timed = commands(install(place / "environment"))
        with Owner(place / "customerd.sock") as owner:
            taken = measure(timed, owner.path, options.rounds)
    found = compare(taken)
    if options.json:
        print(json.dumps({"target": TARGET, "commands": found}, indent=1))
    else:
        print(f"{'least milliseconds':<40}{'clock':>9}{'ratio':>7}{'processor':>12}{'ratio':>7}")
        for name, one in found.items():
            print(
                f"{name:<40}{one['clock']:>9.1f}{one['clock_ratio']:>7.2f}"
                f"{one['processor']:>12.1f}{one['processor_ratio']:>7.2f}"
            )
    return int(found["installed: customerctl getinfo"]["clock_ratio"] > TARGET)


if __name__ == "__main__":
    sys.exit(main())
