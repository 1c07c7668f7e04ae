"""What was spent within the last hour and day: exact sliding windows, and a clock that only
goes forward. Pure, but for the two clocks that are read.

Times are whole seconds. What was counted in second s is within the window of length L at second t
as long as t - s <= L, so that no stretch of L seconds ever holds more than a limit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

HOUR: Final = 3600
DAY: Final = 24 * HOUR

Kind = Literal["payment", "deposit", "pull", "fee", "defence"]
"""`deposit`: promised by a proof; `pull`: what a signed transaction or permit can take from the
account; `fee` and `defence`: what a signed transaction can cost at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was counted, under a name of its own: repeated, it is counted once.

    asset: address of the token, zeros for the chain's coin; amount: base units of it, positive
    """

    kind: Kind
    asset: bytes
    subject: bytes
    at: int
    amount: int


class Clock:
    """Seconds that never go back, and jump nowhere while the process runs.

    The wall clock is read once, at the start, and only believed as far as it is not behind the
    newest count (`mark`). From there on the steady clock alone counts, which nobody can set.
    """

    def __init__(
        self,
        mark: int,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._steady = steady
        self._first = max(float(mark), wall()) - steady()

    def now(self) -> int:
        """The present second."""
        return int(self._first + self._steady())


class Window:
    """The sum of one kind of spending within the last `length` seconds."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def total(self, now: int) -> int:
        """What the window holds at a second; seconds never go back."""
        while self._seconds and now - self._seconds[0][0] > self._length:
            self._total -= self._seconds.popleft()[1]
        return self._total

    def add(self, at: int, amount: int) -> None:
        """Count, not before what was counted last."""
        self._total += amount
        if self._seconds and self._seconds[-1][0] == at:
            amount += self._seconds.pop()[1]
        self._seconds.append((at, amount))

    def remove(self, at: int, amount: int) -> None:
        """Take back what was counted at a second, if it is still in the window."""
        for place, (second, sum_) in enumerate(self._seconds):
            if second == at:
                self._seconds[place] = (second, sum_ - amount)
                self._total -= amount
                return

    def wait(self, now: int, room: int, *, without: Entry | None) -> int:
        """Seconds until the window holds no more than `room`, one entry left out of it.

        0: it does so now. Nothing more is counted meanwhile.
        """
        held = 0 if without is None or now - without.at > self._length else without.amount
        left = self.total(now) - held
        if left <= room:
            return 0
        for second, amount in self._seconds:
            left -= amount - (held if without is not None and second == without.at else 0)
            if left <= room:
                return second + self._length + 1 - now
        return self._length + 1


class Usage:
    """All windows, of every kind and asset."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Take up what was counted before, oldest first."""
        self._windows: dict[tuple[str, bytes], tuple[Window, Window]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        """Count an entry, in the place of an earlier one under the same name."""
        for window in self._of(entry.kind, entry.asset):
            if replaced is not None:
                window.remove(replaced.at, replaced.amount)
            window.add(entry.at, entry.amount)

    def total(self, kind: Kind, asset: bytes, length: int, now: int) -> int:
        """What the last hour or day holds."""
        return self._window(kind, asset, length).total(now)

    def wait(self, entry: Entry, length: int, room: int, *, without: Entry | None) -> int:
        """Seconds from an entry's until the window it is for holds no more than `room`."""
        window = self._window(entry.kind, entry.asset, length)
        return window.wait(entry.at, room, without=without)

    def held(self, entry: Entry | None, length: int, now: int) -> int:
        """What an entry takes up of a window at a second."""
        return entry.amount if entry is not None and now - entry.at <= length else 0

    def _window(self, kind: Kind, asset: bytes, length: int) -> Window:
        return self._of(kind, asset)[0 if length == HOUR else 1]

    def _of(self, kind: Kind, asset: bytes) -> tuple[Window, Window]:
        name = (kind, asset)
        if name not in self._windows:
            self._windows[name] = (Window(HOUR), Window(DAY))
        return self._windows[name]
