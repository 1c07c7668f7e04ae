"""A QR code as text for a terminal."""

from __future__ import annotations

_QUIET = 2
"""Modules of light border: readers manage with fewer than the standard's four."""
_HALVES = {(1, 1): " ", (1, 0): "▄", (0, 1): "▀", (0, 0): "█"}
"""A character shows two modules, one above the other; what is light is drawn."""


def qr_code(text: str) -> str:
    """Return a QR code of a text, for light characters on a dark ground, two rows in each line."""
    import segno  # noqa: PLC0415 - once in a daemon's life

    matrix = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(1, _QUIET)]
    if len(matrix) % 2:
        matrix.append([0] * len(matrix[0]))
    return "".join(
        "".join(_HALVES[above, below] for above, below in zip(upper, lower, strict=True)) + "\n"
        for upper, lower in zip(matrix[::2], matrix[1::2], strict=True)
    )
