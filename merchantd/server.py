"""Where customers connect: TLS 1.3, one line per message, bounded per network address."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from zkchannels.jsonrpc import server as jsonrpc
from zkchannels.jsonrpc.peer import Limits as LineLimits
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.addresses import source_of
from zkchannels.service.logging import get_logger
from zkchannels.service.process import open_files
from zkchannels.wire.merchant import MAXIMUM_LINE

if TYPE_CHECKING:
    from merchantd.config import Limits, Listen
    from zkchannels.jsonrpc.door import Guest
    from zkchannels.jsonrpc.handlers import Handlers

_log = get_logger("merchantd.server")
_SHARE = 64
"""The part of all connections, 1/64, that is ended at once when there is no room."""
_OTHER_FILES = 128
"""Files kept for the database, the chain, the log, and connections that are just ending."""
_OUTSTANDING = 16
"""Requests that one connection may have unanswered; a payment has one at a time."""


class Gate:
    """Counts connections per network address, from before their handshake, and bounds them.

    When there is no room left, connections that wait for nothing are ended, first those of the
    addresses that have most: whoever fills the merchant pays for it, whoever pays is let in.
    """

    def __init__(self, limits: Limits, *, most: int) -> None:
        """Let `most` connections in at once, as the limits say."""
        self._per_source = limits.connections_per_address
        self._most = most
        self._guests: dict[str, dict[Guest, None]] = {}
        self._count = 0

    def enter(self, guest: Guest) -> bool:
        """Count one more connection; return whether it may stay."""
        source = source_of(guest.address)
        if source is None or len(self._guests.get(source, ())) >= self._per_source:
            return False
        if self._count >= self._most and not self.make_room():
            return False
        self._guests.setdefault(source, {})[guest] = None
        self._count += 1
        return True

    def leave(self, guest: Guest) -> None:
        """Count a connection less, unless it was sent away."""
        source = source_of(guest.address)
        guests = self._guests.get(source or "", {})
        if guest not in guests:
            return
        del guests[guest]
        self._count -= 1
        if not guests:
            del self._guests[source or ""]

    def make_room(self) -> bool:
        """End idle connections, the older ones of the busiest addresses first.

        A share of them at once, so that a flood of newcomers does not have them sorted each time.
        """
        idle = [
            (number - len(guests), guest.since, guest)
            for guests in self._guests.values()
            for number, guest in enumerate(guests)
            if not guest.busy
        ]
        idle.sort(key=lambda entry: entry[:2])
        leaving = idle[: max(1, self._most // _SHARE)]
        for _, _, guest in leaving:
            self.leave(guest)
            guest.end()
        if leaving:
            _log.info("idle_connections_ended", count=len(leaving))
        return bool(leaving)


@asynccontextmanager
async def serve(
    handlers: Handlers,
    *,
    listen: Listen,
    limits: Limits,
    context: ssl.SSLContext,
    group: asyncio.TaskGroup,
    sockets: Sequence[socket.socket] = (),
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Answer customers on the sockets given, else where `listen` says; yield the addresses."""
    gate = Gate(limits, most=min(limits.connections, open_files() - _OTHER_FILES))
    lines = LineLimits(
        max_line=MAXIMUM_LINE,
        max_outstanding=_OUTSTANDING,
        max_batch=_OUTSTANDING,
        idle_timeout=limits.idle,
    )

    def make() -> Peer:
        return Peer(handlers, limits=lines, name="customer", log=_tell)

    bound = list(sockets) or [_bind(listen.host, listen.port)]
    addresses = [sock.getsockname() for sock in bound]
    async with AsyncExitStack() as stack:
        for sock in bound:
            await stack.enter_async_context(
                jsonrpc.serve_tls(sock, make, context, group, door=gate, log=_tell)
            )
        yield addresses


def _tell(event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
    """Log what a connection tells: a handler that failed is our error, the rest is not."""
    if exc_info is None:
        _log.info(event, **fields)
    else:
        _log.error(event, exc_info=exc_info, **fields)


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; `::` takes IPv4 as well where the system can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    bound = socket.create_server((host, port), family=family, dualstack_ipv6=both)
    bound.setblocking(False)
    return bound
