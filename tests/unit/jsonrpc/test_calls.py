"""Calls in both directions: their answers, errors, timeouts, cancellation, and lost connections."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jsonrpc.support import (
    ECHO,
    GET_DATA,
    SUM,
    WAIT,
    Nothing,
    Summands,
    Text,
    connected,
    serving,
    wire,
)
from zkchannels.jsonrpc.errors import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    STOPPING,
    ConnectionLost,
    ProtocolError,
    RequestTimeout,
    RpcError,
)
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Limits, Peer
from zkchannels.jsonrpc.server import connect_unix

DOUBLE = Method("double", Text, str, summary="Return the text twice, by asking back.")
FAIL = Method("fail", Nothing, int, summary="Fail.")


async def test_results_are_typed(tmp_path: Path) -> None:
    """A call returns its method's type."""
    async with serving(tmp_path) as served, connected(served.path) as peer:
        assert await peer.request(SUM, Summands(1, 2, 3)) == 6
        assert await peer.request(GET_DATA, Nothing()) == ["hello", 5]


async def test_both_directions_at_once(tmp_path: Path) -> None:
    """Calls both ways at their limits, with large texts, and calls back within them, all end."""
    limits = Limits(max_outstanding=8)

    async def double(params: Text, peer: Peer) -> str:
        first, second = [await peer.request(ECHO, params, timeout=10) for _ in range(2)]
        return first + second

    async with serving(tmp_path, limits=limits) as served:
        served.handlers.register(DOUBLE, double)
        async with connected(served.path, served.handlers, limits=limits) as peer:
            await peer.request(SUM, Summands(1))
            text = "x" * 50_000
            async with asyncio.TaskGroup() as group:
                there = [group.create_task(peer.request(DOUBLE, Text(text))) for _ in range(40)]
                back = [
                    group.create_task(served.peers[0].request(ECHO, Text(text))) for _ in range(40)
                ]
            assert all(call.result() == text + text for call in there)
            assert all(call.result() == text for call in back)


async def test_peer_without_handlers(tmp_path: Path) -> None:
    """A peer that answers nothing says so."""
    async with serving(tmp_path) as served, connected(served.path) as peer:
        await peer.request(SUM, Summands(1))
        with pytest.raises(RpcError) as caught:
            await served.peers[0].request(SUM, Summands(1))
        assert caught.value.code == METHOD_NOT_FOUND


@pytest.mark.parametrize("data", [None, {"kind": "channel_busy", "retry": "later"}, [1], "text"])
async def test_errors_pass(data: Any, tmp_path: Path) -> None:
    """A handler's RpcError arrives with its code, message and data."""

    async def fail(_params: Nothing, _peer: Peer) -> int:
        raise RpcError(-32010, "the channel is busy", data)

    async with serving(tmp_path) as served, connected(served.path) as peer:
        served.handlers.register(FAIL, fail)
        with pytest.raises(RpcError) as caught:
            await peer.request(FAIL, Nothing())
        error = caught.value
        assert (error.code, error.message, error.data) == (-32010, "the channel is busy", data)
        assert str(error) == "the channel is busy (-32010)"
        assert served.log == []


@pytest.mark.parametrize("coroutine", [False, True])
async def test_failures_tell_nothing(coroutine: bool, tmp_path: Path) -> None:
    """Any other exception tells the caller its type alone, and the log the rest."""

    def fail(_params: Nothing, _peer: Peer) -> int:
        raise KeyError("a secret")

    async def fail_later(params: Nothing, peer: Peer) -> int:
        return fail(params, peer)

    async with serving(tmp_path) as served, connected(served.path) as peer:
        served.handlers.register(FAIL, fail_later if coroutine else fail)
        with pytest.raises(RpcError) as caught:
            await peer.request(FAIL, Nothing())
        assert (caught.value.code, caught.value.message) == (INTERNAL_ERROR, "KeyError")
        assert caught.value.data is None
        [entry] = served.log
        assert entry["event"] == "handler_failed"
        assert entry["method"] == "fail"
        assert str(entry["exc_info"]) == "'a secret'"
        assert await peer.request(SUM, Summands(1)) == 1


