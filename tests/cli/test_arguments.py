"""The command line: what it means, how it is explained, what is said of mistakes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import msgspec
import pytest

from customerctl import VERSION
from customerctl._commands import COMMANDS
from customerctl.arguments import UsageError, read
from customerctl.endpoint import socket_path
from customerctl.helping import explanation, overview, usage
from customerd import VERSION as DAEMON_VERSION
from customerd.rpc.methods import METHODS
from tests.cli.running import Customerctl

METHOD = {method.name: method for method in METHODS}
EXAMPLES = [
    (name, example) for name, command in COMMANDS.items() for example in command["examples"]
]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda value: value[:40])
def test_every_example_is_understood(name: str, example: str) -> None:
    """Every example in the help is a valid command line with valid parameters."""
    program, *arguments = shlex.split(example)
    request = read(arguments)
    assert (program, request.command) == ("customerctl", name)
    if name in METHOD:
        msgspec.convert(request.params, METHOD[name].params)


def test_short_and_long_ways_mean_the_same() -> None:
    """What is read without argparse means the same as what is read with it."""
    for line in ("getinfo", "show coffee", "pay coffee 0.005 ETH", "rename a b", "history coffee"):
        short = read(line.split())
        long = read(["--socket", "x", *line.split()])
        assert (short.command, short.params) == (long.command, long.params)


def test_options_are_typed() -> None:
    """Numbers, choices and switches become what the method wants."""
    assert read(["history", "--limit", "7"]).params == {"limit": 7}
    assert read(["wait", "ab", "--timeout", "1.5"]).params == {"operation": "ab", "timeout": 1.5}
    assert read(["close", "a", "--force"]).params == {"label": "a", "force": True}
    assert read(["close", "a", "--no-wait"]).params == {"label": "a", "wait": False}
    assert read(["subscribe", "chain", "signer"]).params == {"topics": ["chain", "signer"]}
    assert read(["show", "--", "-odd-"]).params == {"label": "-odd-"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("getinfos", "did you mean 'getinfo'"),
        ("list extra", "unrecognized arguments: extra"),
        ("pay coffee", "required: AMOUNT"),
        ("establish address", "required: --deposit"),
        ("history --limit many", "--limit is a whole number, not 'many'"),
        ("history --limit 1001", "--limit is 1 to 1000, not 1001"),
        ("wait ab --timeout -1", "--timeout is at least 0"),
        ("wait ab --timeout nan", "--timeout is at least 0"),
        ("wait ab --timeout inf", "--timeout is at least 0"),
        ("estimate dance", "KIND is one of close, establish, pay, refund"),
        ("subscribe weather", "TOPIC is one of"),
        ("close coffee --fo", "unrecognized arguments: --fo"),
        ("--verbose", "unrecognized arguments: --verbose"),
        ("--json", "which command"),
        ("pay coffee 1 ETH --socket", "expected one argument"),
    ],
)
def test_mistakes_are_named(line: str, message: str) -> None:
    """A mistake is named in the words of the command line."""
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read(line.split())


def test_a_mistake_shows_the_usage(customerctl: Customerctl) -> None:
    """A mistake exits 2, with the usage line of the command on standard error."""
    done = customerctl.run("pay", "coffee")
    assert (done.returncode, done.stdout) == (2, "")
    assert usage("pay") in done.stderr
    done = customerctl.run("pya", "coffee")
    assert done.returncode == 2
    assert "did you mean 'pay'?" in done.stderr


def test_a_mistake_as_json_is_an_error_object(customerctl: Customerctl) -> None:
    """With --json also a mistake is an error object on standard output."""
    done = customerctl.run("pay", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "usage"


def test_text_that_is_no_utf8_is_refused(customerctl: Customerctl) -> None:
    """Arguments in another encoding are refused before anything is sent."""
    done = customerctl.run("pay", "caf\udce9", "1 ETH")
    assert done.returncode == 2
    assert "UTF-8" in done.stderr


def test_help_is_one_text(customerctl: Customerctl) -> None:
    """`help pay`, `pay --help` and `pay -h` print the same, without any daemon."""
    texts = {
        customerctl.run(*arguments).stdout
        for arguments in (("help", "pay"), ("pay", "--help"), ("pay", "coffee", "-h"))
    }
    assert texts == {explanation("pay") + "\n"}
    texts = {customerctl.run(*arguments).stdout for arguments in (("help",), ("--help",), ("-h",))}
    assert texts == {overview() + "\n"}


def test_without_arguments_the_overview_is_a_mistake(customerctl: Customerctl) -> None:
    """No command at all prints the overview and exits 2; asked for, it exits 0."""
    done = customerctl.run()
    assert (done.returncode, done.stdout) == (2, overview() + "\n")
    assert customerctl.run("help").returncode == 0
    done = customerctl.run("help", "pya")
    assert done.returncode == 2
    assert "did you mean 'pay'?" in done.stderr


def test_help_covers_every_method_and_parameter() -> None:
    """Every method is a command, and its help names every parameter of the method."""
    commands: dict[str, Any] = dict(COMMANDS)
    assert {name for name in METHOD if not name.startswith("rpc.")} == commands.keys() - {
        "logs",
        "rpc",
        "token-restrict",
    }
    for name, command in COMMANDS.items():
        text = explanation(name)
        assert f"  {name} " in overview()
        assert all(len(line) <= 80 for line in text.splitlines() if "  customerctl" not in line)
        for parameter in command["parameters"]:
            assert (parameter["flag"] or parameter["metavar"]) in text
        if name in METHOD:
            fields = {parameter["name"] for parameter in command["parameters"]}
            assert fields == set(METHOD[name].params.__struct_fields__)


def test_the_version_is_the_daemon_s(customerctl: Customerctl) -> None:
    """`--version` prints the version, which all programs of a release share."""
    assert VERSION == DAEMON_VERSION
    assert customerctl.run("--version").stdout == f"customerctl {VERSION}\n"


def test_a_wallet_names_the_systems_daemon_for_it() -> None:
    """`--wallet` leads to that daemon's sockets and never out of their folder."""
    assert read(["--wallet", "second", "getinfo"]).wallet == "second"
    assert socket_path(None, wallet="second") == "/run/customerd/second/customerd.sock"
    assert socket_path(None, wallet="second", monitor=True) == "/run/customerd/second/monitor.sock"
    for name in ("../x", "a/b", ".", "", "a b"):
        with pytest.raises(UsageError, match="is no name of a wallet"):
            read(["getinfo", "--wallet", name])
    with pytest.raises(UsageError, match="--wallet and --socket"):
        read(["getinfo", "--wallet", "second", "--socket", "x"])
