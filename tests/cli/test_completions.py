"""What the shells complete, asked of the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from customerctl._commands import COMMANDS
from tests.cli.owner import Owner, channel
from tools import generate_completions
from tools.generated import ROOT

FOLDER = ROOT / "packaging" / "completions"
SECONDS = 60
SHELLS = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]
Complete = Callable[[str], list[str]]


@pytest.fixture
def environment(socket_directory: Path, tmp_path: Path) -> dict[str, str]:
    """Where `customerctl` is the program under test, and talks to this test's daemon."""
    program = tmp_path / "bin" / "customerctl"
    program.parent.mkdir()
    line = f'cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -m customerctl "$@"'
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "CUSTOMERD_SOCKET": str(socket_directory / "customerd.sock"),
    }


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, environment: dict[str, str]) -> Complete:
    """Return what one of the installed shells offers at the end of a line."""
    ask = {"bash": _ask_bash, "zsh": _ask_zsh, "fish": _ask_fish}[request.param]
    return lambda line: ask(line, environment)


def _ask_bash(line: str, environment: dict[str, str]) -> list[str]:
    script = (
        f"source {shlex.quote(str(FOLDER / 'bash' / 'customerctl'))}\n"
        'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))\n'
        '_customerctl; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    words = line.split(" ")
    command = ["bash", "--norc", "-c", script, "bash", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True
    )
    assert done.stderr == ""
    return [word for word in done.stdout.splitlines() if word]


def _ask_fish(line: str, environment: dict[str, str]) -> list[str]:
    script = f"source {FOLDER / 'fish' / 'customerctl.fish'}; complete -C {shlex.quote(line)}"
    command = ["fish", "--no-config", "--command", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True
    )
    assert done.stderr == ""
    return [row.partition("\t")[0] for row in done.stdout.splitlines()]


def _ask_zsh(line: str, environment: dict[str, str]) -> list[str]:
    """Type the line and Tab; zsh completes in its editor alone, so it has a terminal."""
    master, slave = pty.openpty()
    command = ["zsh", "--no-rcs", "--interactive"]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    ) as process:
        os.close(slave)
        try:
            setup = (
                f"fpath=({FOLDER / 'zsh'} $fpath); autoload -U compinit; compinit -u -D; "
                "unsetopt zle_bracketed_paste prompt_sp; LISTMAX=9999; PS1=; "
                "report() { print -r -- \"<$LBUFFER>\" }; zle -N report; bindkey '^X' report; "
                "setopt list_ambiguous no_auto_menu no_beep; print rea''dy\n"
            )
            os.write(master, setup.encode())
            _read_until(master, "\nready")
            os.write(master, line.encode() + b"\t\x18")
            text = _read_until(master, ">")
        finally:
            process.kill()
            os.close(master)
    # What is listed below the line, or what the line became.
    completed = text.rpartition("<")[2].partition(">")[0]
    listed = text.replace("\r", "").rpartition("<")[0].splitlines()[1:]
    rows = [row for row in listed if not row.startswith("customerctl ")]
    words = [part.split(" -- ")[0].strip() for row in rows for part in row.split("  ")]
    return [word for word in words if word] or [completed.removeprefix(line.rpartition(" ")[0])]


def _read_until(descriptor: int, mark: str) -> str:
    text, deadline = "", time.monotonic() + SECONDS
    while mark not in text.replace("\r", ""):
        assert time.monotonic() < deadline, text
        if select.select([descriptor], [], [], 1)[0]:
            text += os.read(descriptor, 65536).decode()
    return text


def _words(offered: list[str]) -> set[str]:
    return {word.strip().replace("\\", "") for word in offered}


def test_the_files_are_made_of_the_commands() -> None:
    """`packaging/completions` is what tools/generate_completions.py makes of the commands now."""
    for path, text in generate_completions.files().items():
        assert path.read_text("utf-8") == text, path


def test_commands_are_completed(complete: Complete) -> None:
    """Every command is offered, without a daemon."""
    assert _words(complete("customerctl ")) >= set(COMMANDS)
    assert _words(complete("customerctl signer-f")) == {"signer-forget"}


def test_options_are_completed(complete: Complete) -> None:
    """After a command its options are offered, with those of every command."""
    offered = _words(complete("customerctl pay coffee --"))
    assert offered >= {"--note", "--no-wait", "--idempotency-key", "--json", "--socket"}
    assert _words(complete("customerctl operations --status ")) == {
        "cancelled",
        "done",
        "queued",
        "refused",
        "running",
    }


def test_methods_are_completed(complete: Complete) -> None:
    """`rpc` and `token-create --method` offer the methods, `help` the commands."""
    assert _words(complete("customerctl rpc rpc.d")) == {"rpc.discover"}
    assert _words(complete("customerctl help establi")) == {"establish"}


def test_labels_are_asked_from_the_daemon(complete: Complete, owner: Owner) -> None:
    """Labels of the daemon's channels are offered, also such with spaces in them."""
    owner.channels["tea house"] = channel("tea house")
    assert _words(complete("customerctl pay ")) == {"coffee", "tea house"}
    assert _words(complete("customerctl show cof")) == {"coffee"}


def test_nothing_is_said_without_a_daemon(complete: Complete) -> None:
    """A daemon that is away means no labels, and no word of it on the terminal."""
    assert not {"coffee"} & _words(complete("customerctl pay "))


def test_what_is_typed_is_never_run(environment: dict[str, str], tmp_path: Path) -> None:
    """A command substitution in the word that is completed stays text."""
    mark = tmp_path / "ran"
    _ask_bash(f"customerctl pay $(touch${{IFS}}{mark})", environment)
    assert not mark.exists()
