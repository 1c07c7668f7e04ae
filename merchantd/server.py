"""Where customers connect: TLS 1.3, one line per message, bounded per network address."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from merchantd.addresses import source_of
from zkchannels.jsonrpc import server as jsonrpc
from zkchannels.jsonrpc.peer import Limits as LineLimits
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import get_logger
from zkchannels.wire.merchant import MAXIMUM_LINE

if TYPE_CHECKING:
    from merchantd.config import Limits, Listen
    from zkchannels.jsonrpc.handlers import Handlers

_log = get_logger("merchantd.server")
_OUTSTANDING = 16
"""Requests that one connection may have unanswered; a payment has one at a time."""


class Gate:
    """Counts connections per network address, and lets in no more than allowed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._counted: dict[asyncio.BaseTransport, str] = {}

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count one more connection; return whether it may stay."""
        source = source_of(transport)
        if (
            source is None
            or self._open[source] >= self._limits.connections_per_address
            or len(self._counted) >= self._limits.connections
        ):
            return False
        self._open[source] += 1
        self._counted[transport] = source
        return True

    def leave(self, peer: Peer) -> None:
        """Count a connection less that has ended, if it was counted."""
        source = self._counted.pop(peer.transport, None)
        if source is None:
            return
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]


@asynccontextmanager
async def serve(
    handlers: Handlers,
    *,
    listen: Listen,
    limits: Limits,
    context: ssl.SSLContext,
    sockets: Sequence[socket.socket] = (),
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Answer customers on the sockets given, else where `listen` says; yield the addresses."""
    gate = Gate(limits)
    lines = LineLimits(
        max_line=MAXIMUM_LINE,
        max_outstanding=_OUTSTANDING,
        max_batch=_OUTSTANDING,
        idle_timeout=limits.idle,
    )

    def make() -> Peer:
        return Peer(handlers, limits=lines, name="customer", on_closed=gate.leave, log=_tell)

    bound = list(sockets) or [_bind(listen.host, listen.port)]
    addresses = [sock.getsockname() for sock in bound]
    async with AsyncExitStack() as stack:
        for sock in bound:
            await stack.enter_async_context(
                jsonrpc.serve(sock, make, ssl=context, accept=gate.admit)
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
