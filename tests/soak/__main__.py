"""Random histories for as long as it is told to; the last line says what was done and lost.

python -m tests.soak [--minutes M] [--seed S]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.lab import Lab
from tests.soak.machine import Tally, run_histories

HISTORIES_PER_NETWORK = 5
STEPS = 25


def main() -> int:
    """Run histories on one network after the other; 0 when none lost anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    tally, seed = Tally(), options.seed
    end = time.monotonic() + options.minutes * 60
    while time.monotonic() < end:
        _say(f"seed {seed}")
        with (
            tempfile.TemporaryDirectory(prefix="soak-", dir="/dev/shm") as directory,
            Lab(Path(directory) / "network", proxied=True) as lab,
        ):
            try:
                run_histories(lab, tally, histories=HISTORIES_PER_NETWORK, steps=STEPS, seed=seed)
            except BaseException:
                _say(f"seed {seed} failed after {tally.line()}\n{_logs(Path(directory))}")
                raise
        seed += 1
        _say(tally.line())
    _say(f"soak: {tally.line()}")
    return 0


def _logs(directory: Path, lines: int = 60) -> str:
    """Return the ends of all programs' logs."""
    parts = []
    for path in sorted(directory.rglob("*.log")):
        if path.name == "postgres.log":
            continue
        last = path.read_text(errors="replace").splitlines()[-lines:]
        parts.append("\n".join([f"--- {path.relative_to(directory)}", *last]))
    return "\n".join(parts)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
