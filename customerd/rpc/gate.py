"""The one gate: a method that needs more than is there is refused; nothing else decides that.

docs/gate.md shows its whole table, made from the methods' declared needs by `verdict`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from customerd.rpc.errors import failure

LOOK_EVERY = 1.0
"""Seconds between looks at what may hold again."""
LEVELS = ("nothing", "database", "chain", "signer")
"""What a method may need; each level needs all before it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing the daemon may lack, and what is answered then to who needs it."""

    level: str
    kind: str
    message: str


CONDITIONS = (
    Condition("database", "not_ready", "the daemon is starting, standing by, or stopping"),
    Condition("database", "database_unavailable", "PostgreSQL does not answer"),
    Condition("chain", "chain_unavailable", "the watcher is not following the chain"),
    Condition("signer", "safe_mode", "no signer is attached"),
)
"""In the order in which they are told."""


class Undeclared(ValueError):
    """A method does not declare what it needs: it is not answered at all."""


def verdict(needs: str, missing: Collection[str]) -> Condition | None:
    """Return what keeps a method from being answered, or None; `missing` are kinds of conditions.

    Raises Undeclared for anything but a level: who forgets to declare is refused, not let through.
    """
    if needs not in LEVELS:
        raise Undeclared(f"{needs!r} is nothing that a method can need")
    reach = LEVELS.index(needs)
    for condition in CONDITIONS:
        if LEVELS.index(condition.level) <= reach and condition.kind in missing:
            return condition
    return None


class Gate:
    """Decides from a method's declared `needs` and from what holds now, by kind of condition."""

    def __init__(self, holds: Mapping[str, Callable[[], bool]]) -> None:
        self._holds = {condition.kind: holds[condition.kind] for condition in CONDITIONS}
        self._changed = asyncio.Event()

    def missing(self) -> list[str]:
        """Name everything that keeps the daemon from being ready."""
        return [kind for kind, holds in self._holds.items() if not holds()]

    def check(self, needs: str) -> None:
        """Raise the typed error for the first thing that is missing for this level."""
        found = verdict(needs, self.missing())
        if found is not None:
            raise failure(found.kind, found.message)

    def look_again(self) -> None:
        """Hear that something may hold now that did not, or the other way round."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Return the next time that something may have changed."""
        await self._changed.wait()

    async def wait_change(self) -> None:
        """Return when something may have changed, at the latest after a second.

        Not every end of a trouble is told: a database may answer again before anybody noticed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self.changed()

    async def wait(self, needs: str, seconds: float | None) -> None:
        """Return once nothing is missing for this level, or after some seconds; None: for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while verdict(needs, self.missing()) is not None:
                    await self.wait_change()
