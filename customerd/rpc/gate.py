"""The one gate: a method that needs more than is there is refused; nothing else decides that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from customerd.rpc.errors import failure

LEVELS = ("nothing", "database", "chain", "signer")
"""What a method may need; each level needs all before it."""

_HINTS = {
    "not_ready": "the daemon is starting or stopping; try again in a moment",
    "database_unavailable": "is PostgreSQL running? see `journalctl -u customerd`",
    "chain_unavailable": "is the node running and synchronised? see `customerctl getinfo`",
    "safe_mode": "start the signer: `customersigner run`",
}


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
                raise failure(condition.kind, condition.message, hint=_HINTS.get(condition.kind))
