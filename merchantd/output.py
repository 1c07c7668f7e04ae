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
    cells = [[_cell(row[field]) for field in columns.values()] for row in rows]
    if not sys.stdout.isatty():
        for line in cells:
            sys.stdout.write("\t".join(line) + "\n")
        return
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None)
    for heading in columns:
        # What is left of an id that does not fit names its channel all the same.
        table.add_column(heading, no_wrap=True, overflow="crop")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


def show_record(row: Row) -> None:
    """Print the fields of one row, one per line; of an amount the text, not the units."""
    shown = {
        name.removesuffix("_text").replace("_", " "): value
        for name, value in row.items()
        if f"{name}_text" not in row
    }
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        sys.stdout.write(f"{name.ljust(width)}  {_cell(value)}\n")


def _cell(value: str | int | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A customer's note must not steer the operator's terminal.
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value)
    )
