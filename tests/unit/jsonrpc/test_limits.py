"""What one connection can take from the others: lines, calls, buffers, time, descriptors."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from tests.unit.jsonrpc.support import (
    BIG,
    ECHO,
    SUM,
    WAIT,
    Nothing,
    Size,
    Summands,
    Text,
    Wire,
    connected,
    serving,
    wire,
)
from zkchannels.jsonrpc.errors import ConnectionLost
from zkchannels.jsonrpc.peer import Limits

MEBIBYTE = 1 << 20


@contextmanager
def traced() -> Iterator[None]:
    """Measure what is allocated in the body."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


async def test_byte_by_byte(tmp_path: Path) -> None:
    """A request that drips in one byte at a time is one request."""
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sum", "params": [1, 2]}).encode()
    async with (
        serving(tmp_path) as served,
        wire(served.path) as client,
        connected(served.path) as other,
    ):
        for position in range(len(text)):
            client.send_raw(text[position : position + 1])
            await other.request(SUM, Summands(1))
        client.send_raw(b"\n")
        assert (await client.receive())["result"] == 3


async def test_longest_line(tmp_path: Path) -> None:
    """A line of exactly 1 MiB is served; its answer may be longer than that."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        frame = '{"jsonrpc":"2.0","id":1,"method":"echo","params":["%s"]}'
        text = "x" * (MEBIBYTE - len(frame) + 2)
        client.send((frame % text).encode())
        assert (await client.receive())["result"] == text
        client.call("big", [3 * MEBIBYTE])
        assert len((await client.receive())["result"]) == 3 * MEBIBYTE


@pytest.mark.parametrize("length", [MEBIBYTE + 1, 5 * MEBIBYTE])
async def test_oversize_line(length: int, tmp_path: Path) -> None:
    """A longer line gives one error, is passed over to its end, and the connection goes on."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("sum", [1], identity="before")
        client.send(b"x" * length)
        client.call("sum", [1], identity="after")
        answers = [await client.receive() for _ in range(3)]
        assert [answer["id"] for answer in answers] == ["before", None, "after"]
        assert answers[1]["error"]["code"] == -32600


async def test_oversize_line_in_one_piece(tmp_path: Path) -> None:
    """With a small limit, lines that arrive whole are held to it as well."""
    limits = Limits(max_line=200)
    async with serving(tmp_path, limits=limits) as served, wire(served.path) as client:
        client.send(b"x" * 201, b"x" * 200)
        client.call("sum", [1])
        answers = [await client.receive() for _ in range(3)]
        assert [answer.get("error", {}).get("code") for answer in answers] == [-32600, -32700, None]


async def test_oversize_line_while_an_answer_is_due(tmp_path: Path) -> None:
    """A caller does not wait in vain for an answer that was too long to read."""
    async with (
        serving(tmp_path) as served,
        connected(served.path, limits=Limits(max_line=200)) as peer,
    ):
        with pytest.raises(ValueError, match="at most 200 bytes"):
            await peer.request(ECHO, Text("x" * 200))
        assert await peer.request(ECHO, Text("x" * 100)) == "x" * 100
        with pytest.raises(ConnectionLost, match="answer malformed"):
            await peer.request(BIG, Size(200))


async def test_half_a_line_is_never_executed(tmp_path: Path) -> None:
    """A request without its newline is dropped when the other side closes."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send_raw(b'{"jsonrpc":"2.0","method":"wait","id":1}')
        client.writer.write_eof()
        assert await client.rest() == []
        await served.peers[0].wait_closed()
        assert served.begun.empty()
        assert served.log == []


async def test_half_close(tmp_path: Path) -> None:
    """After the client closed its direction, what it asked is still answered, then closed."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("wait", identity=1)
        client.call("sum", [1], identity=2)
        client.writer.write_eof()
        assert (await client.receive())["id"] == 2
        served.release.set()
        assert (await client.receive())["id"] == 1
        assert await client.rest() == []


async def test_half_close_with_a_backlog(tmp_path: Path) -> None:
    """A half-closed connection still has its waiting calls begun and answered, every one."""
    limits = Limits(max_outstanding=2)
    async with serving(tmp_path, limits=limits) as served, wire(served.path) as client:
        for identity in range(20):
            client.call("wait", identity=identity)
        client.writer.write_eof()
        await served.begun.get()
        served.release.set()
        assert sorted(answer["id"] for answer in await client.rest()) == list(range(20))


async def test_calls_in_flight_are_bounded(tmp_path: Path) -> None:
    """No more calls are begun than allowed; the others wait and are answered later."""
    limits = Limits(max_outstanding=3)
    async with serving(tmp_path, limits=limits) as served, wire(served.path) as client:
        for identity in range(10):
            client.call("wait", identity=identity)
        for _ in range(3):
            await served.begun.get()
        async with connected(served.path) as other:
            assert await other.request(SUM, Summands(1)) == 1
        assert served.begun.empty()
        served.release.set()
        answers = [await client.receive() for _ in range(10)]
        assert sorted(answer["id"] for answer in answers) == list(range(10))