@pytest.mark.parametrize(
    "value", [object(), "\ud800", {1: object()}], ids=["object", "surrogate", "nested"]
)
async def test_values_that_cannot_be_sent(value: Any, tmp_path: Path) -> None:
    """A result, or an error's data, that is no JSON becomes an internal error."""
    anything = Method("anything", Nothing, dict[str, object], summary="Return anything.")

    def fail(_params: Nothing, _peer: Peer) -> int:
        raise RpcError(1, "unfit", value)

    async with serving(tmp_path) as served, connected(served.path) as peer:
        served.handlers.register(anything, lambda _params, _peer: value)
        served.handlers.register(FAIL, fail)
        calls = (peer.request(anything, Nothing()), peer.request(FAIL, Nothing()))
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, RpcError)
            assert outcome.code == INTERNAL_ERROR
        assert served.events == ["handler_failed"] * 2


async def test_results_are_checked(tmp_path: Path) -> None:
    """Where results are checked, one of another type than the method's is an internal error."""
    async with serving(tmp_path) as served, connected(served.path) as peer:
        served.handlers.register(FAIL, lambda _params, _peer: "no number")  # type: ignore[arg-type, return-value]
        with pytest.raises(RpcError) as caught:
            await peer.request(FAIL, Nothing())
        assert (caught.value.code, caught.value.message) == (INTERNAL_ERROR, "ValidationError")


async def test_result_of_another_type(tmp_path: Path) -> None:
    """A result that is not of the method's type ends the connection of the peer that sent it."""
    async with serving(tmp_path, check_results=False) as served:
        served.handlers.register(FAIL, lambda _params, _peer: "no number")  # type: ignore[arg-type, return-value]
        log: list[str] = []
        async with connected(served.path, log=lambda event, **_: log.append(event)) as peer:
            with pytest.raises(ProtocolError):
                await peer.request(FAIL, Nothing())
            assert peer.closed
            assert log == ["result_malformed"]


async def test_timeout(tmp_path: Path) -> None:
    """A call ends in time without an answer; its late answer is ignored, the connection goes on."""
    log: list[str] = []
    async with (
        serving(tmp_path) as served,
        connected(served.path, log=lambda event, **_: log.append(event)) as peer,
    ):
        with pytest.raises(RequestTimeout):
            await peer.request(WAIT, Nothing(), timeout=0.05)
        served.release.set()
        assert await served.finished.get() == "released"
        assert await peer.request(SUM, Summands(1)) == 1
        assert not peer.closed
        assert log == []


async def test_timeout_covers_waiting_for_a_turn(tmp_path: Path) -> None:
    """The timeout runs while a call waits for its turn, too; no turn is lost by that."""
    async with (
        serving(tmp_path) as served,
        connected(served.path, limits=Limits(max_outstanding=1)) as peer,
    ):
        waiting = served.group.create_task(peer.request(WAIT, Nothing()))
        await served.begun.get()
        with pytest.raises(RequestTimeout):
            await peer.request(SUM, Summands(1), timeout=0.05)
        assert served.sums == 0
        served.release.set()
        assert await waiting == "released"
        assert await peer.request(SUM, Summands(1)) == 1


async def test_timeout_covers_a_full_buffer(tmp_path: Path) -> None:
    """The timeout runs while a call waits for the other side to read; its place is freed again."""
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(str(tmp_path / "deaf"))
        listening.listen()
        limits = Limits(max_outstanding=2)
        async with connected(tmp_path / "deaf", limits=limits) as peer:
            peer.notify("log", "x" * (2 << 20))
            for _ in range(5):
                with pytest.raises(RequestTimeout):
                    await peer.request(SUM, Summands(1), timeout=0.01)
            assert peer.transport.get_write_buffer_size() < 2 << 20
            peer.abort()


async def test_no_time_at_all(tmp_path: Path) -> None:
    """A deadline that has passed ends a call, and only that call."""
    async with serving(tmp_path) as served, connected(served.path) as peer:
        for timeout in (0, -1):
            with pytest.raises(RequestTimeout):
                await peer.request(WAIT, Nothing(), timeout=timeout)
        assert await peer.request(SUM, Summands(1), timeout=10) == 1


