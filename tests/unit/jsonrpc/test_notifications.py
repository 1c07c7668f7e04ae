"""Notifications: never executed where answers matter, delivered where they are wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.jsonrpc.support import Nothing, connected, serving, wire
from zkchannels.jsonrpc.errors import ConnectionLost
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Peer

SPEND = Method("spend", Nothing, bool, summary="Move money.")
CALL = b'{"jsonrpc":"2.0","method":"spend","id":1}'
NOTIFICATION = b'{"jsonrpc":"2.0","method":"spend"}'


@pytest.mark.parametrize(
    "sent",
    [
        NOTIFICATION + b"\n" + CALL,
        b"[" + NOTIFICATION + b"]",
        b"[" + CALL + b"," + NOTIFICATION + b"]",
        b"[" + NOTIFICATION + b"," + CALL + b"]\n" + CALL,
    ],
)
async def test_refused_before_anything_is_executed(sent: bytes, tmp_path: Path) -> None:
    """A notification is not executed, nor its batch, nor what follows; the connection is closed."""
    executed: list[Nothing] = []

    def spend(params: Nothing, _peer: Peer) -> bool:
        executed.append(params)
        return True

    async with serving(tmp_path) as served, wire(served.path) as client:
        served.handlers.register(SPEND, spend)
        client.send(sent)
        assert await client.rest() == []
        assert executed == []
        assert served.log == [
            {"event": "notification_refused", "peer": "client", "method": "spend"}
        ]


async def test_refusal_answers_what_came_before(tmp_path: Path) -> None:
    """Calls that were in flight when a notification came are still answered."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("wait")
        client.call("sum", [1], identity=2)
        client.send(NOTIFICATION, NOTIFICATION)
        assert (await client.receive())["id"] == 2
        assert served.peers[0].closed
        served.release.set()
        assert [answer["result"] for answer in await client.rest()] == ["released"]
        assert served.events == ["notification_refused"]


async def test_delivered_in_order(tmp_path: Path) -> None:
    """Where notifications are wanted, they arrive in order, before answers sent after them."""
    received: list[tuple[str, bytes]] = []

    def progress(_params: Nothing, peer: Peer) -> bool:
        for number in range(3):
            peer.notify("progress", {"step": number})
        return True

    async with (
        serving(tmp_path) as served,
        connected(
            served.path,
            notifications="deliver",
            on_notification=lambda name, params, _: received.append((name, bytes(params))),
        ) as peer,
    ):
        served.handlers.register(SPEND, progress)
        await peer.request(SPEND, Nothing())
        assert received == [("progress", b'{"step":%d}' % number) for number in range(3)]


async def test_failing_callback(tmp_path: Path) -> None:
    """A callback that fails is logged; the connection goes on."""
    log: list[str] = []

    def fail(_name: str, _params: object, _peer: Peer) -> None:
        raise KeyError("secret")

    def poke(_params: Nothing, peer: Peer) -> bool:
        peer.notify("poke", Nothing())
        return True

    async with (
        serving(tmp_path) as served,
        connected(
            served.path,
            notifications="deliver",
            on_notification=fail,
            log=lambda event, **_: log.append(event),
        ) as peer,
    ):
        served.handlers.register(SPEND, poke)
        await peer.request(SPEND, Nothing())
        await peer.request(SPEND, Nothing())
        assert log == ["notification_failed"] * 2


async def test_ended_connection(tmp_path: Path) -> None:
    """A notification on an ended connection is an error, not silence."""
    async with serving(tmp_path) as served, connected(served.path) as peer:
        peer.close()
        with pytest.raises(ConnectionLost):
            peer.notify("late", Nothing())
        with pytest.raises(ConnectionLost):
            await peer.drain()


async def test_slow_reader_is_dropped(tmp_path: Path) -> None:
    """Notifications to a peer that reads nothing end its connection instead of filling memory."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("sum", [1])
        await client.receive()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        peer = served.peers[0]
        for _ in range(peer.limits.max_buffer // 65536):
            peer.notify("log", {"text": "x" * 65536})
        with pytest.raises(ConnectionLost, match="too slow"):  # noqa: PT012 - the kernel buffers
            for _ in range(100):
                peer.notify("log", {"text": "x" * 65536})
        await peer.wait_closed()
        assert served.events == ["reader_too_slow"]


async def test_drain_waits_for_the_reader(tmp_path: Path) -> None:
    """A sender that drains sends any amount without loss, at the reader's pace."""
    count = 200
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("sum", [1])
        await client.receive()
        peer = served.peers[0]

        async def send() -> None:
            for number in range(count):
                peer.notify("log", {"number": number, "text": "x" * 65536})
                await peer.drain()
                assert peer.transport.get_write_buffer_size() < 1 << 19

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            numbers = [(await client.receive())["params"]["number"] for _ in range(count)]
        assert numbers == list(range(count))


def test_policy_and_callback_belong_together() -> None:
    """Delivering without a callback, or a callback that is never called, is refused at once."""
    with pytest.raises(ValueError, match="on_notification"):
        Peer(Handlers(), notifications="deliver")
    with pytest.raises(ValueError, match="on_notification"):
        Peer(Handlers(), on_notification=lambda *_: None)
