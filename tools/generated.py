"""Committed files that are made from the code: written by their tool, compared with `--check`."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def field_docs(kind: type) -> dict[str, str]:
    """Return the text that follows each field in the source of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[statement.target.id] = inspect.cleandoc(str(after.value.value))
    return found


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