async def test_cancelled_caller(tmp_path: Path) -> None:
    """Cancelling a caller frees its place; what it asked for is executed and not answered to it."""
    async with (
        serving(tmp_path) as served,
        connected(served.path, limits=Limits(max_outstanding=1)) as peer,
    ):
        waiting = served.group.create_task(peer.request(WAIT, Nothing()))
        await served.begun.get()
        waiting.cancel()
        assert await peer.request(SUM, Summands(1)) == 1
        served.release.set()
        assert await served.finished.get() == "released"
        assert await peer.request(SUM, Summands(2)) == 2


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("side", ["own", "other"])
async def test_connection_lost(how: str, side: str, tmp_path: Path) -> None:
    """All pending calls fail when the connection ends, whoever ends it, and later ones at once."""
    closed: list[Peer] = []
    async with serving(tmp_path) as served:
        limits = Limits(max_outstanding=2)
        peer = await connect_unix(served.path, limits=limits, on_closed=closed.append)
        waiting = [served.group.create_task(lost(peer)) for _ in range(5)]
        for _ in range(2):
            await served.begun.get()
        getattr(peer if side == "own" else served.peers[0], how)()
        for one in waiting:
            await one
        with pytest.raises(ConnectionLost):
            await peer.request(SUM, Summands(1))
        await peer.wait_closed()
        assert peer.closed
        assert closed == [peer]
        served.release.set()
        for _ in range(2):
            assert await served.finished.get() == "released"


async def lost(peer: Peer) -> None:
    """Call and lose the connection."""
    with pytest.raises(ConnectionLost):
        await peer.request(WAIT, Nothing())


async def test_ids_restart(tmp_path: Path) -> None:
    """Ids belong to one connection: each begins at 1."""
    for _ in range(2):
        async with scripted(tmp_path, [b'{"jsonrpc":"2.0","id":1,"result":7}']) as (peer, received):
            assert await peer.request(SUM, Summands(1)) == 7
            assert received == [1]


async def test_handler_outlives_its_connection(tmp_path: Path) -> None:
    """A handler runs to its end though its caller is gone: what it does matters."""
    async with serving(tmp_path) as served:
        async with wire(served.path) as client:
            client.call("wait")
            await served.begun.get()
        await served.peers[0].wait_closed()
        served.release.set()
        assert await served.finished.get() == "released"
        assert served.log == []


async def test_handler_for_its_caller_only(tmp_path: Path) -> None:
    """A handler registered so is cancelled when its caller hangs up."""
    async with serving(tmp_path) as served:
        only = Method("only", Nothing, str, summary="Wait for the caller's sake.")
        served.handlers.register(only, served.wait, cancel_on_disconnect=True)
        async with wire(served.path) as client:
            client.call("only")
            await served.begun.get()
        assert await served.finished.get() == "cancelled"


async def test_stopping(tmp_path: Path) -> None:
    """When the group of the handlers ends, calls in flight and new ones get an error."""
    entered: asyncio.Queue[asyncio.TaskGroup] = asyncio.Queue()

    async def host() -> None:
        async with asyncio.TaskGroup() as group:
            entered.put_nowait(group)
            await asyncio.get_running_loop().create_future()

    async with serving(tmp_path) as served:
        hosting = asyncio.create_task(host())
        handlers = Handlers(task_group=await entered.get())
        handlers.register(WAIT, served.wait)
        async with connected(served.path, handlers) as peer:
            await peer.request(SUM, Summands(1))
            calls = [asyncio.create_task(stopped(served.peers[0])) for _ in range(2)]
            await served.begun.get()
            hosting.cancel()
            await asyncio.wait([hosting])
            for call in calls:
                await call
            await stopped(served.peers[0])
            assert await peer.request(SUM, Summands(1)) == 1


async def stopped(peer: Peer) -> None:
    """Call a peer that stops."""
    with pytest.raises(RpcError) as caught:
        await peer.request(WAIT, Nothing())
    assert caught.value.code == STOPPING


