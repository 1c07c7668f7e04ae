"""`customerctl logs` finds the daemon's lines, or says where they are without a journal."""

from __future__ import annotations

import json
import sys

import pytest

from customerctl.failures import Failure
from customerctl.logs import journalctl
from tests.journal.journald import Journald

COMMAND = (sys.executable, "-m", "customerctl", "logs")
OPERATION = "0d9c1f5a7be24c3f8e6a5b4c3d2e1f00"


def test_matches_are_exact() -> None:
    """The line for journalctl has the unit of system and user, and a match for each condition."""
    given = {"channel": "a b", "operation": OPERATION.upper(), "since": "-1h", "follow": True}
    assert journalctl(given, as_json=True) == [
        *("journalctl", "--unit=customerd.service", "--user-unit=customerd.service"),
        *("--unit=customersigner.service", "--user-unit=customersigner.service"),
        *("--follow", "--since=-1h", "--output=json"),
        *("CHANNEL=a b", f"OPERATION={OPERATION}"),
    ]
    assert journalctl({}, wallet="second") == ["journalctl", "--unit=customerd@second.service"]


@pytest.mark.parametrize("operation", ["abc", OPERATION[:-1] + "g", f"{OPERATION} _UID=0"])
def test_what_is_no_operation_is_a_mistake(operation: str) -> None:
    """An id that no operation can have is refused, not searched for."""
    with pytest.raises(Failure, match="32 hexadecimal digits"):
        journalctl({"operation": operation}, as_json=False)


def test_journalctl_takes_over(journald: Journald) -> None:
    """Under systemd the command becomes journalctl, which understands every option."""
    options = ["--since", "1 hour ago", "--channel", "coffee", "--operation", OPERATION]
    done = journald.run(*COMMAND, *options)
    assert "No entries" in done.stdout + done.stderr, done
    done = journald.run(*COMMAND, "--since", "nonsense")
    assert done.returncode != 0
    assert "Failed to parse timestamp" in done.stderr


def test_without_systemd_it_says_where_the_lines_are(journald: Journald) -> None:
    """Off systemd nothing is searched: the answer names standard error and --detach's file."""
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs x /run && exec "$@"', "sh")
    done = journald.run(*hidden, *COMMAND)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "not run by systemd: there is no journal" in done.stderr
    assert "/var/log/customerd.log" in done.stderr
    done = journald.run(*hidden, *COMMAND, "--json")
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "no_journal"


def test_without_journalctl(journald: Journald) -> None:
    """A machine of systemd's without journalctl is told apart."""
    program = (
        "import os, sys; os.environ['PATH'] = '/nowhere'; from customerctl.__main__ import main"
    )
    done = journald.run(sys.executable, "-c", f"{program}; sys.exit(main(['logs']))")
    assert done.returncode == 1
    assert "journalctl cannot be run" in done.stderr
