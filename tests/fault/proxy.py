"""A proxy between two programs that sees every line and does something to a named one.

It stands between customerd and a merchant, with the merchant's own certificate, or between the
signer and customerd, on Unix sockets. Until a fault is armed it passes everything on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import msgspec

Kind = Literal["request", "answer"]
Action = Literal["cut", "truncate", "duplicate", "delay", "late"]

LONGEST_LINE = 1 << 21
HOLD = 0.3
ACTIONS: tuple[Action, ...] = ("cut", "truncate", "duplicate", "delay", "late")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do to the first line that is this message from now on.

    `cut`: both sides lose the connection instead of it. `truncate`: the receiver gets half of the
    line before. `duplicate`: it gets the line twice. `delay`: the line is held for HOLD seconds.
    `late`: the sender loses the connection; the receiver gets the line at `release`, when the
    sender has long gone on without it.
    """

    kind: Kind
    method: str
    action: Action


class _Head(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    method: str | None = None


class Proxy:
    """One listening place and where it leads; a context manager with a thread of its own."""

    def __init__(
        self,
        listen: Callable[[Callable[..., Awaitable[None]]], Awaitable[asyncio.Server]],
        connect: Callable[[], Awaitable[Streams]],
    ) -> None:
        self._listen = listen
        self._connect = connect
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._fault: Fault | None = None
        self._struck = False
        self._released = asyncio.Event()
        self._action: Action = "cut"
        self._holding: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._up = threading.Event()
        self._stop: asyncio.Future[None]
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set_result, None)
        self._thread.join()

    # -- for the test -------------------------------------------------------------------------

    def arm(self, fault: Fault) -> None:
        """Do this to the next line that fits."""
        self._released.clear()
        self._struck = False
        self._fault = fault

    def release(self) -> None:
        """Let go of a line that is held; nothing is armed any more."""
        self._fault = None
        self._loop.call_soon_threadsafe(self._released.set)

    @property
    def struck(self) -> bool:
        """Whether the armed message came by."""
        return self._struck

    # -- at work ------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = self._loop.create_future()
        server = await self._listen(self._accepted)
        address = server.sockets[0].getsockname()
        self.port = address[1] if isinstance(address, tuple) else 0
        self._up.set()
        await self._stop
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            near = (reader, writer)
            try:
                far = await self._connect()
            except OSError:
                return
            asked: dict[bytes, str] = {}
            answered: dict[bytes, str] = {}
            pumps = [
                asyncio.create_task(self._pump(near, far, asked, answered)),
                asyncio.create_task(self._pump(far, near, answered, asked)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                await self._until_delivered(pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                far[1].close()
        except asyncio.CancelledError:
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _until_delivered(self, pumps: list[asyncio.Task[None]]) -> None:
        """A late line is delivered after its sender is gone."""
        for pump in pumps:
            if pump is self._holding:
                await pump

    async def _pump(
        self, source: Streams, sink: Streams, asked: dict[bytes, str], other: dict[bytes, str]
    ) -> None:
        reader, writer = source[0], sink[1]
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                if not self._fits(line, asked, other):
                    writer.write(line)
                    await writer.drain()
                elif not await self._strike(line, source, sink):
                    return

    def _fits(self, line: bytes, asked: dict[bytes, str], other: dict[bytes, str]) -> bool:
        """Return whether the armed fault is about this line; remember what is asked."""
        head = msgspec.json.decode(line, type=_Head)
        identity = bytes(head.id)
        kind: Kind = "answer" if head.method is None else "request"
        method = other.pop(identity, "") if head.method is None else head.method
        if head.method is not None:
            asked[identity] = head.method
        fault = self._fault
        if fault is None or (fault.kind, fault.method) != (kind, method):
            return False
        self._action, self._fault, self._struck = fault.action, None, True
        return True

    async def _strike(self, line: bytes, source: Streams, sink: Streams) -> bool:
        """Act on the line; return whether the connection goes on."""
        writer = sink[1]
        if self._action == "duplicate":
            writer.write(line + line)
            return True
        if self._action == "delay":
            await asyncio.sleep(HOLD)
            writer.write(line)
            return True
        if self._action == "late":
            self._holding = asyncio.current_task()
            source[1].transport.abort()
            await self._released.wait()
            writer.write(line)
            await writer.drain()
            return False
        if self._action == "truncate":
            writer.write(line[: len(line) // 2])
            await writer.drain()
            writer.close()
        else:
            writer.transport.abort()
        source[1].transport.abort()
        return False


def merchant_proxy(home: Path, port: int) -> Proxy:
    """Return a proxy that a merchant's customers take for the merchant."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(home / "certificate.pem", home / "certificate.key")
    trusted = ssl.create_default_context(cafile=str(home / "certificate.pem"))

    async def listen(accepted: Callable[..., Awaitable[None]]) -> asyncio.Server:
        return await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=served, limit=LONGEST_LINE)

    async def connect() -> Streams:
        return await asyncio.open_connection("localhost", port, ssl=trusted, limit=LONGEST_LINE)

    return Proxy(listen, connect)


def signer_proxy(place: Path, daemon: Path) -> Proxy:
    """Return a proxy at `place` that leads the signer to its daemon."""

    async def listen(accepted: Callable[..., Awaitable[None]]) -> asyncio.Server:
        return await asyncio.start_unix_server(accepted, place, limit=LONGEST_LINE)

    async def connect() -> Streams:
        return await asyncio.open_unix_connection(daemon, limit=LONGEST_LINE)

    return Proxy(listen, connect)
