"""Writes to standard output: drawn on a terminal, plain elsewhere, JSON when asked for."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

    from customerctl.screens import Block


def is_terminal(stream: TextIO) -> bool:
    """Tell whether somebody looks at this stream."""
    return not stream.closed and stream.isatty()


def print_blocks(blocks: Sequence[Block]) -> None:
    """Show blocks, at once."""
    if is_terminal(sys.stdout):
        from customerctl.terminal import draw

        draw(blocks)
    else:
        from customerctl.plain import render

        sys.stdout.write(render(blocks))
    sys.stdout.flush()


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON in ASCII, at once."""
    import json

    print(json.dumps(value, indent=None if one_line else 2), flush=True)
