"""A transaction of writes alone: composed into one statement, so all or nothing in one round trip.

Each write becomes a part of a WITH; the statement fails as a whole when a part that must change a
row changed none. The parts of one statement all see the same snapshot, so no two of them may write
the same row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

PARAMETER = re.compile(r"%\((\w+)\)s")
NOTHING_WRITTEN = "CD001"
"""SQLSTATE of the database's function `must_write`; its message is the number of the part."""


class Event(msgspec.Struct, frozen=True):
    """One recorded event; `seq` has no gaps."""

    seq: int
    time: float
    topic: str
    kind: str
    channel: bytes | None
    label: str | None
    operation: bytes | None
    details: dict[str, Any]


class Statement(NamedTuple):
    """The text of an SQL statement and the values of its named parameters."""

    text: str
    values: dict[str, Any]


class _Occurrence(NamedTuple):
    topic: str
    kind: str
    channel: bytes | None
    label: str | None
    operation: bytes | None
    details: dict[str, Any]


_INSERT_EVENTS = """
insert into event (seq, topic, kind, channel, label, operation, details)
select coalesce((select max(seq) from event), 0) + number,
       happened ->> 0, happened ->> 1, decode(happened ->> 2, 'hex'), happened ->> 3,
       decode(happened ->> 4, 'hex'), happened -> 5
from jsonb_array_elements(%(events)s::jsonb) with ordinality as new (happened, number)
returning seq
"""
_NUMBERED = "(select max(seq) from {}), extract(epoch from now())::float8"


class Occurrences:
    """The events that a transaction records, and that its commit publishes."""

    def __init__(self) -> None:
        self.pending: list[_Occurrence] = []
        self._parts: list[tuple[Statement, type[Exception] | None]] = []

    def event(
        self,
        topic: str,
        kind: str,
        *,
        channel: bytes | None = None,
        label: str | None = None,
        operation: bytes | None = None,
        **details: Any,
    ) -> None:
        """Record that something happened, if this transaction commits."""
        self.pending.append(_Occurrence(topic, kind, channel, label, operation, details))

    def compose(self) -> Statement:
        """Return the events and the writes as one statement, whose row is for `numbered`."""
        texts, checks = [], []
        values: dict[str, Any] = {}
        for number, (statement, otherwise) in enumerate(self._parts):
            texts.append(_part(number, statement.text))
            values |= {f"p{number}_{name}": value for name, value in statement.values.items()}
            if otherwise is not None:
                changed = f"(select count(*) from part{number})"  # noqa: S608 - a number
                checks.append(f"must_write({changed}, {number})")
        if self.pending:
            inserted = self._insert()
            texts.append(f"inserted as ({inserted.text})")
            values |= inserted.values
            columns = _NUMBERED.format("inserted")
        else:
            columns = "null::bigint, extract(epoch from now())::float8"
        return Statement(f"with {', '.join(texts)} select {', '.join([columns, *checks])}", values)

    def numbered(self, last: int | None, time: float) -> list[Event]:
        """Return the events as they were inserted, the newest of them with the number `last`."""
        first = (last or 0) - len(self.pending) + 1
        return [
            Event(first + place, time, *occurrence) for place, occurrence in enumerate(self.pending)
        ]

    def _insert(self) -> Statement:
        rows = [
            (topic, kind, _hex(channel), label, _hex(operation), details)
            for topic, kind, channel, label, operation, details in self.pending
        ]
        return Statement(_INSERT_EVENTS, {"events": msgspec.json.encode(rows).decode()})


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


class Writes(Occurrences):
    """Writes that are committed together, and the events that tell of them."""

    def add(self, statement: Statement, *, otherwise: type[Exception] | None = None) -> None:
        """Add an insert or update without a `returning` of its own, or a locking select.

        A select is run only with `otherwise`: PostgreSQL leaves out what nothing refers to.

        `otherwise` is raised, and nothing is written at all, when it affects no row.
        """
        self._parts.append((statement, otherwise))

    @property
    def parts(self) -> Sequence[tuple[Statement, type[Exception] | None]]:
        """The writes, each with what is raised when it affects no row."""
        return self._parts

    def failure(self, number: int) -> Exception:
        """Return what a part that affected no row means."""
        otherwise = self._parts[number][1]
        assert otherwise is not None
        return otherwise()


@functools.lru_cache(maxsize=256)
def _part(number: int, text: str) -> str:
    """Return one part with parameters of its own."""
    renamed = PARAMETER.sub(rf"%(p{number}_\1)s", text)
    returning = "" if text.lstrip().startswith("select") else " returning 1"
    return f"part{number} as ({renamed}{returning})"
