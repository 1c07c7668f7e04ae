"""Make journald's catalogues and docs/events.md from the table of events.

usage: python -m tools.generate_catalog [--check]
"""

from __future__ import annotations

import sys
import textwrap

from tools.generated import ROOT, write_or_check
from zkchannels.service.events import EVENTS, Event

PROGRAMS = ("customerd", "customersigner", "merchantd")
FOLDER = ROOT / "packaging" / "systemd"
DOCUMENT = ROOT / "docs" / "events.md"

_HEAD = """\
# Events

<!-- made by tools/generate_catalog.py -->

Lines of the log that an operator may act on. The field `EVENT` has the name and `MESSAGE_ID` the
id, which never changes: `journalctl MESSAGE_ID=...` finds every line of one kind, `journalctl -x`
shows the words below beside each line. `@FIELD@` stands for a field of the line.
"""


def catalogue(program: str) -> str:
    """Return the message catalogue of a program, as journalctl --update-catalog reads it."""
    head = f"# Made by tools/generate_catalog.py: what {program} writes into the journal.\n"
    entries = (_entry(event, program) for event in EVENTS if program in event.programs)
    return "\n".join([head, *entries])


def document() -> str:
    """Return docs/events.md."""
    parts = [_HEAD]
    for programs in sorted({event.programs for event in EVENTS}, key=_place):
        parts.append(f"## {', '.join(programs)}\n\n| event | id | meaning |\n| --- | --- | --- |")
        parts.extend(
            f"| `{event.name}` | `{event.identifier}` | **{event.subject}.** {event.words} |"
            for event in EVENTS
            if event.programs == programs
        )
        parts.append("")
    return "\n".join(parts)


def _place(programs: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return len(programs), programs


def main() -> int:
    """Write or check all of them; 1 when one is out of date."""
    codes = [write_or_check(FOLDER / f"{name}.catalog", catalogue(name)) for name in PROGRAMS]
    return max(*codes, write_or_check(DOCUMENT, document()))


def _entry(event: Event, program: str) -> str:
    words = "\n".join(textwrap.wrap(event.words, 78, break_long_words=False))
    return (
        f"-- {event.identifier}\nSubject: {event.subject}\nDefined-By: {program}\n"
        f"Documentation: man:{program}\n\n{words}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