async def test_own_calls_are_bounded(tmp_path: Path) -> None:
    """A peer sends no more calls than allowed at once, and all in the end."""
    async with (
        serving(tmp_path) as served,
        connected(served.path, limits=Limits(max_outstanding=3)) as peer,
    ):
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(peer.request(WAIT, Nothing())) for _ in range(10)]
            for _ in range(3):
                await served.begun.get()
            assert served.begun.empty()
            served.release.set()
        assert [call.result() for call in calls] == ["released"] * 10


async def test_a_flood_does_not_hold_others_up(tmp_path: Path) -> None:
    """Another client is answered long before thousands of queued calls are."""
    async with serving(tmp_path) as served, wire(served.path) as flood, wire(served.path) as other:
        other.call("sum", [1])
        await other.receive()
        for identity in range(5000):
            flood.call("sum", [1], identity=identity)
        await flood.receive()
        other.call("sum", [2])
        assert (await other.receive())["result"] == 2
        assert served.sums < 4000
        answers = [await flood.receive() for _ in range(4999)]
        assert [answer["id"] for answer in answers] == list(range(1, 5000))


async def test_memory_of_a_slow_reader(tmp_path: Path) -> None:
    """A client that asks for 200 MB and reads nothing costs a bounded amount, and loses nothing."""
    count, size = 2000, 100_000
    async with (
        serving(tmp_path, check_results=False) as served,
        wire(served.path) as client,
        connected(served.path) as other,
    ):
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        with traced():
            for identity in range(count):
                client.call("big", [size], identity=identity)
            await client.writer.drain()
            for _ in range(100):
                assert await other.request(SUM, Summands(1)) == 1
            assert served.peers[0].transport.get_write_buffer_size() > size
            _, peak = tracemalloc.get_traced_memory()
        assert peak < 4 * MEBIBYTE
        client.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for identity in range(count):
            answer = await client.receive()
            assert answer["id"] == identity
            assert len(answer["result"]) == size


async def test_memory_of_an_endless_sender(tmp_path: Path) -> None:
    """What waits unread on a connection is bounded: beyond it the sender has to wait."""
    limits = Limits(max_outstanding=1)
    line = b'{"jsonrpc":"2.0","method":"wait","id":1}' + b" " * 1000 + b"\n"
    sent = 0

    async def send(client: Wire) -> None:
        nonlocal sent
        while True:
            client.send_raw(line)
            sent += len(line)
            await client.writer.drain()

    async with (
        serving(tmp_path, limits=limits) as served,
        connected(served.path) as other,
        wire(served.path) as client,
    ):
        client.call("wait")
        await served.begun.get()
        with traced():
            sending = served.group.create_task(send(client))
            while served.peers[1].transport.is_reading():
                await other.request(SUM, Summands(1))
            for _ in range(100):
                await other.request(SUM, Summands(1))
            sending.cancel()
            _, peak = tracemalloc.get_traced_memory()
        assert MEBIBYTE < sent < 3 * MEBIBYTE
        assert peak < 4 * MEBIBYTE
        client.writer.transport.abort()


async def test_stalled_reader_is_dropped(tmp_path: Path) -> None:
    """A client that takes nothing of what waits for it is disconnected."""
    limits = Limits(write_stall=0.05)
    async with serving(tmp_path, limits=limits) as served, wire(served.path) as client:
        client.call("sum", [1])
        await client.receive()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.call("big", [4 * MEBIBYTE])
        await served.peers[0].wait_closed()
        assert served.events == ["peer_stalled"]


async def test_idle_connection_is_dropped(tmp_path: Path) -> None:
    """With an idle timeout a silent client is disconnected, but not one that is being served."""
    limits = Limits(idle_timeout=0.05)
    async with (
        serving(tmp_path, limits=limits) as served,
        wire(served.path) as silent,
        wire(served.path) as waiting,
    ):
        waiting.call("wait")
        silent.send_raw(b"half a line")
        assert await silent.rest() == []
        served.release.set()
        assert (await waiting.receive())["result"] == "released"
        assert await waiting.rest() == []
        assert served.log == []


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Let this process open some thousands of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4500)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
async def test_many_idle_connections(tmp_path: Path) -> None:
    """Two thousand idle connections cost little and are all served."""
    count = 2000
    clients = []
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        peer = await stack.enter_async_context(connected(served.path))
        stack.enter_context(traced())
        for number in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(served.path))
            clients.append(client)
            if number % 500 == 499:
                assert await peer.request(SUM, Summands(1)) == 1
        assert len(served.server.connections) == count + 1
        used, _ = tracemalloc.get_traced_memory()
        assert used / count < 4096
        loop = asyncio.get_running_loop()
        for client in clients[::100]:
            client.setblocking(False)
            await loop.sock_sendall(
                client, b'{"jsonrpc":"2.0","method":"sum","params":[5],"id":1}\n'
            )
            assert json.loads(await loop.sock_recv(client, 1000))["result"] == 5
