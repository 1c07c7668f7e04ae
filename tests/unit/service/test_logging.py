"""Logs, written by real processes to real journals, pipes and terminals."""

from __future__ import annotations

import array
import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zkchannels.service.events import identifier

LOG = """
import logging as standard, os, sys
from zkchannels.service.logging import configure, dropped, get_logger, set_level
configure("program", **eval(os.environ.get("CONFIGURE", "{}")))
log = get_logger("part")
"""


def run(code: str, **environment: str) -> list[dict[str, object]]:
    """Run a program whose standard error is a pipe; return its lines, decoded."""
    done = subprocess.run(
        [sys.executable, "-c", LOG + code],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


class Journal:
    """A journald that understands the native protocol: plain and sized fields, memory files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)
        # systemd connects standard error to the journal and says so.
        self._stream = os.memfd_create("stream")
        status = os.fstat(self._stream)
        self.environment = {
            "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
            "CONFIGURE": repr({"journal_socket": str(path)}),
        }

    def run(self, code: str, **environment: str) -> bytes:
        """Run a program under this journal; return what it wrote to standard error instead."""
        subprocess.run(
            [sys.executable, "-c", LOG + code],
            env={**os.environ, **self.environment, **environment},
            check=True,
            stderr=self._stream,
        )
        os.lseek(self._stream, 0, os.SEEK_SET)
        return os.read(self._stream, 1 << 20)

    def entry(self) -> dict[str, str]:
        """Receive one entry."""
        data, ancillary, _, _ = self._socket.recvmsg(1 << 24, socket.CMSG_SPACE(4))
        if not data:
            ((_, _, descriptors),) = ancillary
            (memory,) = array.array("i", descriptors[:4])
            with os.fdopen(memory, "rb") as file:
                file.seek(0)
                data = file.read()
        return dict(self._fields(data))

    def _fields(self, data: bytes) -> Iterator[tuple[str, str]]:
        while data:
            line, _, rest = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(rest[:8], "little")
                value, rest = rest[8 : 8 + size], rest[8 + size :]
                assert rest[:1] == b"\n"
                rest = rest[1:]
            yield name.decode(), value.decode()
            data = rest

    def close(self) -> None:
        """Go away."""
        self._socket.close()
        with contextlib.suppress(OSError):
            os.close(self._stream)


@pytest.fixture
def journal(memory_directory: Path) -> Iterator[Journal]:
    """A journal on a socket of its own."""
    journal = Journal(memory_directory / f"journal-{os.urandom(4).hex()}")
    yield journal
    journal.close()


def test_json_lines() -> None:
    """Elsewhere than a terminal or a journal, each event is one JSON object on a line."""
    (line,) = run(
        "log.info('paid', channel=b'\\x01\\xff', number=2**70, note='a\\nb', some={1: 2})"
    )
    assert line.pop("time")
    assert line == {
        "program": "program",
        "module": "part",
        "level": "info",
        "event": "paid",
        "channel": "01ff",
        "number": 2**70,
        "note": "a\nb",
        "some": {"1": 2},
    }


def test_no_line_is_lost_for_its_form() -> None:
    """Values JSON does not know, lone surrogates and NUL are told somehow, not dropped."""
    lines = run(
        "value = '\\ud800 \\0'\n"
        "log.info('odd', value=value, thing=object, path=os.PathLike)\n"
        "log.info('last')"
    )
    assert [line["event"] for line in lines] == ["odd", "last"]
    assert lines[0]["value"] == "\ud800 \0"


def test_level_changes_live() -> None:
    """Lines below the level are dropped, and the level may change at any time."""
    lines = run(
        "log.debug('one')\nset_level('debug')\nlog.debug('two')\n"
        "set_level('error')\nlog.warning('three')\nlog.error('four')"
    )
    assert [line["event"] for line in lines] == ["two", "four"]
    with pytest.raises(subprocess.CalledProcessError):
        run("", CONFIGURE="{'level': 'loud'}")


def test_exceptions_and_other_libraries() -> None:
    """A traceback is a field of its line, and what the standard library logs arrives as well."""
    lines = run(
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')\n"
        "standard.getLogger('asyncio').warning('slow %s', 'task')\n"
        "standard.getLogger('asyncio').info('chatter')"
    )
    assert len(lines) == 2
    assert "ZeroDivisionError" in str(lines[0]["exception"])
    assert lines[0]["level"] == "error"
    assert (lines[1]["module"], lines[1]["event"], lines[1]["level"]) == (
        "asyncio",
        "slow task",
        "warning",
    )


def test_journal_gets_fields(journal: Journal) -> None:
    """Under systemd each key is a journal field; a plain reader sees the short ones too."""
    written = journal.run(
        "log.warning('paid', channel='coffee', peer_uid=7, tx=b'\\x01', _boot='x', **{'1ß-x': 1})\n"
        "log.error('link_lost', reason='one\\ntwo', message='again')"
    )
    assert written == b""
    entry = journal.entry()
    assert entry == {
        "MESSAGE": "paid channel=coffee peer_uid=7 tx=01 _boot=x 1ß-x=1",
        "EVENT": "paid",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "program",
        "MODULE": "part",
        "CHANNEL": "coffee",
        "PEER_UID": "7",
        "TX": "01",
        "BOOT": "x",
        "SS_X": "1",
    }
    entry = journal.entry()
    assert (entry["MESSAGE"], entry["REASON"]) == ("link_lost message=again", "one\ntwo")
    assert (entry["MESSAGE_ID"], entry["PRIORITY"]) == (identifier("link_lost"), "3")
    assert entry["EVENT_MESSAGE"] == "again"  # no second MESSAGE


def test_a_value_cannot_forge_a_field(journal: Journal) -> None:
    """A value with line ends stays one value: nobody can write fields of his own through it."""
    journal.run("log.info('paid', note='x\\nCHANNEL=stolen\\nPRIORITY=0')")
    entry = journal.entry()
    assert entry["NOTE"] == "x\nCHANNEL=stolen\nPRIORITY=0"
    assert "CHANNEL" not in entry
    assert entry["PRIORITY"] == "6"


def test_huge_entries_travel_as_a_memory_file(journal: Journal) -> None:
    """An entry larger than any datagram arrives whole."""
    journal.run("log.info('big', data='x' * 20_000_000)")
    assert len(journal.entry()["DATA"]) == 20_000_000


def test_absent_journal_costs_nothing_but_the_lines(journal: Journal) -> None:
    """While journald is away lines are dropped and counted, and the count is told afterwards."""
    journal.run(
        "os.rename(os.environ['J'], os.environ['J'] + '.away')\n"
        "log.info('one')\nlog.info('two')\n"
        "os.rename(os.environ['J'] + '.away', os.environ['J'])\n"
        "log.info('three')\nassert dropped() == 2",
        J=str(journal.path),
    )
    told, three = journal.entry(), journal.entry()
    assert (told["EVENT"], told["COUNT"]) == ("log_lines_dropped", "2")
    assert three["EVENT"] == "three"


def test_stuck_journal_never_blocks(journal: Journal) -> None:
    """A journald that reads nothing does not hold the process up."""
    journal.run(
        "for n in range(5000): log.info('x', channel=n, data='y' * 1000)\nassert dropped() > 0"
    )
    assert journal.entry()["EVENT"] == "x"


def test_another_stream_is_no_journal(journal: Journal) -> None:
    """A JOURNAL_STREAM inherited from a service, with standard error led elsewhere, is ignored."""
    (line,) = run("log.info('paid')", **journal.environment)
    assert line["event"] == "paid"


def test_stuck_pipe_never_blocks() -> None:
    """A reader of standard error that stopped reading does not hold the process up."""
    reading, writing = os.pipe()
    code = LOG + "for n in range(5000): log.info('x', channel=n, data='y' * 1000)\n"
    code += "print(dropped() > 0)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            stdout=subprocess.PIPE,
            stderr=writing,
            timeout=60,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stdout == b"True\n"


@pytest.mark.parametrize("colour", [True, False])
def test_terminal_lines_are_for_people(colour: bool) -> None:
    """On a terminal an event is a readable line, with colour unless NO_COLOR asks for none."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "" if colour else "1"}
    try:
        subprocess.run(
            [sys.executable, "-c", LOG + "log.info('paid', channel='coffee')"],
            env=environment,
            check=True,
            stderr=terminal,
        )
        assert select.select([controller], [], [], 5)[0]
        text = os.read(controller, 4096).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "paid" in text
    assert ("\x1b[" in text) == colour
    assert ("channel=coffee" in text) != colour


def test_rich_is_not_imported() -> None:
    """The daemons start without rich, which others may still import afterwards."""
    code = (
        "import sys, zkchannels.service.logging\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('rich', 'pygments')]\n"
        "import rich\nassert rich.__file__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_flood_is_bounded_and_counted() -> None:
    """Of lines of one kind a burst is written; how many were left out is told, also if none comes.

    Lines about another subject, and of another kind, are not held back by it.
    """
    lines = run(
        "for _ in range(1000): log.warning('token_refused', reason='x' * 100)\n"
        "log.warning('token_refused', operation='other')\nlog.info('stopping')\n"
        "from zkchannels.service import logging as ours\n"
        "ours._State.flood._clock = lambda start=__import__('time').monotonic(): start + 1\n"
        "ours.tell_missing()\nours.tell_missing()\nlog.warning('token_refused')"
    )
    events = [str(line["event"]) for line in lines]
    assert 50 <= events.count("token_refused") < 60
    assert "stopping" in events
    assert any(line.get("operation") == "other" for line in lines)
    (told,) = [line for line in lines if line["event"] == "log_lines_suppressed"]
    assert (told["about"], told["level"]) == ("token_refused", "warning")
    assert int(str(told["count"])) + events.count("token_refused") - 2 == 1000


def test_what_libraries_say_is_one_kind() -> None:
    """Any text may come from another library: its logger bounds it, and our own packages' lines
    keep their fields on the way through the standard library."""
    lines = run(
        "for n in range(1000): standard.getLogger('asyncio').warning('task %d is slow', n)\n"
        "told = {'event': 'peer_stalled', 'fields': {'peer': 'y'}}\n"
        "standard.getLogger('x').warning('', extra=told)"
    )
    assert 50 <= sum(line["module"] == "asyncio" for line in lines) < 60
    assert (lines[-1]["event"], lines[-1]["peer"]) == ("peer_stalled", "y")
    assert lines[-1]["message_id"] == identifier("peer_stalled")


def test_fields_of_a_task() -> None:
    """Within `about` every line has its fields, those of tasks started there too; then none."""
    lines = run(
        "import asyncio\nfrom zkchannels.service.logging import about, also_about\n"
        "async def inner():\n    log.info('inner')\n"
        "async def work(name):\n"
        "    with about(operation=name):\n"
        "        also_about(step='prove')\n        await asyncio.create_task(inner())\n"
        "        with about(channel='c'): log.info('other')\n"
        "        log.info('again')\n"
        "    log.info('after')\n"
        "asyncio.run(work('1'))"
    )
    told = [(line["event"], line.get("operation"), line.get("step")) for line in lines]
    assert told == [
        ("inner", "1", "prove"),
        ("other", None, None),
        ("again", "1", "prove"),
        ("after", None, None),
    ]
