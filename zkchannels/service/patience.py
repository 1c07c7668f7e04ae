"""How many strikes one network address has within an hour."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW = 3600.0


class Patience:
    """Counts, per address and hour, what costs the other side: guesses, rows that stay for ever."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow each address `limit` strikes in any hour; `clock` gives seconds."""
        self._limit = limit
        self._clock = clock
        self._strikes: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._strikes)

    def strike(self, source: str) -> None:
        """Count one more strike of this address."""
        self._forget_quiet()
        strikes = self._strikes.pop(source, None) or deque(maxlen=self._limit)
        strikes.append(self._clock())
        self._strikes[source] = strikes

    def exhausted(self, source: str) -> bool:
        """Whether the address has to wait."""
        strikes = self._strikes.get(source)
        if strikes is None or len(strikes) < self._limit:
            return False
        return strikes[0] >= self._clock() - _WINDOW

    def _forget_quiet(self) -> None:
        """Drop the addresses that were quiet for the window; they come first."""
        oldest = self._clock() - _WINDOW
        while self._strikes:
            source = next(iter(self._strikes))
            if self._strikes[source][-1] >= oldest:
                return
            del self._strikes[source]
