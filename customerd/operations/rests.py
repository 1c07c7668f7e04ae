"""Which operations do not get on, and why: what an owner is told while nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass

from customerd.operations.queries import OperationRow
from customerd.watch.alarms import Alarm, Level

TOLD_FROM = 2
"""Interruptions in a row from which on the owner is told; one is soon forgotten."""
LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Rest:
    """An operation that was interrupted, and will be taken up again."""

    row: OperationRow
    step: str | None
    reason: str
    times: int


class Rests:
    """The operations that were interrupted since they last ended."""

    def __init__(self) -> None:
        self._rests: dict[bytes, Rest] = {}

    def note(self, row: OperationRow, step: str | None, reason: str) -> None:
        """Take note of an interruption."""
        before = self._rests.get(row.operation)
        times = 1 if before is None else before.times + 1
        self._rests[row.operation] = Rest(row, step, reason, times)

    def reason(self, operation: bytes) -> str:
        """Return why an operation was interrupted last; empty when it was not."""
        rest = self._rests.get(operation)
        return "" if rest is None else rest.reason

    def forget(self, operation: bytes) -> None:
        """Hear that an operation has ended."""
        self._rests.pop(operation, None)

    @property
    def alarms(self) -> list[Alarm]:
        """Return one alarm for each operation that does not get on."""
        return [
            Alarm(
                "operation_rests",
                _told(rest),
                rest.row.label,
                Level.WARNING,
                channel=rest.row.channel,
                subject=rest.row.operation.hex(),
                private=True,
            )
            for rest in self._rests.values()
            if rest.times >= TOLD_FROM
        ]


def _told(rest: Rest) -> str:
    where = "" if rest.step is None else f" at the step {rest.step}"
    text = f"the {rest.row.kind} rests{where} and is tried again: {rest.reason[:LONGEST_REASON]}"
    if rest.row.force:
        return text
    return f"{text}; customerctl close --force {rest.row.label} ends the channel without it"
