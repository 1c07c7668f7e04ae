"""Exit codes and messages: refusals, no daemon, a daemon that goes away, streams that close."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from customerd.rpc.errors import failure
from tests.cli.owner import Owner
from tests.cli.running import COMMAND, SECONDS, Customerctl
from zkchannels.jsonrpc.errors import STOPPING, RpcError

WITHOUT_OVERRIDE = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) if os.geteuid() == 0 else ():
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the error object on standard output; nothing else may have been said."""
    assert done.stderr == ""
    error: dict[str, object] = json.loads(done.stdout)["error"]
    return error


def test_a_refusal_shows_message_and_hint(owner: Owner, customerctl: Customerctl) -> None:
    """A refusal exits 1 with the daemon's message and hint on standard error."""
    done = customerctl.run("show", "tea")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "customerctl: no channel is called 'tea'\n  see `customerctl list`\n"


def test_a_refusal_as_json_is_the_error_object(owner: Owner, customerctl: Customerctl) -> None:
    """With --json a refusal is the daemon's error object on standard output."""
    done = customerctl.run("show", "tea", "--json")
    assert done.returncode == 1
    expected = failure("not_found", "no channel is called 'tea'", hint="see `customerctl list`")
    assert error_of(done) == {
        "code": expected.code,
        "message": expected.message,
        "data": expected.data,
    }


def test_safe_mode_says_how_to_start_the_signer(owner: Owner, customerctl: Customerctl) -> None:
    """Where the daemon gives no hint, the command line has one for what people meet often."""
    owner.refusals["pay"] = failure("safe_mode", "no signer is attached")
    told = customerctl.run("pay", "coffee", "0.01 ETH").stderr
    assert told.startswith("customerctl: no signer is attached\n")
    assert "customersigner run" in told


def test_parameters_the_daemon_does_not_take_are_usage_errors(
    owner: Owner, customerctl: Customerctl
) -> None:
    """A value that the daemon finds malformed exits 2 and names the argument."""
    done = customerctl.run("wait", "17")
    assert done.returncode == 2
    assert done.stderr.startswith("customerctl: OPERATION: Expected")
    assert "  OPERATION: Id of the operation" in done.stderr
    assert "usage: customerctl wait OPERATION" in done.stderr


def test_an_error_without_kind_is_shown(owner: Owner, customerctl: Customerctl) -> None:
    """An internal error of the daemon exits 1 with its message."""
    owner.refusals["list"] = RpcError(-32603, "internal error")
    done = customerctl.run("list", "--json")
    assert (done.returncode, error_of(done)["code"]) == (1, -32603)


def test_no_socket_says_how_to_start(customerctl: Customerctl, socket_directory: Path) -> None:
    """Without a socket: exit 3, one line that says so, one that says how to start the daemon."""
    done = customerctl.run("getinfo")
    assert (done.returncode, done.stdout) == (3, "")
    sentence, hint = done.stderr.splitlines()
    assert "not running: there is no socket" in sentence
    assert str(socket_directory) in sentence
    assert "start it: customerd" in hint


def test_nobody_listening_is_told_apart(owner: Owner, customerctl: Customerctl) -> None:
    """A socket that a killed daemon left behind: exit 3, told apart from a missing one."""
    owner.die()
    done = customerctl.run("getinfo", "--json")
    assert done.returncode == 3
    error = error_of(done)
    assert "nobody listens" in str(error["message"])
    assert error["data"]["kind"] == "no_daemon"  # type: ignore[index]


def test_wrong_permissions_are_told_apart(owner: Owner, customerctl: Customerctl) -> None:
    """A socket of somebody else: exit 3, says permission denied and whose it is."""
    owner.path.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OVERRIDE, *COMMAND, "getinfo"],
        env=customerctl.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 3
    assert "permission denied" in done.stderr
    assert "sudo -u" in done.stderr


def test_a_refused_connection_is_told(owner: Owner, customerctl: Customerctl) -> None:
    """A daemon that does not accept this user: exit 3 with its reason."""
    owner.accept = False
    done = customerctl.run("getinfo")
    assert (done.returncode, done.stdout) == (3, "")
    assert "connection refused" in done.stderr


