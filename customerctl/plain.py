"""Shows blocks as plain aligned text, for pipes and files."""

from __future__ import annotations

from customerctl.screens import Fields, Line, Raw
from customerctl.words import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from customerctl.screens import Block, Cell, Table


def render(blocks: Sequence[Block]) -> str:
    """Return the text that shows these blocks; blocks of several lines stand apart."""
    parts: list[str] = []
    for number, block in enumerate(blocks):
        if isinstance(block, Raw):
            parts.append(block.text if block.text.endswith("\n") else f"{block.text}\n")
        elif isinstance(block, Line):
            parts.append(f"{clean(block.text)}\n")
        else:
            lines = _fields(block) if isinstance(block, Fields) else _table(block)
            separation = "\n" if number else ""
            parts.append(separation + "".join(f"{line}\n" for line in lines))
    return "".join(parts)


def _text(cell: Cell) -> str:
    return clean(cell if isinstance(cell, str) else cell[0])


def _fields(block: Fields) -> list[str]:
    title = _text(block.title)
    width = max((len(name) for name, _ in block.rows), default=0)
    rows = [f"{name:<{width}}  {_text(value)}".rstrip() for name, value in block.rows]
    return [title, *rows] if title else rows


def _table(block: Table) -> list[str]:
    if not block.rows:
        return [block.empty]
    right = [name.endswith(">") for name in block.columns]
    rows = [[name.removesuffix(">") for name in block.columns]]
    rows += [[_text(cell) for cell in row] for row in block.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(block.columns))]
    return [
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
