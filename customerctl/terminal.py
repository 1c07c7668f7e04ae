"""Shows blocks on a terminal, with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from customerctl.screens import Fields, Line, Raw
from customerctl.words import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from customerctl.screens import Block, Cell, Table

STYLES = {
    "": "",
    "good": "green",
    "warning": "bold yellow",
    "bad": "bold red",
    "dim": "dim",
    "strong": "bold",
}


def draw(blocks: Sequence[Block]) -> None:
    """Draw blocks on standard output."""
    console = Console(highlight=False, markup=False, emoji=False)
    for block in blocks:
        if isinstance(block, Raw):
            console.out(block.text.rstrip("\n"), highlight=False)
        elif isinstance(block, Line):
            # Not broken here: what can be copied from a line must stay in one piece.
            console.print(Text(clean(block.text), style=STYLES[block.mood]), soft_wrap=True)
        elif isinstance(block, Fields):
            _draw_fields(console, block)
        else:
            _draw_table(console, block)


def _text(cell: Cell) -> Text:
    words, mood = (cell, "") if isinstance(cell, str) else cell
    return Text(clean(words), style=STYLES[mood], overflow="fold")


def _draw_fields(console: Console, block: Fields) -> None:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in block.rows:
        grid.add_row(name, _text(value))
    title = _text(block.title)
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


def _draw_table(console: Console, block: Table) -> None:
    if not block.rows:
        console.print(Text(block.empty, style="dim"), soft_wrap=True)
        return
    table = RichTable(box=box.SIMPLE_HEAD, header_style="cyan", pad_edge=False, padding=(0, 1))
    for name in block.columns:
        table.add_column(
            name.removesuffix(">"),
            justify="right" if name.endswith(">") else "left",
            no_wrap=name in block.whole,
            overflow="fold",
        )
    for row in block.rows:
        table.add_row(*(_text(cell) for cell in row))
    console.print(Padding(table, (0, 0, 0, 1)))
