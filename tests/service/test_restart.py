"""Connections over a restart: the same descriptor on the client's side, another daemon behind."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from customerd.rpc.handover import Unreadable, read_state
from tests.service.conftest import Supervised
from zkchannels.jsonrpc.client import BlockingClient

Make = Callable[..., Supervised]


def _line(method: str, identity: Any = 1, **params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
    return json.dumps(request).encode() + b"\n"


def _lines(raw: socket.socket) -> Iterator[Any]:
    with raw.makefile("rb") as stream:
        for line in stream:
            yield json.loads(line)


def test_a_connection_goes_on_where_it_was(daemon: Supervised) -> None:
    """Half a line before a restart and half after it are one request; both daemons answer."""
    with daemon.connect() as raw:
        raw.sendall(_line("getinfo"))
        answers = _lines(raw)
        before = next(answers)["result"]["pid"]
        line = _line("list", "split")
        raw.sendall(line[:20])
        daemon.service.restart()
        raw.sendall(line[20:] + _line("getinfo", 3))
        found = {answer["id"]: answer["result"] for answer in (next(answers), next(answers))}
    assert found["split"] == {"channels": []}
    after = found[3]["pid"]
    assert after == daemon.service.pid != before
    assert daemon.service.stored == []


def test_clients_that_come_and_ask_during_restarts_are_all_answered(daemon: Supervised) -> None:
    """Old connections and new ones get an answer to every request while the daemon restarts."""
    ended, failures, counts = threading.Event(), [], []

    def ask(*, anew: bool) -> None:
        count = 0
        try:
            client = BlockingClient(str(daemon.socket), timeout=30)
            while not ended.is_set():
                assert client.call("list") == {"channels": []}
                count += 1
                if anew:
                    client.close()
                    client = BlockingClient(str(daemon.socket), timeout=30)
            client.close()
        except Exception as error:
            failures.append(error)
        counts.append(count)

    threads = [
        threading.Thread(target=ask, kwargs={"anew": number % 2 == 1}) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for _ in range(3):
        daemon.service.restart()
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(count >= 3 for count in counts), counts


def test_what_was_asked_while_it_was_down_is_answered(daemon: Supervised) -> None:
    """Requests sent to a daemon that is down wait in the connection for the next one."""
    with daemon.connect() as raw:
        raw.sendall(_line("getinfo", 0))
        answers = _lines(raw)
        next(answers)
        daemon.service.pause()
        assert daemon.service.stored.count("customerd-connection") == 1
        raw.sendall(b"".join(_line("list", number) for number in range(1, 300)))
        daemon.service.start()
        assert [next(answers)["id"] for _ in range(299)] == list(range(1, 300))


def test_who_leaves_meanwhile_is_forgotten(daemon: Supervised) -> None:
    """A client that hangs up while the daemon is down leaves nothing behind."""
    with daemon.connect() as raw:
        raw.sendall(_line("getinfo", 0))
        next(_lines(raw))
        daemon.service.pause()
    daemon.service.wait_stored(["customerd-state"])
    daemon.service.start()
    assert daemon.rpc("list") == {"channels": []}
    assert daemon.service.stored == []


def test_a_slow_readers_answer_is_completed_or_its_connection_closed(daemon: Supervised) -> None:
    """Of what a client did not read in time every line arrives whole, or the connection ends."""
    with daemon.connect() as raw:
        raw.sendall(b"".join(_line("rpc.discover", number) for number in range(40)))
        assert raw.recv(10, socket.MSG_PEEK)
        daemon.service.restart()
        received = b"".join(iter(lambda: raw.recv(1 << 20), b""))
    lines = received.split(b"\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == list(range(len(lines) - 1))
    assert len(lines) < 40
    assert [e["closed"] for e in daemon.log() if e["event"] == "connections_handed_over"] == [1]


def test_asked_to_stop_it_ends_connections_politely(daemon: Supervised) -> None:
    """`stop` is an end: nothing is handed over, and every connection is closed at a line's end."""
    with daemon.connect() as raw, daemon.connect() as other:
        other.sendall(_line("getinfo"))
        next(_lines(other))
        raw.sendall(_line("stop") + _line("getinfo", 2))
        assert [answer["id"] for answer in _lines(raw)][:1] == [1]
        assert list(_lines(other)) == []
    assert daemon.service.wait(20) == 0
    assert daemon.service.stored == []


