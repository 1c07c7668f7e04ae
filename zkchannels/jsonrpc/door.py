"""Accepts TLS connections one by one, so that each counts from its first moment.

asyncio's own server tells of a connection when its handshake is done: whoever begins handshakes and
does not end them would be bounded by nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol

from zkchannels.jsonrpc.peer import Log, Peer

HANDSHAKE_TIMEOUT = 10.0
CROWDED_PAUSE = 0.05
"""Seconds until the next attempt when the system has no room for a connection."""

_CROWDED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Guest:
    """One accepted connection: a handshake first, then a Peer."""

    __slots__ = ("_peer", "_task", "address", "since")

    def __init__(self, address: tuple[Any, ...]) -> None:
        self.address = address
        self.since = time.monotonic()
        self._peer: Peer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> Peer | None:
        """The connection, once its handshake is done."""
        return self._peer

    @property
    def busy(self) -> bool:
        """Whether a call of this connection is being answered."""
        return self._peer is not None and self._peer.busy

    def end(self) -> None:
        """End the connection at once."""
        if self._peer is not None:
            self._peer.abort()
        elif self._task is not None:
            self._task.cancel()


class Door(Protocol):
    """Decides who may come in."""

    def enter(self, guest: Guest) -> bool:
        """Count a connection; return whether it may stay."""
        ...

    def leave(self, guest: Guest) -> None:
        """Hear that a connection that was let in has ended; it may have been forgotten before."""
        ...

    def make_room(self) -> bool:
        """End connections that matter least; return whether there were any."""
        ...


class Doorman:
    """The accept loop of one listening socket, and the connections that came by it."""

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], Peer],
        context: ssl.SSLContext | Callable[[], ssl.SSLContext],
        door: Door | None,
        log: Log | None,
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._context = context
        self._door = door
        self._log = log
        self._shaking: set[Guest] = set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Accept until cancelled; what is accepted lives as a task of the group."""
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        while True:
            try:
                sock, address = await loop.sock_accept(self._listening)
            except OSError as error:
                if error.errno in _CROWDED:
                    await self._crowded(error)
                elif error.errno != errno.ECONNABORTED:
                    raise
                continue
            self._take(group, sock, address)
            # A full backlog is worked on in turns with everything else.
            await asyncio.sleep(0)

    def _take(self, group: asyncio.TaskGroup, sock: socket.socket, address: Any) -> None:
        guest = Guest(address)
        if self._door is not None and not self._door.enter(guest):
            sock.close()
            return
        self._shaking.add(guest)
        guest._task = group.create_task(self._attend(guest, sock), name="connection")

    async def _crowded(self, error: OSError) -> None:
        if self._log is not None:
            self._log("connections_crowded", reason=error.strerror)
        if self._door is not None:
            self._door.make_room()
        await asyncio.sleep(CROWDED_PAUSE)

    async def _attend(self, guest: Guest, sock: socket.socket) -> None:
        peer, context = self._factory(), self._context
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: peer,
                sock,
                ssl=context if isinstance(context, ssl.SSLContext) else context(),
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            )
            guest._peer = peer
            self._shaking.discard(guest)
            await peer.wait_closed()
        except OSError:
            return  # no handshake; ssl.SSLError and time-outs are OSErrors
        finally:
            self._shaking.discard(guest)
            if self._door is not None:
                self._door.leave(guest)

    def turn_away(self) -> None:
        """End the handshakes that are under way."""
        for guest in list(self._shaking):
            guest.end()
