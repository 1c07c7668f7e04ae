"""The table in docs/watcher.md is the one the watcher acts by."""

from __future__ import annotations

import re

import pytest

from customerd.watch.reconcile import TABLE
from tools import generate_watcher_docs

RULE = re.compile(r"\(([a-z0-9-]+(?:, [a-z0-9-]+)*)\)$")


def text() -> str:
    """The document as it is committed."""
    return generate_watcher_docs.TARGET.read_text(encoding="utf-8")


def test_the_documented_table_is_the_one_in_force() -> None:
    """docs/watcher.md is what tools/generate_watcher_docs.py makes of the table now."""
    assert text() == generate_watcher_docs.with_table(text())


def test_every_row_is_told_with_action_and_reason() -> None:
    """The table has one line per row, in its order, with the row's action and reason."""
    lines = generate_watcher_docs.table().splitlines()[2:]
    assert len(lines) == len(TABLE)
    for number, (line, row) in enumerate(zip(lines, TABLE, strict=True), start=1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 6
        assert (cells[0], cells[4], cells[5]) == (
            str(number),
            f"**{row.action.value}**",
            row.reason,
        )


def test_every_rule_that_a_reason_names_is_explained() -> None:
    """What stands in brackets behind a reason is an entry of the list of rules."""
    for row in TABLE:
        named = RULE.search(row.reason)
        for rule in named[1].split(", ") if named else ():
            assert f"**{rule}**" in text(), rule


def test_a_document_without_markers_is_refused() -> None:
    """The tool never writes over a document that it does not recognise."""
    with pytest.raises(ValueError, match="markers"):
        generate_watcher_docs.with_table("no table here")