@asynccontextmanager
async def scripted(
    directory: Path, answers: list[bytes], **options: Any
) -> AsyncIterator[tuple[Peer, list[Any]]]:
    """Connect a Peer to a server that answers its first request with the given lines."""
    path = directory / "scripted"
    path.unlink(missing_ok=True)
    received: list[Any] = []
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(json.loads(await reader.readline())["id"])
        writer.write(b"".join(line + b"\n" for line in answers))
        await reader.read()
        writer.close()
        ended.set()

    async with asyncio.timeout(20), await asyncio.start_unix_server(answer, path):
        peer = await connect_unix(path, **options)
        try:
            yield peer, received
        finally:
            peer.abort()
            await ended.wait()


DEEP = b"[" * 100_000 + b"]" * 100_000
RIGHT = b'{"jsonrpc":"2.0","id":1,"result":7}'


@pytest.mark.parametrize(
    "stray",
    [
        b'{"jsonrpc":"2.0","id":2,"result":0}',
        b'{"jsonrpc":"2.0","id":0,"result":0}',
        b'{"jsonrpc":"2.0","id":"1","result":0}',
        b'{"jsonrpc":"2.0","id":1.0,"result":0}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}',
        b'[{"jsonrpc":"2.0","id":2,"result":0}]',
    ],
)
async def test_stray_answers(stray: bytes, tmp_path: Path) -> None:
    """An answer that nobody asked for is logged and ignored."""
    log: list[str] = []
    async with scripted(tmp_path, [stray, RIGHT], log=lambda event, **_: log.append(event)) as (
        peer,
        _,
    ):
        assert await peer.request(SUM, Summands(1), timeout=10) == 7
        assert log == ["answer_unknown"]


async def test_answer_in_a_batch_and_twice(tmp_path: Path) -> None:
    """Answers may come in a batch; a second answer to the same call is ignored."""
    async with scripted(tmp_path, [b"[" + RIGHT + b"," + RIGHT + b"]", RIGHT]) as (peer, _):
        assert await peer.request(SUM, Summands(1), timeout=10) == 7
        assert not peer.closed


@pytest.mark.parametrize(
    "broken",
    [
        b'{"jsonrpc":"2.0","id":1,"result":7,"error":{"code":1,"message":""}}',
        b'{"jsonrpc":"2.0","id":1,"error":"text"}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"message":"no code"}}',
        b'{"jsonrpc":"2.0","result":7}',
        b'{"id":1,"result":7}',
        b'{"jsonrpc":"2.0","id":[1],"result":7}',
        b'{"jsonrpc":"2.0","id":1,"result":"text"}',
        RIGHT.replace(b"7", DEEP),
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":%b}}' % DEEP,
        b"no JSON at all",
        b"[" + RIGHT[:-1] + b',"error":{"code":1,"message":""}}]',
    ],
    ids=lambda line: line[:70].decode(),
)
async def test_broken_answers(broken: bytes, tmp_path: Path) -> None:
    """An answer that breaks the protocol ends the connection: nothing it says can be relied on."""
    log: list[str] = []
    async with scripted(tmp_path, [broken], log=lambda event, **_: log.append(event)) as (peer, _):
        with pytest.raises(ConnectionLost):
            await peer.request(SUM, Summands(1), timeout=10)
        assert peer.closed
        assert log in (["answer_malformed"], ["result_malformed"])


async def test_not_connected() -> None:
    """A peer that was never connected says so."""
    peer = Peer(name="merchant")
    with pytest.raises(ConnectionLost, match="merchant: not connected"):
        await peer.request(SUM, Summands(1))
    with pytest.raises(ConnectionLost, match="not connected"):
        _ = peer.transport
    peer.close()
    peer.abort()
    assert repr(peer) == "<Peer merchant open>"


def test_registration_is_checked() -> None:
    """A method is registered once, and a coroutine only where there is a group for its tasks."""

    async def fail(_params: Nothing, _peer: Peer) -> int:
        return 0

    handlers = Handlers()
    handlers.register(SUM, lambda params, _: params.first)
    with pytest.raises(ValueError, match="registered twice: sum"):
        handlers.register(SUM, lambda params, _: params.first)
    with pytest.raises(ValueError, match="task group: fail"):
        handlers.register(FAIL, fail)
    assert handlers.methods == [SUM]
