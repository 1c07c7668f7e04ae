"""What a start may cost: which modules a command imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.owner import Owner
from tests.cli.running import SECONDS, Customerctl

ROOT = Path(__file__).resolve().parents[2]
SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "enum",
    "inspect",
    "json",
    "msgspec",
    "re",
    "rich",
    "socket",
    "subprocess",
    "threading",
    "typing",
}
IMPORTED = (
    "import sys; sys.path.append(sys.argv.pop(1)); before = set(sys.modules); "
    "from customerctl.__main__ import main; code = main(sys.argv[1:]); "
    "print(*(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
)


@pytest.mark.parametrize(
    "arguments", [("getinfo",), ("list",), ("show", "coffee"), ("pay", "coffee", "0.005", "ETH")]
)
def test_the_usual_commands_import_nothing_slow(
    owner: Owner, customerctl: Customerctl, arguments: tuple[str, ...]
) -> None:
    """The usual commands, piped, import neither argparse nor rich nor what those bring along."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORTED, str(ROOT), *arguments],
        env=customerctl.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    imported = set(done.stderr.split())
    assert done.returncode == 0, done.stderr
    assert "customerctl.calls" in imported
    assert not imported & SLOW
