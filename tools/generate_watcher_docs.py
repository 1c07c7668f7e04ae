"""Make the table of docs/watcher.md from `customerd.watch.reconcile.TABLE`.

usage: python -m tools.generate_watcher_docs [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum

from customerd.watch.reconcile import TABLE, Row
from tools.generated import ROOT, write_or_check

TARGET = ROOT / "docs" / "watcher.md"
BEGIN = "<!-- made by tools/generate_watcher_docs.py: begin -->"
END = "<!-- made by tools/generate_watcher_docs.py: end -->"

_HEAD = (
    "| # | on chain | local status | and if | action | reason |",
    "| ---: | --- | --- | --- | --- | --- |",
)
_YES_NO = {
    "closed_by_guard": ("the guard closed it", "the customer's key closed it"),
    "guard_usable": ("the guard can act", "the guard cannot act"),
    "signer": ("a signer is attached", "no signer is attached"),
    "compared": ("compared since the start", "not compared since the start"),
}


def table() -> str:
    """Return the table in Markdown, one line per row of `TABLE`, in its order."""
    lines = [*_HEAD, *(_line(number, row) for number, row in enumerate(TABLE, start=1))]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return a document with what stands between its markers replaced; ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{TARGET.name} has lost its markers")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _line(number: int, row: Row) -> str:
    cells = (
        str(number),
        _any_of(row.chain),
        _any_of(row.local),
        _conditions(row),
        f"**{row.action.value}**",
        row.reason,
    )
    return f"| {' | '.join(cells)} |"


def _any_of(values: frozenset[Enum] | None) -> str:
    return "any" if values is None else _listed(values)


def _conditions(row: Row) -> str:
    conditions = []
    if row.final is not None:
        conditions.append(f"final: {_listed(row.final)}")
    if row.posted is not None:
        conditions.append(f"posted: {_listed(row.posted)}")
    if row.phase is not None:
        conditions.append(f"phase: {_listed(row.phase)}")
    for name, (yes, no) in _YES_NO.items():
        value = getattr(row, name)
        if value is not None:
            conditions.append(yes if value else no)
    return "; ".join(conditions)


def _listed(values: Iterable[Enum]) -> str:
    """Name some members of one enumeration in its order, or those that are missing if fewer."""
    chosen = set(values)
    members = list(type(next(iter(chosen))))
    others = [member for member in members if member not in chosen]
    if len(others) < len(chosen) and len(others) <= 2:
        return "not " + " or ".join(_name(member) for member in others)
    return ", ".join(_name(member) for member in members if member in chosen)


def _name(member: Enum) -> str:
    text = member.value if isinstance(member.value, str) else member.name
    return text.lower().replace("_", " ")


def main() -> int:
    """Write the document anew, or with `--check` compare it."""
    return write_or_check(TARGET, with_table(TARGET.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
