"""The pulse of a loop: whether it still goes round, told apart from whether it has success."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Pulse:
    """Says of a loop since when it has been silent, though it should have shown life.

    The loop calls `work` before each piece of work and `rest` before each wait. A loop that was
    never begun, or that waits for something that may never come, is not silent.
    """

    __slots__ = ("_clock", "_expected")

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected = math.inf

    def work(self) -> None:
        """Show life: a piece of work begins now."""
        self._expected = self._clock()

    def rest(self, seconds: float = math.inf) -> None:
        """Show life: nothing is to be done for so long."""
        self._expected = self._clock() + seconds

    @property
    def silence(self) -> float:
        """Seconds since the loop should have shown life; 0 when it need not have."""
        return max(0.0, self._clock() - self._expected)
