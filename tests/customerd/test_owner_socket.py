"""The owner socket: JSON-RPC 2.0 as specified, whoever talks to it and however badly."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from customerd.rpc.methods import METHODS
from tests.customerd.conftest import Alone
from zkchannels.jsonrpc.errors import RpcError


def _call(method: str, identity: Any = 1, **params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
    return json.dumps(request).encode() + b"\n"


def test_the_daemon_serves_before_signer_and_chain_are_there(alone: Alone) -> None:
    """Without signer and node the daemon is ready to answer, in safe mode, and says what lacks."""
    info = alone.rpc("getinfo")
    assert info["mode"] == "safe"
    assert info["missing"] == ["chain_unavailable", "safe_mode"]
    assert info["database"] is True


def test_the_socket_and_the_guards_key_are_the_owners_alone(alone: Alone) -> None:
    """The owner socket and the key file have mode 0600."""
    for path in (alone.socket, alone.directory / "guard.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{\n", -32700),
        (b"\xff\xfe\n", -32700),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "getinfo"}\n', -32600),
        (b'{"id": 1, "method": "getinfo"}\n', -32600),
        (b"[]\n", -32600),
        (b"7\n", -32600),
        (_call("gimme"), -32601),
        (_call("show"), -32602),
        (_call("show", label=7), -32602),
        (_call("getinfo", unknown=1), -32602),
        (_call("operation", operation="not an id"), -32602),
        (b'"' + b"x" * (1 << 20) + b'"\n', -32600),
    ],
)
def test_bad_input_is_answered_and_the_daemon_goes_on(alone: Alone, line: bytes, code: int) -> None:
    """Every kind of bad line gets its error; the next request on the connection is answered."""
    answers = alone.exchange(line + _call("getinfo", 2))
    assert answers[0]["error"]["code"] == code
    assert answers[1]["id"] == 2
    assert "result" in answers[1]


def test_a_notification_is_never_executed(alone: Alone) -> None:
    """A request without an id could not be answered: it is not run, and the log says why."""
    assert alone.exchange(b'{"jsonrpc": "2.0", "method": "stop"}\n' + _call("getinfo")) == []
    assert alone.rpc("getinfo")["mode"] == "safe"
    assert any("notification" in event["event"] for event in alone.log())


def test_half_a_line_is_forgotten(alone: Alone) -> None:
    """A line that never ends is not executed."""
    assert alone.exchange(_call("stop")[:-1]) == []
    assert alone.rpc("getinfo")["mode"] == "safe"


def test_a_batch_is_answered_as_one(alone: Alone) -> None:
    """A batch of good and bad requests gets one array of answers, matched by id."""
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "getinfo"},
        {"jsonrpc": "2.0", "id": None, "method": "gimme"},
        {"jsonrpc": "2.0", "id": 3, "method": "list", "params": []},
    ]
    (answers,) = alone.exchange(json.dumps(batch).encode() + b"\n")
    by_id = {answer["id"]: answer for answer in answers}
    assert "result" in by_id["a"]
    assert by_id[None]["error"]["code"] == -32601
    assert by_id[3]["result"] == {"channels": []}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_gate_decides_from_what_a_method_needs(alone: Alone, method: Any) -> None:
    """Without chain and signer exactly the methods that need less are answered."""
    if method.name == "stop":
        return
    assert method.example is not None
    params = msgspec.to_builtins(method.example)
    try:
        answer = alone.rpc(method.name, **params)
    except RpcError as error:
        assert isinstance(error.data, dict)
        expected = {
            "nothing": ("not_found", "invalid_address"),
            "database": ("not_found",),
            "chain": ("chain_unavailable",),
            "signer": ("chain_unavailable",),
        }[method.needs]
        assert error.data["kind"] in expected, error.data
        assert error.data["kind"] in method.errors
    else:
        assert method.needs in ("nothing", "database")
        msgspec.convert(answer, method.result, strict=True)


def test_the_document_describes_every_method(alone: Alone) -> None:
    """`rpc.discover` and `help` name exactly the methods that are answered."""
    document = alone.rpc("rpc.discover")
    names = [method["name"] for method in document["methods"]]
    assert names == [method.name for method in METHODS]
    assert [m["name"] for m in alone.rpc("help")["methods"]] == names
    assert document["openrpc"].startswith("1.")


def test_a_stop_request_ends_the_daemon(alone: Alone) -> None:
    """`stop` is answered, then daemon and watcher end with exit code 0."""
    assert alone.rpc("stop")["pid"] == alone.service.pid
    assert alone.service.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(alone: Alone) -> None:
    """Even where the file's mode would let another user in, the peer's uid does not."""
    alone.socket.chmod(0o666)
    for directory in (alone.directory, alone.directory.parent):
        directory.chmod(0o711)
    script = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.settimeout(20)
print(b"".join(iter(lambda: connection.recv(65536), b"")).decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(alone.socket)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert json.loads(said)["error"]["message"] == "connection refused"
    assert any(event.get("peer_uid") == 65534 for event in alone.log())
