"""The native protocol, as a real journald understands it."""

from __future__ import annotations

import subprocess
import sys
import uuid

from tests.journal.journald import Entry, Journald
from zkchannels.service.events import EVENTS, identifier

PROGRAM = """
import sys
from zkchannels.service.logging import about, configure, get_logger
configure("customerd", level="debug")
log, test = get_logger("part"), sys.argv[1]
"""


def write(journald: Journald, code: str) -> list[Entry]:
    """Run a program under the journal; return what journald has of it."""
    test = uuid.uuid4().hex
    command = journald.connected("starter", sys.executable, "-c", PROGRAM + code, test)
    subprocess.run(command, check=True, timeout=60)
    return journald.read(f"TEST={test}")


def test_fields_reach_the_journal(journald: Journald) -> None:
    """Each key is a field to match by, each level a priority; a line is its program's."""
    (entry,) = write(
        journald,
        "with about(channel='coffee', operation='0a', step='prove', method='pay'):\n"
        "    log.warning('operation_rests', test=test, kind='SignerAway', tx=b'\\1', block=7,"
        " peer_uid=1000, absent=None)",
    )
    assert entry["MESSAGE_ID"] == identifier("operation_rests")
    assert entry["SYSLOG_IDENTIFIER"] == "customerd"
    wanted = {
        "CHANNEL": "coffee",
        "OPERATION": "0a",
        "STEP": "prove",
        "METHOD": "pay",
        "TX": "01",
        "BLOCK": "7",
        "PEER_UID": "1000",
        "PRIORITY": "4",
        "EVENT": "operation_rests",
    }
    assert {name: entry.get(name) for name in wanted} == wanted
    assert "ABSENT" not in entry
    assert entry["_TRANSPORT"] == "journal"  # by the native protocol, not as a line of text


def test_a_large_record_arrives_whole(journald: Journald) -> None:
    """A record beyond any datagram goes as a sealed memory file, and journald takes it."""
    (entry,) = write(journald, "log.info('stopping', test=test, data='x' * 700_000 + '\\n.')")
    assert len(entry["DATA"]) == 700_002


def test_nothing_can_be_forged(journald: Journald) -> None:
    """A value of several lines stays one field, and trusted fields cannot be named."""
    (entry,) = write(
        journald,
        "log.info('stopping', test=test, note='a\\nPRIORITY=0\\nCHANNEL=b', _uid=0, message='m')",
    )
    assert (entry["NOTE"], entry["PRIORITY"]) == ("a\nPRIORITY=0\nCHANNEL=b", "6")
    assert "CHANNEL" not in entry
    assert isinstance(entry["MESSAGE"], str)  # there is one, not two
    assert entry["EVENT_MESSAGE"] == "m"


def test_a_traceback_is_a_field(journald: Journald) -> None:
    """The plain line of an exception is one line; the traceback is a field beside it."""
    (entry,) = write(
        journald,
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed', test=test)",
    )
    assert "\n" not in entry["MESSAGE"]
    assert "ZeroDivisionError" in entry["EXCEPTION"]


def test_a_row_of_the_database_is_left_out(journald: Journald, database_dsn: str) -> None:
    """PostgreSQL shows the whole row that a constraint refuses; its values are not logged."""
    (entry,) = write(
        journald,
        f"import psycopg\nwith psycopg.connect({database_dsn!r}) as connection:\n"
        "    connection.execute('create table t (a text check (false))')\n"
        "    try:\n        connection.execute(\"insert into t values ('a secret')\")\n"
        "    except psycopg.Error as error:\n"
        "        assert 'a secret' in str(error)\n"
        "        log.exception('operation_failed', test=test, reason=str(error))",
    )
    assert "violates check constraint" in entry["EXCEPTION"]
    assert "violates check constraint" in entry["REASON"]
    assert "a secret" not in str({**entry, "_CMDLINE": ""})


def test_the_catalogue_explains_every_id(journald: Journald) -> None:
    """`journalctl -x` shows our words beside a line, its fields filled in; no id lacks them."""
    listed = journald.run("journalctl", "--list-catalog").stdout
    assert {line.split()[0] for line in listed.splitlines()} == {e.identifier for e in EVENTS}
    write(journald, "log.error('alarm_raised', test=test, alarm='guard_empty', reason='x')")
    write(journald, "log.info('operation_held', test=test, operation='0123abcd')")
    shown = journald.run("journalctl", "--catalog", "--no-pager").stdout
    shown = " ".join(shown.replace("\N{LIGHT SHADE}", "").split())
    assert "Send some coin to the guard's address" in shown
    assert "customerctl resume 0123abcd lets it go on" in shown
    ours = journald.run("journalctl", "--dump-catalog").stdout
    assert "Failed" not in ours
