"""SECURITY.md names the tests that show what it says."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_row_names_tests_that_exist() -> None:
    """Each row of "what to do" names a file here, and tests in it, and every test is named."""
    text = (HERE.parents[1] / "SECURITY.md").read_text()
    section = text.split("### What to do, and which tests show it")[1].split("\n## ")[0]
    rows = re.findall(r"\| `(test_\w+\.py)`: (.*) \|$", section, re.MULTILINE)
    assert len(rows) > 10
    named: dict[str, set[str]] = {}
    for file, tests in rows:
        defined = set(re.findall(r"def test_(\w+)\(", (HERE / file).read_text()))
        found = set(re.findall(r"`(\w+)`", tests)) or defined
        assert found <= defined, found - defined
        named.setdefault(file, set()).update(found)
    for path in HERE.glob("test_*.py"):
        if path.name != Path(__file__).name:
            defined = set(re.findall(r"def test_(\w+)\(", path.read_text()))
            assert named.get(path.name) == defined, path.name
