"""The one gate: a method that needs more than is there is refused; nothing else decides that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from customerd.rpc.errors import failure

LEVELS = ("nothing", "database", "chain", "signer")
"""What a method may need; each level needs all before it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing the daemon may lack."""

    level: str
    holds: Callable[[], bool]
    kind: str
    message: str


class Gate:
    """Decides from a method's declared `needs`; what is not declared as possible is refused."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self._conditions = conditions

    def missing(self) -> list[str]:
        """Name everything that keeps the daemon from being ready."""
        return [condition.kind for condition in self._conditions if not condition.holds()]

    def check(self, needs: str) -> None:
        """Raise the typed error for the first thing that is missing for this level."""
        reach = LEVELS.index(needs)
        for condition in self._conditions:
            if LEVELS.index(condition.level) <= reach and not condition.holds():
                raise failure(condition.kind, condition.message)
