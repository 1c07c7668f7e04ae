"""The blocking client of the command line: quick to start, clear when it cannot connect."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jsonrpc.support import Nothing, serving
from zkchannels.jsonrpc.client import BlockingClient, ConnectError, reason_of
from zkchannels.jsonrpc.errors import REFUSED, ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer

ROOT = Path(__file__).parents[3]
PROGRESS = Method("progress", Nothing, str, summary="Notify twice, then answer.")


async def test_calls(tmp_path: Path) -> None:
    """Calls by name and by position, with every kind of JSON value, and errors."""

    def use() -> None:
        with BlockingClient(str(served.path), timeout=20) as client:
            assert client.call("sum", {"first": 1, "second": 2}) == 3
            assert client.call("sum", [1, 2, 3]) == 6
            assert client.call("get_data") == ["hello", 5]
            text = "Zürich \U0001f600 \x00\n\u2028"
            assert client.call("echo", {"text": text}) == text
            assert client.call("big", [3_000_000]) == "x" * 3_000_000
            with pytest.raises(RpcError) as caught:
                client.call("sum", {"first": 1.5, "second": None, "third": [True, {}]})
            assert caught.value.code == -32602
            with pytest.raises(RpcError) as caught:
                client.call("nothing like it")
            assert caught.value.code == -32601
            with pytest.raises(TypeError, match="not a JSON value: object"):
                client.call("sum", [object()])
            with pytest.raises(ValueError, match="not JSON compliant"):
                client.call("sum", [float("nan")])
            assert client.call("sum", [4]) == 4

    async with serving(tmp_path) as served:
        await asyncio.to_thread(use)


async def test_progress(tmp_path: Path) -> None:
    """Notifications that come before the answer go to the callback, or nowhere."""

    def progress(_params: Nothing, peer: Peer) -> str:
        peer.notify("step", {"number": 1})
        peer.notify("step", {"number": 2})
        return "done"

    def use() -> list[tuple[str, Any]]:
        seen: list[tuple[str, Any]] = []
        with BlockingClient(str(served.path), timeout=20) as client:
            result = client.call("progress", on_notification=lambda *one: seen.append(one))
            assert result == "done"
            assert client.call("progress") == "done"
        return seen

    async with serving(tmp_path) as served:
        served.handlers.register(PROGRESS, progress)
        seen = await asyncio.to_thread(use)
        assert seen == [("step", {"number": 1}), ("step", {"number": 2})]


async def test_notifications(tmp_path: Path) -> None:
    """The iterator yields what comes, until the daemon closes the connection."""

    def use() -> list[tuple[str, Any]]:
        with BlockingClient(str(served.path), timeout=20) as client:
            client.call("sum", [1])
            loop.call_soon_threadsafe(send)
            return list(client.notifications())

    def send() -> None:
        for number in range(1000):
            served.peers[0].notify("log", {"number": number})
        served.peers[0].close()

    loop = asyncio.get_running_loop()
    async with serving(tmp_path) as served:
        received = await asyncio.to_thread(use)
        assert received == [("log", {"number": number}) for number in range(1000)]


async def test_timeouts(tmp_path: Path) -> None:
    """A call ends when its answer takes too long; the late answer is not taken for the next one."""

    def use() -> None:
        with BlockingClient(str(served.path), timeout=0.05) as client:
            with pytest.raises(RequestTimeout):
                client.call("wait")
            loop.call_soon_threadsafe(served.release.set)
            client._socket.settimeout(20)
            assert client.call("sum", [1]) == 1

    loop = asyncio.get_running_loop()
    async with serving(tmp_path) as served:
        await asyncio.to_thread(use)


async def test_refused_by_the_daemon(tmp_path: Path) -> None:
    """A client that the daemon does not accept reads the reason."""

    def use() -> None:
        with BlockingClient(str(served.path), timeout=20) as client:
            with pytest.raises(RpcError) as caught:
                client.call("sum", [1])
            assert caught.value.code == REFUSED

    async with serving(tmp_path, accept=lambda _: False) as served:
        await asyncio.to_thread(use)


@pytest.mark.parametrize(
    "answer", [b"", b"half", b"no JSON\n", b"[]\n", b"{} {}\n", b'{"a":NaN}\n']
)
def test_unreadable_answers(answer: bytes, tmp_path: Path) -> None:
    """An answer that is no JSON object, or none at all, is a lost connection."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with BlockingClient(path, timeout=20) as client:
            accepted, _ = listening.accept()
            accepted.sendall(answer)
            accepted.shutdown(socket.SHUT_WR)
            with accepted, pytest.raises(ConnectionLost):
                client.call("sum", [1])


def test_cannot_connect(tmp_path: Path) -> None:
    """No socket, nobody listening, and no room are told apart; the error names the path."""
    path = tmp_path / "socket"
    assert reason(path) == "absent"
    assert reason(tmp_path / "socket" / "below") == "absent"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as stack:
        listening.bind(str(path))
        assert reason(path) == "refused"
        listening.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        assert reason(path) == "busy"
    path.unlink()
    path.write_text("no socket")
    assert reason(path) == "refused"
    assert reason(Path("x" * 200)) == "other"
    assert reason_of(PermissionError(errno.EACCES, "")) == "forbidden"


def reason(path: Path) -> str:
    """Return why a connection fails."""
    with pytest.raises(ConnectError) as caught:
        BlockingClient(str(path), connect_timeout=0.05)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_imports_little() -> None:
    """Starting the client imports none of the modules that take longer than a call."""
    program = "import sys, zkchannels.jsonrpc.client; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "_socket" in modules
    slow = {"socket", "json", "re", "enum", "typing", "collections", "asyncio", "dataclasses"}
    assert not slow & set(modules)
