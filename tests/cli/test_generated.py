"""Committed files made from the methods are up to date."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tools import generate_cli, generate_rpc_docs
from tools.generated import ROOT


def test_the_commands_are_those_of_the_methods() -> None:
    """`customerctl/_commands.py` is what tools/generate_cli.py makes of the methods now."""
    assert generate_cli.TARGET.read_text(encoding="utf-8") == generate_cli.generate()


def test_the_documentation_is_that_of_the_methods() -> None:
    """`docs/rpc.md` is what tools/generate_rpc_docs.py makes of the methods now."""
    assert generate_rpc_docs.TARGET.read_text(encoding="utf-8") == generate_rpc_docs.generate()


def test_every_link_in_the_documentation_leads_somewhere() -> None:
    """Every reference inside `docs/rpc.md` has exactly one heading."""
    text = generate_rpc_docs.generate()
    headings = [
        title.lower().replace(".", "").replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    ]
    for anchor in re.findall(r"\(#([^)]+)\)", text):
        assert headings.count(anchor) == 1, anchor


@pytest.mark.parametrize("tool", ["generate_cli", "generate_rpc_docs", "generate_man"])
def test_the_tools_tell_what_is_out_of_date(tool: str) -> None:
    """`--check` exits 0 when the committed file is current, and writes nothing."""
    done = subprocess.run(
        [sys.executable, "-m", f"tools.{tool}", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
