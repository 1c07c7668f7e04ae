"""How a test arms a boundary inside a running program, and reads which ones were passed.

A program has one control file. Its first bytes hold what is armed, so that arming takes one write
and no restart; the passed boundaries are appended to a second file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

SIZE = 1024
"""Bytes of the control file: what is armed, filled up with spaces."""

When = Literal["before", "after"]
Action = Literal["kill", "stop"]


@dataclass(frozen=True, slots=True)
class Armed:
    """What to do at which passing of a boundary, counted from the arming."""

    name: str
    when: When
    passing: int = 1
    action: Action = "kill"
    token: int = 0
    """Tells one arming from the next."""

    def encode(self) -> bytes:
        """Return the bytes of the control file."""
        text = json.dumps(asdict(self)).encode()
        assert len(text) <= SIZE
        return text.ljust(SIZE)

    @classmethod
    def decode(cls, text: bytes) -> Self | None:
        """Read the control file; None when nothing is armed."""
        text = text.strip()
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True, slots=True)
class Passage:
    """One recorded passage of a boundary."""

    pid: int
    when: When
    name: str
    fired: bool


def recording_of(control: Path) -> Path:
    """Return the file in which the passages of a program are recorded."""
    return control.with_suffix(".passages")


class Control:
    """The test's side: arms one program, and reads what it passed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokens = 0
        recording_of(path).touch()
        path.write_bytes(b"".ljust(SIZE))

    def arm(self, name: str, when: When, *, passing: int = 1, action: Action = "kill") -> None:
        """Have the program end (or stop) itself at the n-th passing of a boundary from now on."""
        self._tokens += 1
        self._write(Armed(name, when, passing, action, self._tokens).encode())

    def disarm(self) -> None:
        """Let the program pass everything."""
        self._write(b"".ljust(SIZE))

    def _write(self, text: bytes) -> None:
        # In place: the program keeps the file open.
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), text, 0)

    def position(self) -> int:
        """Return where the recording ends now, to read on from there."""
        return recording_of(self.path).stat().st_size

    def passages(self, since: int = 0) -> list[Passage]:
        """Return what was passed since a position."""
        with recording_of(self.path).open("rb") as file:
            file.seek(since)
            lines = file.read().decode().splitlines()
        return [_passage(line) for line in lines]

    def fired(self, since: int = 0) -> bool:
        """Return whether the program ended or stopped itself since a position."""
        return any(passage.fired for passage in self.passages(since))


def _passage(line: str) -> Passage:
    pid, when, fired, name = line.split(" ", 3)
    assert when in ("before", "after")
    return Passage(int(pid), "before" if when == "before" else "after", name, fired == "!")


def names(passages: Iterable[Passage]) -> list[str]:
    """Return the names in the order of their first passage, each once."""
    return list(dict.fromkeys(passage.name for passage in passages))
