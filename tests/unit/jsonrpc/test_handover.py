"""A connection that one process gives up and another goes on with: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import pytest
from msgspec import Struct

from zkchannels.jsonrpc.carried import CarriedConnection
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Limits, Peer, current_call


class _Number(Struct):
    number: int


class _Answer(Struct):
    number: int
    notes: str = ""


NOW = Method("now", _Number, _Answer, summary="Answered in line.")
SOON = Method("soon", _Number, _Answer, summary="Answered by a task, after a few turns.")
EFFECT = Method("effect", _Number, _Answer, summary="Has an effect, noted before, then waits.")


class _World:
    """What outlives every process: the effects that were committed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.effects: dict[bytes, int] = {}
        self.times: dict[int, int] = {}
        self.happened = asyncio.Event()


class _Process:
    """One process after the other, on one connection at a time."""

    def __init__(self, world: _World, group: asyncio.TaskGroup) -> None:
        self._world = world
        self.release = asyncio.Event()
        self.handlers = Handlers(task_group=group, check_results=True)
        self.handlers.register(NOW, lambda params, _: _Answer(params.number))
        self.handlers.register(SOON, self._soon)
        self.handlers.register(EFFECT, self._effect)

    async def _turns(self) -> None:
        for _ in range(self._world.random.randrange(4)):
            await asyncio.sleep(0)

    async def _soon(self, params: _Number, _peer: Peer) -> _Answer:
        await self._turns()
        return _Answer(params.number)

    async def _effect(self, params: _Number, _peer: Peer) -> _Answer:
        call = current_call()
        assert call is not None
        if call.note not in self._world.effects:
            await self._turns()
            call.note = str(len(self._world.effects)).encode() + b" " + str(params.number).encode()
            await self._turns()
            self._world.effects[call.note] = params.number
            self._world.happened.set()
            self._world.times[params.number] = self._world.times.get(params.number, 0) + 1
        call.rest()
        await self.release.wait()
        return _Answer(params.number, call.note.decode())

    async def connect(self, connected: socket.socket, earlier: CarriedConnection | None) -> Peer:
        peer = Peer(self.handlers, limits=Limits(max_outstanding=5))
        if earlier is not None:
            peer.go_on(earlier)
        connected.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: peer, connected)
        return peer


async def _hand_over(peer: Peer, *, settle: bool) -> tuple[socket.socket, CarriedConnection]:
    peer.hold()
    if settle:
        await peer.settled()
    await peer.give_up()
    await peer.flushed()
    handed = peer.hand_over()
    assert handed is not None
    await peer.wait_closed()
    return socket.socket(fileno=handed[0]), handed[1]


def _requests(world: _World, count: int) -> tuple[bytes, set[int]]:
    """A stream of requests, some of them in batches, each with an id of its own."""
    lines, identities = [], set()
    for number in range(count):
        method = world.random.choice(["now", "soon", "effect"])
        identities.add(number)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": {"number": number}}
        lines.append(request)
    stream = b""
    while lines:
        size = world.random.choice([1, 1, 1, 3])
        part, lines = lines[:size], lines[size:]
        stream += json.dumps(part if size > 1 else part[0]).encode() + b"\n"
    return stream, identities


@pytest.mark.parametrize("seed", range(25))
async def test_every_request_is_answered_once_over_any_number_of_processes(seed: int) -> None:
    """Whatever is in flight, half read or half answered at each change, every id comes once."""
    world = _World(seed)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    stream, identities = _requests(world, 60)
    received = b""

    async def read(until: int) -> None:
        nonlocal received
        while received.count(b'"id"') < until:
            received += await loop.sock_recv(ours, 1 << 16)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read(len(identities)))
        earlier: CarriedConnection | None = None
        while stream:
            process = _Process(world, group)
            peer = await process.connect(theirs, earlier)
            for _ in range(world.random.randrange(1, 5)):
                size = world.random.randrange(1, 400)
                piece, stream = stream[:size], stream[size:]
                await loop.sock_sendall(ours, piece)
                await asyncio.sleep(0)
                if world.random.random() < 0.3:
                    process.release.set()
            theirs, earlier = await _hand_over(peer, settle=world.random.random() < 0.5)
        last = _Process(world, group)
        last.release.set()
        peer = await last.connect(theirs, earlier)
        await reading
        peer.abort()
    ours.close()
    answers: list[Any] = []
    for line in received.splitlines():
        found = json.loads(line)
        answers += found if isinstance(found, list) else [found]
    assert sorted(answer["id"] for answer in answers) == sorted(identities)
    assert all(answer["result"]["number"] == answer["id"] for answer in answers)
    assert set(world.times.values()) <= {1}


async def test_a_connection_whose_reader_sleeps_is_not_handed_over() -> None:
    """With bytes unsent a connection cannot be handed over: it would go on in mid-line."""
    ours, theirs = socket.socketpair()
    async with asyncio.TaskGroup() as group:
        peer = await _Process(_World(0), group).connect(theirs, None)
        peer.notify("flood", "x" * (8 << 20))
        peer.hold()
        await peer.give_up()
        assert peer.hand_over() is None
        peer.abort()
    ours.close()


async def test_a_client_that_ended_its_sending_side_gets_its_answer() -> None:
    """Half closed, with a call in flight, the connection goes on until that is answered."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop, world = asyncio.get_running_loop(), _World(1)
    async with asyncio.TaskGroup() as group:
        peer = await _Process(world, group).connect(theirs, None)
        request = b'{"jsonrpc":"2.0","id":1,"method":"effect","params":{"number":7}}\n'
        await loop.sock_sendall(ours, request)
        ours.shutdown(socket.SHUT_WR)
        await world.happened.wait()
        connected, earlier = await _hand_over(peer, settle=True)
        second = _Process(world, group)
        second.release.set()
        await second.connect(connected, earlier)
        received = b""
        while piece := await loop.sock_recv(ours, 4096):
            received += piece
    ours.close()
    assert json.loads(received)["result"]["number"] == 7
    assert world.times == {7: 1}