def test_a_manager_that_keeps_nothing_is_told_so_by_itself(supervised: Make) -> None:
    """Without a store the connections end as at any stop; the daemon does not hand them over."""
    daemon = supervised(store=0)
    daemon.service.start()
    with daemon.connect() as raw:
        raw.sendall(_line("getinfo"))
        answers = _lines(raw)
        next(answers)
        daemon.service.restart()
        assert list(answers) == []
    assert not any(event["event"] == "connections_handed_over" for event in daemon.log())


@pytest.mark.parametrize("moment", [signal.SIGUSR1, signal.SIGUSR2], ids=["before", "after"])
def test_what_cannot_be_repeated_is_not(daemon: Supervised, moment: signal.Signals) -> None:
    """A restart that comes upon such a call tells its caller; the next daemon does not repeat."""
    before = len(daemon.rpc("token-list")["tokens"])
    os.kill(daemon.service.pid, moment)
    with daemon.connect() as raw:
        raw.sendall(_line("token-create", methods=["list"]) + _line("getinfo", 2))
        answers = _lines(raw)
        assert next(answers)["id"] == 2
        daemon.service.wait_told("hanging in a commit")
        daemon.service.restart()
        raw.sendall(_line("token-list", 3))
        found = {answer["id"]: answer for answer in (next(answers), next(answers))}
    assert found[1]["error"]["data"]["kind"] == "interrupted"
    made = len(found[3]["result"]["tokens"]) - before
    assert made == (moment == signal.SIGUSR2)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a thousand clients in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1 << 14, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
def test_a_thousand_connections_are_kept(daemon: Supervised) -> None:
    """As many connections as descriptors are allowed by default go through a restart."""
    clients = [BlockingClient(str(daemon.socket), timeout=60) for _ in range(1000)]
    for client in clients:
        client.call("list")
    daemon.service.restart()
    answered = {client.call("getinfo")["pid"] for client in clients}
    for client in clients:
        client.close()
    assert answered == {daemon.service.pid}


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def test_connections_whose_state_cannot_be_read_are_closed(daemon: Supervised) -> None:
    """A state of another version is dropped: its connections are closed, the log says why."""
    daemon.service.stop()
    ours, theirs = socket.socketpair()
    with ours:
        daemon.service.keep("customerd-connection", theirs.detach())
        daemon.service.keep("customerd-state", _memory(b"customerd connections 99\nwhatever"))
        daemon.service.start()
        ours.settimeout(20)
        assert ours.recv(100) == b""
    assert daemon.rpc("list") == {"channels": []}
    (told,) = [event for event in daemon.log() if event["event"] == "connections_dropped"]
    assert "another version" in told["reason"]
    assert daemon.service.stored == []


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([b"customerd connections 2\n"], "another version"),
        ([b"customerd connections 1\n\xc1\xc1"], "malformed"),
        ([b"customerd connections 1\n\x91\x01"], "malformed"),
        ([b"customerd connections 1\n" + b"\x91" * 5000], "malformed"),
        ([b""], "another version"),
        ([], "0 states"),
        ([b"", b""], "2 states"),
    ],
)
def test_a_state_that_is_none_is_refused(contents: list[bytes], reason: str) -> None:
    """Every state that cannot be read is refused with its reason."""
    states = [_memory(content) for content in contents]
    with pytest.raises(Unreadable, match=reason):
        read_state(states)
    for descriptor in states:
        os.close(descriptor)


def test_a_state_without_bounds_is_refused() -> None:
    """A state that is larger than any that is written is not read at all."""
    huge = os.memfd_create("test")
    os.ftruncate(huge, 1 << 40)
    with pytest.raises(Unreadable, match="bytes"):
        read_state([huge])
    os.close(huge)


def test_what_the_manager_keeps_cannot_be_changed(daemon: Supervised) -> None:
    """The state is sealed: whoever gets hold of it can change nothing in it."""
    with daemon.connect() as raw:
        raw.sendall(_line("getinfo"))
        next(_lines(raw))
        daemon.service.pause()
        state = daemon.service.kept("customerd-state")
        assert fcntl.fcntl(state, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with pytest.raises(PermissionError):
            os.pwrite(state, b"x", 0)
