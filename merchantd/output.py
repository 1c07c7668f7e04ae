"""What commands show: a table for people on a terminal, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import msgspec

Row = Mapping[str, str | int | bool | None]


def show_json(value: object) -> None:
    """Print one JSON document."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def show_table(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Print fields of rows under headings (heading to field); tab-separated when it is piped."""
    if not sys.stdout.isatty():
        for row in rows:
            cells = [_cell(row[field]) for field in columns.values()]
            sys.stdout.write("\t".join(cells) + "\n")
        return
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None)
    for heading in columns:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(_cell(row[field]) for field in columns.values()))
    Console().print(table)


def show_record(row: Row) -> None:
    """Print the fields of one row, one per line."""
    width = max(len(name) for name in row)
    for name, value in row.items():
        sys.stdout.write(f"{name.ljust(width)}  {_cell(value)}\n")


def _cell(value: str | int | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
