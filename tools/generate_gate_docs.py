"""Make the table in `docs/gate.md` from the methods' declared needs.

usage: python -m tools.generate_gate_docs [--check | --print]
"""

from __future__ import annotations

import sys

from customerd.rpc.gate import CONDITIONS, verdict
from customerd.rpc.methods import METHODS
from tools.generated import ROOT, write_or_check

TARGET = ROOT / "docs" / "gate.md"

BEGIN = "<!-- made by tools/generate_gate_docs.py: begin -->"
END = "<!-- made by tools/generate_gate_docs.py: end -->"

SITUATIONS: dict[str, frozenset[str]] = {
    "ready": frozenset(),
    "safe": frozenset({"safe_mode"}),
    "chain away": frozenset({"chain_unavailable"}),
    "database away": frozenset({"database_unavailable"}),
    "safe, chain away": frozenset({"safe_mode", "chain_unavailable"}),
    "safe, database away": frozenset({"safe_mode", "database_unavailable"}),
    "all away": frozenset({"safe_mode", "chain_unavailable", "database_unavailable"}),
    "starting, standby, stopping": frozenset(condition.kind for condition in CONDITIONS),
}
"""What is missing in each situation, by the kind of error that tells it."""

ANSWERED = "answered"


def cell(needs: str, missing: frozenset[str]) -> str:
    """Say what becomes of a method with these needs where this is missing."""
    found = verdict(needs, missing)
    return ANSWERED if found is None else found.kind


def table() -> str:
    """Return the rows: one method each, one situation a column."""
    columns = list(SITUATIONS)
    lines = [
        f"| method | needs | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for method in METHODS:
        cells = [cell(method.needs, SITUATIONS[name]) for name in columns]
        shown = " | ".join(word if word == ANSWERED else f"`{word}`" for word in cells)
        lines.append(f"| `{method.name}` | {method.needs} | {shown} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return the document with the table as it is now; raises ValueError if it has no place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{TARGET.name} has no place for the table")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        print(table())
        sys.exit(0)
    sys.exit(write_or_check(TARGET, with_table(TARGET.read_text(encoding="utf-8"))))
