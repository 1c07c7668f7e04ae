"""The monitor sockets: the owner's methods for holders of tokens, and for nobody else.

A connection's first request is `authenticate`; every later one is judged again, as tokens expire
and are revoked. A method is open to tokens only where its definition says so.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from customerd.rpc import methods
from customerd.rpc.callers import uid_of
from customerd.rpc.errors import failure
from customerd.tokens.grant import OWNER, Grant, Rates, Scope
from customerd.tokens.registry import NotLoaded, TokenRefused, Tokens
from zkchannels.jsonrpc.door import Guest
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Limits, Peer
from zkchannels.jsonrpc.server import Server, serve, serve_tls
from zkchannels.service.logging import get_logger

log = get_logger("customerd.monitor")

LIMITS = Limits(max_line=64 * 1024, max_outstanding=16, max_batch=16)
NAME = "customerd"
"""In the certificate; holders pin its fingerprint."""
AUTHENTICATE_WITHIN = 5.0
"""Seconds that a connection has to present its token."""
MOST_CONNECTIONS = 256
"""On the Unix socket, and as many over TLS."""
MOST_PER_TOKEN = 32
MOST_SUBSCRIPTIONS = 8
"""Of one connection."""

Gated = tuple[Method[Any, Any], Callable[[Any, Peer], Any]]


class MonitorPeer(Peer):
    """A connection of somebody who is not the owner; without a scope it is refused everything."""

    __slots__ = ("_peers", "_timer", "scope", "subscriptions")

    def __init__(
        self,
        handlers: Handlers,
        peers: dict[MonitorPeer, None],
        on_closed: Callable[[Peer], None] | None = None,
    ) -> None:
        super().__init__(
            handlers, limits=LIMITS, name="monitor", on_closed=on_closed, log=log.warning
        )
        self.scope: Scope | None = None
        self.subscriptions = 0
        self._peers = peers
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        super().connection_made(transport)
        self._peers[self] = None
        self.end_after(AUTHENTICATE_WITHIN)

    def end_after(self, seconds: float | None) -> None:
        """End the connection after a time, None for not at all, instead of what was set before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None and not self.closed:
            self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.0), self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        """End; called by the event loop."""
        self.end_after(None)
        self._peers.pop(self, None)
        super().connection_lost(error)


def scope_of(peer: Peer) -> Scope:
    """Return what the caller may see: the owner everything, others what their token allows."""
    if not isinstance(peer, MonitorPeer):
        return OWNER
    if peer.scope is None:
        raise _not_authenticated()
    return peer.scope


class _Room:
    """Bounds the connections of one socket: the oldest without a token makes room.

    Over TCP they are guests, so that handshakes count, too.
    """

    def __init__(self) -> None:
        self._inside: dict[Guest | Peer, None] = {}

    def enter(self, each: Guest | Peer) -> bool:
        """Let a connection in as long as there is room, or can be made."""
        if len(self._inside) >= MOST_CONNECTIONS and not self.make_room():
            return False
        self._inside[each] = None
        return True

    def leave(self, each: Guest | Peer) -> None:
        """Hear that a connection has ended."""
        self._inside.pop(each, None)

    def make_room(self) -> bool:
        """End the oldest connection that has presented no token."""
        for each in self._inside:
            peer = each.peer if isinstance(each, Guest) else each
            if not isinstance(peer, MonitorPeer) or peer.scope is None:
                self.leave(each)
                if isinstance(each, Guest):
                    each.end()
                else:
                    each.abort()
                return True
        return False


