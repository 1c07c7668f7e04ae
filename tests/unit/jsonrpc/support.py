"""Methods to call, a server for them, and a client that sends raw lines."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from zkchannels.jsonrpc.door import Door
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Peer, PeerOptions
from zkchannels.jsonrpc.server import Server, connect_unix, serve, serve_tls

DEADLINE = 20.0
"""Seconds after which a test that waits has failed."""


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Subtraction(Struct, frozen=True, forbid_unknown_fields=True):
    """As in the examples of the specification."""

    minuend: int
    subtrahend: int


class Summands(Struct, frozen=True, forbid_unknown_fields=True):
    """Three numbers, two of which may be left out."""

    first: int
    second: int = 0
    third: int = 0


class Text(Struct, frozen=True, forbid_unknown_fields=True):
    """Any text."""

    text: str


class Size(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the answer is to be."""

    size: int


SUBTRACT = Method("subtract", Subtraction, int, summary="Subtract.")
SUM = Method("sum", Summands, int, summary="Add.", example=Summands(1, 2, 4))
GET_DATA = Method("get_data", Nothing, list[str | int], summary="Return fixed data.")
ECHO = Method("echo", Text, str, summary="Return the text.")
BIG = Method("big", Size, str, summary="Return a long text.")
WAIT = Method("wait", Nothing, str, summary="Return when released.")


class Served:
    """A server under test, with what happened on it."""

    def __init__(self, path: Path, group: asyncio.TaskGroup, *, check_results: bool = True) -> None:
        self.path = path
        self.group = group
        self.release = asyncio.Event()
        self.begun = asyncio.Queue[str]()
        self.finished = asyncio.Queue[str]()
        self.log: list[dict[str, Any]] = []
        self.notified: list[tuple[str, bytes]] = []
        self.peers: list[Peer] = []
        self.sums = 0
        self.server: Server
        self.handlers = Handlers(task_group=group, check_results=check_results)
        self.handlers.register(SUBTRACT, lambda params, _: params.minuend - params.subtrahend)
        self.handlers.register(SUM, self.sum)
        self.handlers.register(GET_DATA, lambda _params, _: ["hello", 5])
        self.handlers.register(ECHO, lambda params, _: params.text)
        self.handlers.register(BIG, lambda params, _: "x" * params.size)
        self.handlers.register(WAIT, self.wait)

    def sum(self, params: Summands, _peer: Peer) -> int:
        """Add, and count the calls."""
        self.sums += 1
        return params.first + params.second + params.third

    async def wait(self, _params: Nothing, _peer: Peer) -> str:
        """Answer when released."""
        self.begun.put_nowait("wait")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.finished.put_nowait("cancelled")
            raise
        self.finished.put_nowait("released")
        return "released"

    def record(self, event: str, **fields: Any) -> None:
        """Keep an event of the log."""
        self.log.append({"event": event, **fields})

    @property
    def events(self) -> list[str]:
        """Names of the events logged so far."""
        return [entry["event"] for entry in self.log]


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    deliver: bool = False,
    accept: Callable[[asyncio.Transport], bool] | None = None,
    tls: ssl.SSLContext | None = None,
    door: Door | None = None,
    check_results: bool = True,
    grace: float = 1.0,
    seconds: float = DEADLINE,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve the methods above, on a Unix socket, or on a free TCP port with TLS."""
    path = directory / "socket"
    if tls is None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
    else:
        listening = socket.create_server(("127.0.0.1", 0))
        path = Path(str(listening.getsockname()[1]))
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        served = Served(path, group, check_results=check_results)
        if deliver:
            options["notifications"] = "deliver"
            options["on_notification"] = lambda name, params, _: served.notified.append(
                (name, bytes(params))
            )

        def factory() -> Peer:
            peer = Peer(served.handlers, name="client", log=served.record, **options)
            served.peers.append(peer)
            return peer

        server = (
            serve(listening, factory, accept=accept, grace=grace)
            if tls is None
            else serve_tls(listening, factory, tls, group, accept=accept, door=door, grace=grace)
        )
        async with server as served.server:
            yield served
        served.release.set()


class Wire:
    """A client that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: bytes) -> None:
        """Send lines; the newlines are added."""
        self.send_raw(b"".join(line + b"\n" for line in lines))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def call(self, method: str, params: Any = None, *, identity: Any = 1) -> None:
        """Send a request."""
        request = {"jsonrpc": "2.0", "id": identity, "method": method}
        if params is not None:
            request["params"] = params
        self.send(json.dumps(request).encode())

    async def receive(self) -> Any:
        """Return the next line's value; raises EOFError at the end of the stream."""
        line = await self.reader.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    async def rest(self) -> list[Any]:
        """Return all that comes until the other side closes."""
        received = []
        try:
            while True:
                received.append(await self.receive())
        except (EOFError, ConnectionResetError):
            return received


@asynccontextmanager
async def wire(path: Path) -> AsyncIterator[Wire]:
    """Connect to a served socket."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            assert writer.is_closing()  # the other side closed first


@asynccontextmanager
async def connected(
    path: Path, handlers: Handlers | None = None, **options: Any
) -> AsyncIterator[Peer]:
    """Connect a Peer to a served socket; it is closed on the way out."""
    typed: PeerOptions = options  # type: ignore[assignment]
    peer = await connect_unix(path, handlers, **typed)
    try:
        yield peer
    finally:
        peer.close()
        await peer.wait_closed()
