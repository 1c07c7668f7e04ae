"""docs/recovery.md says what the programs do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest

from customerctl.arguments import read
from customerd.config import Settings
from customerd.rpc.methods import METHODS
from zkchannels.service.configuration import load

DOCUMENT = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text()
COMMANDS = sorted(set(re.findall(r"^ *customerctl (.+)$", DOCUMENT, re.MULTILINE)))
PARAMETERS = {method.name: method.params for method in METHODS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_daemon_takes(command: str) -> None:
    """Each command line in the document is read, and fits its method's parameters."""
    request = read(shlex.split(command))
    msgspec.convert(request.params, PARAMETERS[request.command])


def test_the_configuration_in_it_is_accepted(tmp_path: Path) -> None:
    """The table that turns the continuous backup on is one that the daemon knows."""
    (table,) = re.findall(r"```toml\n(.+?)```", DOCUMENT, re.DOTALL)
    file = tmp_path / "customerd.toml"
    file.write_text(table)
    assert load(Settings, file).backup.directory == "/mnt/elsewhere/customerd"


def test_every_outcome_is_explained() -> None:
    """The table of outcomes has each status that `recover` can answer, and no other."""
    table = DOCUMENT[DOCUMENT.index("| outcome |") :].split("\n\n")[0]
    told = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)[1:]
    assert told == ["recovered", "waiting", "closing", "suspect"]