class Monitor:
    """Answers holders of tokens, on any number of listening sockets."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._rates = Rates()
        self._peers: dict[MonitorPeer, None] = {}

    def serve(
        self,
        listening: socket.socket,
        group: asyncio.TaskGroup,
        gated: Iterable[Gated],
        *,
        certificate: Path,
    ) -> AbstractAsyncContextManager[Server]:
        """Serve holders of tokens on a Unix socket, or on a TCP socket with TLS.

        `certificate`: file of the server's certificate and key; made when it is needed and missing.
        Raises SecretFileError when it cannot be used.
        """
        handlers, room = self._handlers(group, gated), _Room()
        if listening.family == socket.AF_UNIX:
            return serve(
                listening,
                lambda: MonitorPeer(handlers, self._peers, room.leave),
                accept=lambda transport: room.enter(_monitor_peer(transport)),
            )
        from zkchannels.service.certificate import ensure_pair  # noqa: PLC0415 - seldom needed
        from zkchannels.service.tls import (  # noqa: PLC0415
            fingerprint_of,
            own_certificate,
            server_context,
        )

        ensure_pair(certificate, NAME, "server")
        shown = fingerprint_of(own_certificate(certificate))
        log.info("monitor_certificate", sha256=shown.hex())
        return serve_tls(
            listening,
            lambda: MonitorPeer(handlers, self._peers),
            server_context(certificate),
            group,
            door=room,
        )

    def _handlers(self, group: asyncio.TaskGroup, gated: Iterable[Gated]) -> Handlers:
        """Return what is answered: the owner's methods, each behind the token and then the gate."""
        handlers = Handlers(task_group=group)
        handlers.register(methods.AUTHENTICATE, self._authenticate)
        for method, answer in gated:
            handlers.register(
                method,
                self._guarded(method, answer),
                # What is short ends by itself; who waits for long may be gone for long.
                cancel_on_disconnect=method is methods.WAIT,
            )
        return handlers

    def end_invalid(self) -> None:
        """End the connections of all tokens that are not valid any more."""
        for peer in list(self._peers):
            if peer.scope is not None:
                try:
                    assert peer.scope.grant is not None
                    self._tokens.check(peer.scope.grant)
                except TokenRefused as refusal:
                    log.info("token_ended", reason=str(refusal))
                    peer.abort()
                except NotLoaded:
                    continue

    def _authenticate(self, params: methods.AuthenticateParams, peer: Peer) -> methods.Granted:
        assert isinstance(peer, MonitorPeer)
        if peer.scope is not None:
            raise failure("forbidden", "this connection has presented its token already")
        try:
            grant = self._tokens.present(params.token)
        except TokenRefused as refusal:
            log.warning("token_refused", reason=str(refusal), peer_uid=uid_of(peer))
            asyncio.get_running_loop().call_soon(peer.close)
            raise failure("forbidden", str(refusal)) from None
        except NotLoaded:
            raise _not_loaded() from None
        scopes = [other.scope for other in self._peers if other.scope is not None]
        same = sum(scope.grant is not None and scope.grant.token == grant.token for scope in scopes)
        if same >= MOST_PER_TOKEN:
            raise failure("rate_limited", f"the token has {same} connections already")
        peer.scope = Scope(grant)
        expires = grant.restrictions.expires
        peer.end_after(None if expires is None else expires - time.time())
        return methods.Granted(
            id=grant.token.hex(),
            methods=sorted(
                method.name for method in methods.METHODS if grant.allows(method.name, method.grant)
            ),
            channels=_channels(grant),
            expires=expires,
        )

    def _guarded(
        self, method: Method[Any, Any], answer: Callable[[Any, Peer], Any]
    ) -> Callable[[Any, Peer], Any]:
        if not inspect.iscoroutinefunction(answer):

            def inline(params: Any, peer: Peer) -> Any:
                self._admit(method, peer)
                return answer(params, peer)

            return inline

        async def task(params: Any, peer: Peer) -> Any:
            self._admit(method, peer)
            awaited: Awaitable[Any] = answer(params, peer)
            return await awaited

        return task

    def _admit(self, method: Method[Any, Any], peer: Peer) -> None:
        """Raise the typed error unless the connection's token allows this call, now."""
        grant = scope_of(peer).grant
        assert grant is not None
        try:
            self._tokens.check(grant)
        except TokenRefused as refusal:
            asyncio.get_running_loop().call_soon(peer.close)
            raise failure("forbidden", str(refusal)) from None
        except NotLoaded:
            raise _not_loaded() from None
        if not self._rates.take(grant.restrictions.rates, time.monotonic()):
            raise failure("rate_limited", "the token's rate is used up")
        if not grant.allows(method.name, method.grant):
            raise failure("forbidden", f"the token does not allow {method.name}")
        if method is methods.SUBSCRIBE and isinstance(peer, MonitorPeer):
            if peer.subscriptions >= MOST_SUBSCRIPTIONS:
                raise failure("rate_limited", "this connection has subscriptions enough")
            peer.subscriptions += 1


def _monitor_peer(transport: asyncio.Transport) -> MonitorPeer:
    peer = transport.get_protocol()
    assert isinstance(peer, MonitorPeer)
    return peer


def _channels(grant: Grant) -> list[str] | None:
    channels = grant.restrictions.channels
    return None if channels is None else sorted("0x" + channel.hex() for channel in channels)


def _not_authenticated() -> RpcError:
    return failure("forbidden", "this socket needs a token: authenticate first")


def _not_loaded() -> RpcError:
    return failure("not_ready", "the tokens are not read from the database yet")
