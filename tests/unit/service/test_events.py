"""The table of events against the programs that write them, and what is made from it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import generate_catalog
from tools.generated import ROOT
from zkchannels.chain.sending import TransactionStatus
from zkchannels.service.events import EVENTS, identifier

PACKAGES = ("customerd", "customersigner", "merchantd", "zkchannels")
_LEVELS = {"info", "warning", "error", "critical", "exception"}
_OF_A_PEER = {"_break_off", "_log", "level", "tell", "_tell"}
"""What a line is handed to when another part decides about its level."""
_DYNAMIC = {f"transaction_{status.value}" for status in TransactionStatus}


def written() -> dict[str, str]:
    """Return the name of each event that the programs log at info or above, with where."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "devnet" not in path.parts:
                for name, line in _calls(path):
                    found[name] = f"{path.relative_to(ROOT)}:{line}"
    return found


def _calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function, first = node.func, node.args[0]
        if isinstance(function, ast.Name):
            of_log, name = function.id in _OF_A_PEER, function.id
        elif isinstance(function, ast.Attribute):
            of_log, name = _is_log(function), function.attr
        else:
            continue
        if of_log and (name in _LEVELS or name in _OF_A_PEER):
            yield from ((text, node.lineno) for text in _texts(first))


def _is_log(function: ast.Attribute) -> bool:
    """Whether it is a method of a logger, whatever expression gives that."""
    if function.attr in _OF_A_PEER:
        return True
    source = ast.unparse(function.value)
    return source.split("(")[0].endswith(("log", "_log", "bound", "get_logger"))


def _texts(value: ast.expr) -> list[str]:
    if isinstance(value, ast.IfExp):
        return [*_texts(value.body), *_texts(value.orelse)]
    return [value.value] if isinstance(value, ast.Constant) and isinstance(value.value, str) else []


def test_every_event_that_is_written_is_in_the_table() -> None:
    """A line at info or above is explained, and nothing is explained that is never written."""
    names = {event.name.partition(".")[0] for event in EVENTS}
    found = written()
    assert len(found) > 100
    # Add it to zkchannels/service/events.py, then run python -m tools.generate_catalog.
    assert {name: where for name, where in found.items() if name not in names} == {}
    assert names - set(found) - _DYNAMIC - {"log_lines_dropped"} == set()


def test_identifiers_are_stable_and_unlike() -> None:
    """Each event has 128 bits of its own; some are pinned, as journals of the past have them."""
    identifiers = [event.identifier for event in EVENTS]
    assert len(set(identifiers)) == len(identifiers)
    assert all(len(bytes.fromhex(one)) == 16 and one == one.lower() for one in identifiers)
    assert identifier("operation_done") == "c256a7d53c234e638e1d9f4a25c579b3"
    assert identifier("alarm_raised", "guard_empty") == "2ca61a3dc41141d2bf35197e50c5a35e"
    assert identifier("signer_lost") == "952655d925c245509256a35448bfdc6d"
    assert identifier("no such event") is None


def test_every_kind_of_alarm_has_words() -> None:
    """An alarm of each documented kind is an event of its own: each asks for another act."""
    section = (ROOT / "docs" / "watcher.md").read_text(encoding="utf-8").partition("## Alarms")[2]
    kinds = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    told = {event.name for event in EVENTS if event.name.startswith("alarm_raised.")}
    assert {f"alarm_raised.{kind}" for kind in kinds} == told
    assert len(kinds) > 15


@pytest.mark.parametrize("program", generate_catalog.PROGRAMS)
def test_catalogues_are_up_to_date(program: str) -> None:
    """Each program's catalogue is what tools/generate_catalog.py makes of the table now."""
    path = generate_catalog.FOLDER / f"{program}.catalog"
    assert path.read_text(encoding="utf-8") == generate_catalog.catalogue(program)


def test_document_is_up_to_date() -> None:
    """docs/events.md is what tools/generate_catalog.py makes of the table now."""
    text = generate_catalog.DOCUMENT.read_text(encoding="utf-8")
    assert text == generate_catalog.document()
