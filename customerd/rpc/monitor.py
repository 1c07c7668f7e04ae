"""The monitor sockets: the owner's methods for holders of tokens, and for nobody else.

A connection's first request is `authenticate`; every later one is judged again, as tokens expire
and are revoked. A method is open to tokens only where its definition says so.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from customerd.rpc import methods
from customerd.rpc.errors import failure
from customerd.tokens.grant import OWNER, Grant, Rates, Scope
from customerd.tokens.registry import NotLoaded, TokenRefused, Tokens
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Limits, Peer
from zkchannels.service.logging import get_logger

log = get_logger("customerd.monitor")

LIMITS = Limits(max_line=64 * 1024, max_outstanding=16, max_batch=16)
AUTHENTICATE_WITHIN = 10.0
"""Seconds that a connection has to present its token."""
MOST_CONNECTIONS = 256

Gated = tuple[Method[Any, Any], Callable[[Any, Peer], Any]]


class MonitorPeer(Peer):
    """A connection of somebody who is not the owner; without a scope it is refused everything."""

    __slots__ = ("_timer", "scope")

    def __init__(self, handlers: Handlers, *, on_closed: Callable[[Peer], object]) -> None:
        super().__init__(
            handlers, limits=LIMITS, name="monitor", on_closed=on_closed, log=log.warning
        )
        self.scope: Scope | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        super().connection_made(transport)
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
        super().connection_lost(error)


def scope_of(peer: Peer) -> Scope:
    """Return what the caller may see: the owner everything, others what their token allows."""
    if not isinstance(peer, MonitorPeer):
        return OWNER
    if peer.scope is None:
        raise _not_authenticated()
    return peer.scope


class Monitor:
    """Answers holders of tokens, on any number of listening sockets."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._rates = Rates()
        self._peers: set[Peer] = set()

    def handlers(self, group: asyncio.TaskGroup, gated: Iterable[Gated]) -> Handlers:
        """Return what is answered: the owner's methods, each behind the token and then the gate."""
        handlers = Handlers(task_group=group)
        handlers.register(methods.AUTHENTICATE, self._authenticate)
        for method, answer in gated:
            handlers.register(
                method,
                self._guarded(method, answer),
                # Money that is about to move is not left in doubt because its caller went away.
                cancel_on_disconnect=method.grant == "read",
            )
        return handlers

    def peer(self, handlers: Handlers) -> MonitorPeer:
        """Return the protocol of a new connection."""
        peer = MonitorPeer(handlers, on_closed=self._peers.discard)
        self._peers.add(peer)
        return peer

    def accept(self, _transport: asyncio.Transport) -> bool:
        """Whether there is room for one more."""
        return len(self._peers) <= MOST_CONNECTIONS

    def end_invalid(self) -> None:
        """End the connections of all tokens that are not valid any more."""
        for peer in list(self._peers):
            if isinstance(peer, MonitorPeer) and peer.scope is not None:
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
            log.warning("token_refused", reason=str(refusal))
            asyncio.get_running_loop().call_soon(peer.close)
            raise failure("forbidden", str(refusal)) from None
        except NotLoaded:
            raise _not_loaded() from None
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


def _channels(grant: Grant) -> list[str] | None:
    channels = grant.restrictions.channels
    return None if channels is None else sorted("0x" + channel.hex() for channel in channels)


def _not_authenticated() -> RpcError:
    return failure("forbidden", "this socket needs a token: authenticate first")


def _not_loaded() -> RpcError:
    return failure("not_ready", "the tokens are not read from the database yet")