def test_a_full_backlog_is_told(socket_directory: Path, customerctl: Customerctl) -> None:
    """A daemon that accepts no connection: exit 3 after some seconds, not a wait for ever."""
    path = str(socket_directory / "customerd.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        done = customerctl.run("getinfo")
    assert done.returncode == 3
    assert "accepts no connection" in done.stderr


def test_the_socket_is_found(owner: Owner, customerctl: Customerctl) -> None:
    """--socket is stronger than the environment, in both ways of writing it."""
    nowhere = {"CUSTOMERD_SOCKET": "/nonexistent/socket"}
    path = str(owner.path)
    assert customerctl.run("getinfo", environment=nowhere).returncode == 3
    for option in (("--socket", path), (f"--socket={path}",)):
        assert customerctl.run("getinfo", *option, environment=nowhere).returncode == 0
        assert customerctl.run(*option, "getinfo", environment=nowhere).returncode == 0


def test_the_daemon_dies_while_an_operation_is_waited_for(
    start_owner: Callable[[], Owner], customerctl: Customerctl
) -> None:
    """The daemon dying mid-wait: exit 3, says that the operation goes on and how to look at it."""
    owner = start_owner()
    owner.hold_at, owner.announced = ("prove",), frozenset({"wait"})
    process = customerctl.start("pay", "coffee", "0.01 ETH")
    owner.await_held()
    owner.await_held()
    owner.die()
    shown, told = process.communicate(timeout=SECONDS)
    identity = next(iter(owner.operations))
    assert (process.returncode, shown) == (3, "")
    assert f"the operation goes on: customerctl wait {identity}" in told


def test_the_daemon_dies_before_it_answers(owner: Owner, customerctl: Customerctl) -> None:
    """The daemon dying before it took an operation: says what is unknown and how to repeat it."""
    owner.silent = frozenset({"pay"})
    process = customerctl.start("pay", "coffee", "0.01 ETH")
    owner.await_held()
    owner.die()
    _, told = process.communicate(timeout=SECONDS)
    key = owner.calls[0][1].idempotency_key
    assert process.returncode == 3
    assert "whether it took the pay is unknown" in told
    assert f"--idempotency-key {key}" in told


def test_a_stopping_daemon_is_no_daemon(owner: Owner, customerctl: Customerctl) -> None:
    """A daemon that gives the call up because it stops: exit 3."""
    owner.refusals["list"] = RpcError(STOPPING, "stopping")
    done = customerctl.run("list")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        3,
        "customerctl: customerd is stopping",
    )


def test_an_answer_of_another_version_is_told(owner: Owner, customerctl: Customerctl) -> None:
    """A daemon whose answer lacks what is to be shown: a message, no traceback."""
    path = owner.path.with_name("other.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = customerctl.start("list", "--socket", str(path))
        connection, _ = listener.accept()
        with connection:
            request = json.loads(connection.makefile().readline())
            connection.sendall(b'{"jsonrpc":"2.0","id":%d,"result":{}}\n' % request["id"])
            _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "of another version" in told
    assert "Traceback" not in told


def test_events_stream_until_the_daemon_ends(owner: Owner, customerctl: Customerctl) -> None:
    """`subscribe` prints each event as it comes and, at the end, how to go on without loss."""
    owner.publish("signer", "attached")
    owner.publish("chain", "head")
    process = customerctl.start("subscribe", "signer", "operation", "--after", "0")
    assert process.stdout is not None
    assert "signer.attached" in process.stdout.readline()
    owner.publish("operation", "step", label="coffee", operation="ab" * 16, details={"step": "a"})
    assert process.stdout.readline().endswith(f"operation.step  coffee  step=a  {'ab' * 16}\n")
    owner.die()
    rest, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, rest) == (3, "")
    assert "customerctl subscribe signer operation --after 3" in told


def test_events_as_json_are_one_per_line(owner: Owner, customerctl: Customerctl) -> None:
    """`subscribe --json` prints one object per line; Ctrl-C ends it quietly with 130."""
    owner.publish("chain", "head", details={"number": 7})
    process = customerctl.start("subscribe", "--json", "--after", "0")
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    assert (event["seq"], event["details"]) == (1, {"number": 7})
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("arguments", [("list",), ("help",), ("list", "--json")])
def test_a_reader_that_goes_away_is_no_error(
    owner: Owner, customerctl: Customerctl, arguments: tuple[str, ...]
) -> None:
    """`| head` closing the pipe ends the program quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    process = customerctl.start(*arguments, stdout=writing)
    os.close(writing)
    _, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (0, "")


def test_a_reader_that_goes_away_ends_a_subscription(
    owner: Owner, customerctl: Customerctl
) -> None:
    """A subscription whose reader is gone ends with the next event."""
    with customerctl.start("subscribe", "--after", "0") as process:
        assert process.stdout is not None
        owner.publish("chain", "head")
        assert process.stdout.readline()
        process.stdout.close()
        owner.publish("chain", "head")
    assert process.returncode == 0


def test_a_full_disk_is_told(owner: Owner, customerctl: Customerctl) -> None:
    """A result that cannot be written is an error with its reason."""
    with Path("/dev/full").open("w") as full:
        process = customerctl.start("list", stdout=full)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "cannot write the result: No space left on device" in told


def test_closed_streams_do_not_stop_an_operation(owner: Owner, customerctl: Customerctl) -> None:
    """Started without standard output and error, a payment is made all the same."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {' '.join(COMMAND)} pay coffee '0.01 ETH' >&- 2>&-"],
        env=customerctl.environment,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0
    assert [row.status for row in owner.operations.values()] == ["done"]


def test_a_note_from_a_closed_input_is_refused(owner: Owner, customerctl: Customerctl) -> None:
    """`--note -` without any standard input is an error, and nothing is paid."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {' '.join(COMMAND)} pay coffee '0.01 ETH' --note - <&-"],
        env=customerctl.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, owner.operations) == (2, {})
    assert "standard input is closed" in done.stderr


def test_an_impossible_path_is_told(customerctl: Customerctl) -> None:
    """A path that cannot be a socket's: exit 3 with the reason."""
    done = customerctl.run("getinfo", "--socket", "/tmp/" + "x" * 200)
    assert (done.returncode, done.stdout) == (3, "")
    assert "the path is too long" in done.stderr


def test_an_ascii_output_shows_what_it_can(owner: Owner, customerctl: Customerctl) -> None:
    """An output that cannot take all letters gets them escaped."""
    owner.note = "été"
    done = customerctl.run("pay", "coffee", "0.01 ETH", environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert r"merchant: \xe9t\xe9" in done.stdout
