"""Cuts a stream of bytes into lines of bounded length; holds no more than one unfinished line."""

from __future__ import annotations


class LineReader:
    """Lines of at most `max_line` bytes, without their newline; longer ones are passed over.

    An oversize line is reported once, as None, as soon as it is known to be too long.
    """

    __slots__ = ("_max_line", "_partial", "_skipping")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._partial = bytearray()
        self._skipping = False

    @property
    def unfinished(self) -> tuple[bytes, bool]:
        """The beginning of a line, and whether the rest of one is passed over."""
        return bytes(self._partial), self._skipping

    def go_on(self, partial: bytes, *, skipping: bool) -> None:
        """Go on where another reader ended, as its `unfinished` says."""
        self._partial = bytearray(partial)
        self._skipping = skipping

    def feed(self, data: bytes) -> list[bytes | None]:
        """Take in received bytes; return the lines that they complete, in order."""
        pieces = data.split(b"\n")
        rest = pieces.pop()
        lines: list[bytes | None] = []
        for piece in pieces:
            if self._skipping:
                self._skipping = False
                continue
            if self._partial:
                self._partial += piece
                piece = bytes(self._partial)  # noqa: PLW2901 - completes what came before
                self._partial = bytearray()
            lines.append(piece if len(piece) <= self._max_line else None)
        if rest and not self._skipping:
            self._partial += rest
            if len(self._partial) > self._max_line:
                self._partial = bytearray()
                self._skipping = True
                lines.append(None)
        return lines
