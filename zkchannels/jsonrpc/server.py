"""Listens for connections and makes them; what is accepted is closed again on the way out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Unpack

from zkchannels.jsonrpc.carried import CarriedConnection
from zkchannels.jsonrpc.door import HANDSHAKE_TIMEOUT, Door, Doorman
from zkchannels.jsonrpc.errors import REFUSED, RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Log, Peer, PeerOptions

BACKLOG = 1024
ACCEPTING = 5
"""Turns of the event loop after which a connection that it has accepted is made."""
CONNECT_RETRY = 0.02
"""Seconds between attempts while the backlog of a Unix socket is full."""

# asyncio sets so much aside, and clears it, for each connection with TLS: 256 KiB unless told. A
# line that is longer is read in parts.
SSLProtocol.max_size = 32 * 1024


class Server:
    """The accepted connections of one listening socket."""

    def __init__(
        self,
        factory: Callable[[], Peer],
        accept: Callable[[asyncio.Transport], bool] | None,
    ) -> None:
        self._factory = factory
        self._accept = accept
        self._listener: asyncio.Server | None = None
        self._holding = False
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.connections: set[Peer] = set()

    def admit(self, peer: Peer) -> RpcError | None:
        """Keep a new connection, or return the error that refuses it."""
        self.connections.add(peer)
        self._empty.clear()
        if self._stopping:
            return RpcError(REFUSED, "stopping")
        try:
            if self._accept is not None and not self._accept(peer.transport):
                return RpcError(REFUSED, "connection refused")
        except RpcError as error:
            return error
        except Exception as error:  # who cannot be checked is not let in
            return RpcError(REFUSED, f"connection refused: {type(error).__name__}")
        return None

    def new(self) -> Peer:
        """Return a new connection that tells this server of its beginning and end."""
        peer = self._factory()
        peer._listener = self
        if self._holding:
            peer.hold()
        return peer

    async def listen(self, listening: socket.socket) -> None:
        """Accept connections."""
        self._listener = await asyncio.get_running_loop().create_server(
            self.new, sock=listening, backlog=BACKLOG
        )

    def close(self) -> None:
        """Accept no more connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def hold(self) -> None:
        """Accept no more connections, and hold all that there are."""
        self._holding = True
        for peer in list(self.connections):
            peer.hold()
        if self._listener is not None:
            for listening in self._listener.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
        # A closed listener drops, and so resets, what it has accepted and not made yet.
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        self.close()

    async def adopt(self, connected: socket.socket, earlier: CarriedConnection) -> Peer:
        """Go on with a connection that another process accepted."""
        peer = self.new()
        peer.go_on(earlier)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: peer, connected)
        return peer

    def forget(self, peer: Peer) -> None:
        """Hear that a connection has ended."""
        self.connections.discard(peer)
        if not self.connections:
            self._empty.set()

    async def stop(self, grace: float) -> None:
        """Close all connections; those that do not take what is written within `grace` are cut."""
        self._stopping = True
        for peer in list(self.connections):
            peer.close()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for peer in list(self.connections):
                peer.abort()
            await self._empty.wait()


@asynccontextmanager
async def serve(
    listening: socket.socket,
    factory: Callable[[], Peer],
    *,
    accept: Callable[[asyncio.Transport], bool] | None = None,
    grace: float = 1.0,
) -> AsyncIterator[Server]:
    """Serve a bound Unix socket for as long as the body runs; then close everything.

    `accept` sees each new connection: when it returns False or raises RpcError, one error line is
    written and the connection is closed. The listening socket is closed on exit, its file stays.
    """
    server = Server(factory, accept)
    await server.listen(listening)
    try:
        yield server
    finally:
        server.close()
        await server.stop(grace)


@asynccontextmanager
async def serve_tls(
    listening: socket.socket,
    factory: Callable[[], Peer],
    context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    group: asyncio.TaskGroup,
    *,
    accept: Callable[[asyncio.Transport], bool] | None = None,
    door: Door | None = None,
    grace: float = 1.0,
    log: Log | None = None,
) -> AsyncIterator[Server]:
    """Serve a bound TCP socket with TLS, as `serve` does, by tasks of the group.

    `door` decides before the handshake, and may end what it let in; `accept` decides after it. A
    `context` that is a function is asked at each handshake.
    """
    server = Server(factory, accept)
    listening.listen(BACKLOG)
    doorman = Doorman(listening, server.new, context, door, log)
    accepting = group.create_task(doorman.run(group), name="accept")
    try:
        yield server
    finally:
        accepting.cancel()
        await asyncio.wait([accepting])
        listening.close()
        doorman.turn_away()
        await server.stop(grace)


async def connect_unix(
    path: str | os.PathLike[str],
    handlers: Handlers | None = None,
    **options: Unpack[PeerOptions],
) -> Peer:
    """Connect to a Unix socket; raises OSError. Waits while the socket's backlog is full."""
    peer = Peer(handlers, **options)
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        # A full backlog refuses with EAGAIN and leaves nothing to wait on; the event loop's own
        # sock_connect takes that for a connection in progress.
        while (error := connecting.connect_ex(os.fspath(path))) == errno.EAGAIN:  # noqa: ASYNC110
            await asyncio.sleep(CONNECT_RETRY)
        if error:
            raise OSError(error, os.strerror(error), os.fspath(path))
        await asyncio.get_running_loop().create_connection(lambda: peer, sock=connecting)
    except BaseException:
        connecting.close()
        raise
    return peer


async def connect_tls(
    host: str,
    port: int,
    context: ssl.SSLContext,
    handlers: Handlers | None = None,
    *,
    server_hostname: str | None = None,
    **options: Unpack[PeerOptions],
) -> Peer:
    """Connect over TCP and TLS; raises OSError (ssl.SSLError is one).

    `server_hostname` is what the certificate is checked for when it is not `host`.
    """
    peer = Peer(handlers, **options)
    await asyncio.get_running_loop().create_connection(
        lambda: peer,
        host,
        port,
        ssl=context,
        server_hostname=server_hostname or host,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
        happy_eyeballs_delay=0.25,
    )
    return peer
