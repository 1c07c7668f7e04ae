"""Committed files that are made from the code: written by their tool, compared with `--check`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def formatted(source: str) -> str:
    """Return Python source in the project's format."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "generated.py", "-"]
    return subprocess.run(
        command, input=source, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def write_or_check(path: Path, text: str) -> int:
    """Write `text`, or with `--check` compare it; return the exit code."""
    name = path.relative_to(ROOT)
    if "--check" not in sys.argv[1:]:
        path.write_text(text, encoding="utf-8")
        print(name)
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    tool = Path(sys.argv[0]).stem
    print(f"{name} is out of date: run python -m tools.{tool}", file=sys.stderr)
    return 1
