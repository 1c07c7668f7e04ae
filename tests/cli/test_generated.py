"""Committed files made from the methods are up to date."""

from __future__ import annotations

from tools import generate_cli


def test_the_commands_are_those_of_the_methods() -> None:
    """`customerctl/_commands.py` is what tools/generate_cli.py makes of the methods now."""
    assert generate_cli.TARGET.read_text(encoding="utf-8") == generate_cli.generate()
