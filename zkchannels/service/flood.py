"""How many lines of the log may be written: a pure core; nobody fills the disk from outside.

A kind of line (its event, and what it is about) may come in a burst and then at a steady rate. All
kinds together have a bound as well, which errors do not count towards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_KINDS_KEPT: Final = 4096
_EXEMPT: Final = ("error", "critical")
_TELLING: Final = frozenset({"log_lines_suppressed", "log_lines_dropped"})


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` lines at once, then `per_second`."""

    burst: float
    per_second: float


LINES = Rate(50, 5)
"""Lines of one kind about one operation or channel, or about none."""
DEBUG_LINES = Rate(1000, 100)
"""The same at debug level, which somebody has asked for."""
ALL_LINES = Rate(5000, 500)
"""Lines of all kinds together, below error."""


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    left: float
    filled: float
    held_back: int = 0

    def take(self, now: float) -> bool:
        self.fill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def fill(self, now: float) -> None:
        gained = (now - self.filled) * self.rate.per_second
        self.left, self.filled = min(self.left + gained, self.rate.burst), now


class Flood:
    """Decides for each line; times are seconds of a clock that never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, object], _Bucket] = {}
        self._all = _Bucket(ALL_LINES, ALL_LINES.burst, clock())
        self._owing: dict[tuple[str, object], _Bucket] = {}

    def admit(self, kind: str, subject: object, level: str) -> int | None:
        """Return None when the line must not be written, else how many before it were not."""
        if kind in _TELLING:
            return 0
        now, key = self._clock(), (kind, subject)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._open(key, DEBUG_LINES if level == "debug" else LINES, now)
        if not bucket.take(now) or (level not in _EXEMPT and not self._all.take(now)):
            bucket.held_back += 1
            self._owing[key] = bucket
            return None
        before, bucket.held_back = bucket.held_back, 0
        self._owing.pop(key, None)
        return before

    def owed(self) -> list[tuple[str, int]]:
        """Return each kind of which lines were held back and may come again, with their number."""
        now = self._clock()
        found: dict[str, int] = {}
        for key, bucket in list(self._owing.items()):
            bucket.fill(now)
            if bucket.left >= 1:
                found[key[0]] = found.get(key[0], 0) + bucket.held_back
                bucket.held_back = 0
                del self._owing[key]
        return list(found.items())

    def _open(self, key: tuple[str, object], rate: Rate, now: float) -> _Bucket:
        if len(self._buckets) >= _KINDS_KEPT:
            self._forget(now)
        bucket = self._buckets[key] = _Bucket(rate, rate.burst, now)
        return bucket

    def _forget(self, now: float) -> None:
        """Make room: those that are full again decide as new ones would, then the oldest go."""
        for key, bucket in list(self._buckets.items()):
            bucket.fill(now)
            if bucket.left >= bucket.rate.burst:
                del self._buckets[key]
        for key in list(self._buckets)[: max(0, len(self._buckets) - _KINDS_KEPT // 2)]:
            del self._buckets[key]
