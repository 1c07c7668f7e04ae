"""Shows blocks on a terminal, with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from customerctl.screens import Fields, Line, Raw, Table
from customerctl.words import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from customerctl.screens import Block, Cell

STYLES = {
    "": "",
    "good": "green",
    "warning": "bold yellow",
    "bad": "bold red",
    "dim": "dim",
    "strong": "bold",
}
GAP = 2
LEAST_WIDTH = 8
"""Columns of a terminal, below which broken text is harder to read than a list."""


def draw(blocks: Sequence[Block]) -> None:
    """Draw blocks on standard output."""
    console = Console(highlight=False, markup=False, emoji=False)
    for number, block in enumerate(blocks):
        if number and isinstance(block, Fields | Table):
            console.print()
        if isinstance(block, Raw):
            console.out(block.text.rstrip("\n"), highlight=False)
        elif isinstance(block, Line):
            text = Text(clean(block.text), style=STYLES[block.mood], overflow="fold")
            console.print(text, soft_wrap=block.whole)
        elif isinstance(block, Fields):
            _draw_fields(console, block)
        else:
            _draw_table(console, block)


def _text(cell: Cell) -> Text:
    words, mood = (cell, "") if isinstance(cell, str) else cell
    return Text(clean(words), style=STYLES[mood], overflow="fold")


def _grid(rows: Sequence[tuple[str, Cell]]) -> RichTable:
    grid = RichTable.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, _text(value))
    return grid


def _draw_fields(console: Console, block: Fields) -> None:
    grid = _grid(block.rows)
    title = _text(block.title)
    title.stylize("bold not dim")
    if not title.plain:
        console.print(grid)
        return
    console.print(
        Panel(
            grid,
            title=title,
            title_align="left",
            box=box.HORIZONTALS,
            padding=0,
            border_style="dim",
            expand=False,
        )
    )


def _fits(block: Table, width: int) -> bool:
    """Tell whether the columns have room, those that may be broken at least their least width."""
    needed = 0
    for number, name in enumerate(block.columns):
        natural = max(_text(cell).cell_len for cell in [name, *(row[number] for row in block.rows)])
        needed += GAP + (natural if name in block.whole else min(natural, LEAST_WIDTH))
    return needed - GAP <= width


def _draw_table(console: Console, block: Table) -> None:
    if not block.rows:
        console.print(Text(block.empty, style="dim"), soft_wrap=True)
        return
    if not _fits(block, console.width):
        names = [name.removesuffix(">") for name in block.columns]
        for number, row in enumerate(block.rows):
            if number:
                console.print()
            console.print(_grid([pair for pair in zip(names, row, strict=True) if pair[1]]))
        return
    table = RichTable(box=None, header_style="cyan", pad_edge=False, padding=(0, GAP, 0, 0))
    for name in block.columns:
        table.add_column(
            name.removesuffix(">"),
            justify="right" if name.endswith(">") else "left",
            no_wrap=name in block.whole,
            overflow="fold",
        )
    for row in block.rows:
        table.add_row(*(_text(cell) for cell in row))
    console.print(table)
