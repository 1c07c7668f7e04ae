"""A server that is to be held: every connection is made and held, or left to the next process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import serve


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_is_never_dropped_between_two_processes(
    tmp_path: Path, turns: int
) -> None:
    """At whatever turn of its making: a new connection is held, or still waits to be accepted."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    listening.setblocking(False)
    kept = listening.dup()  # as the manager does
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    async with asyncio.TaskGroup() as group:
        handlers = Handlers(task_group=group)
        async with serve(listening, lambda: Peer(handlers)) as server:
            client.connect(str(tmp_path / "socket"))
            client.sendall(b"{")
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.hold()
            waiting = []
            with kept, contextlib.suppress(BlockingIOError):
                waiting.append(kept.accept()[0])
            assert len(server.connections) + len(waiting) == 1
            for each in waiting:
                each.close()
    client.close()
