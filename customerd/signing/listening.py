"""Who may speak on the signer's sockets before it has proved anything, how many, and how long.

The attached signer is never counted or disturbed. Of the others, the oldest makes room: of the
same address first, so that one address cannot keep the others out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from customerd.signing.pairing import Pairing
from zkchannels.jsonrpc.door import Guest
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.addresses import source_of
from zkchannels.service.logging import get_logger
from zkchannels.service.sockets import peer_credentials
from zkchannels.service.tls import bound_silence, fingerprint_of, peer_certificate

PATIENCE: Final = 10.0
"""Seconds that a newcomer has to attach."""
MOST: Final = 64
"""Newcomers at a time, on each kind of socket."""
MOST_PER_SOURCE: Final = 32

log = get_logger("customerd.signing")


class Newcomers:
    """The connections that have not attached; each ends by itself after a while."""

    def __init__(self) -> None:
        self._timers: dict[Peer, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, peer: object) -> bool:
        return peer in self._timers

    def add(self, peer: Peer) -> None:
        """Give a new connection its time; the oldest makes room."""
        if len(self._timers) >= MOST:
            oldest = next(iter(self._timers))
            self.remove(oldest)
            oldest.abort()
        loop = asyncio.get_running_loop()
        self._timers[peer] = loop.call_later(PATIENCE, self._expire, peer)

    def remove(self, peer: Peer) -> None:
        """Hear that a connection attached or ended."""
        timer = self._timers.pop(peer, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, peer: Peer) -> None:
        log.info("newcomer_cut", reason="it did not attach in time")
        peer.abort()


class SignerDoor:
    """Lets TCP connections in while a signer is paired or awaited, and bounds the newcomers."""

    def __init__(self, pairing: Pairing, is_attached: Callable[[Peer], bool]) -> None:
        self._pairing = pairing
        self._is_attached = is_attached
        self._guests: dict[str, dict[Guest, None]] = {}

    def enter(self, guest: Guest) -> bool:
        """Let a connection in; the oldest newcomer of its address, or of the busiest, leaves."""
        source = source_of(guest.address)
        if source is None or (self._pairing.paired is None and not self._pairing.awaited):
            return False
        if len(self._newcomers(source)) >= MOST_PER_SOURCE:
            self._end_oldest(source)
        if sum(len(self._newcomers(each)) for each in self._guests) >= MOST:
            self.make_room()
        self._guests.setdefault(source, {})[guest] = None
        return True

    def leave(self, guest: Guest) -> None:
        """Hear that a connection has ended."""
        source = source_of(guest.address) or ""
        guests = self._guests.get(source, {})
        guests.pop(guest, None)
        if not guests:
            self._guests.pop(source, None)

    def make_room(self) -> bool:
        """End the oldest newcomer of the busiest address."""
        busiest = max(self._guests, key=lambda source: len(self._newcomers(source)), default="")
        return self._end_oldest(busiest)

    def _newcomers(self, source: str) -> list[Guest]:
        guests = self._guests.get(source, {})
        return [
            guest for guest in guests if guest.peer is None or not self._is_attached(guest.peer)
        ]

    def _end_oldest(self, source: str) -> bool:
        newcomers = self._newcomers(source)
        if not newcomers:
            return False
        self.leave(newcomers[0])
        newcomers[0].end()
        return True


class Caller:
    """What is known about the other end of a connection by itself."""

    __slots__ = ("certificate", "secured", "source", "trusted")

    def __init__(self, peer: Peer) -> None:
        transport = peer.transport
        self.certificate: bytes | None = None
        self.trusted = False
        """Whether it is a process of the daemon's own user or of root, on a Unix socket."""
        self.secured = secured(transport)
        """Whether it came over TLS."""
        if self.secured:
            self.certificate = peer_certificate(transport)
            self.source = source_of(transport.get_extra_info("peername")) or "gone"
            return
        _, uid, _ = peer_credentials(transport.get_extra_info("socket"))
        self.trusted = uid in (os.geteuid(), 0)
        self.source = f"uid {uid}"

    @property
    def fingerprint(self) -> bytes | None:
        """SHA-256 of the certificate that it showed."""
        return None if self.certificate is None else fingerprint_of(self.certificate)


def secured(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection comes over TLS."""
    return transport.get_extra_info("sslcontext") is not None


def watch_silence(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the system notice a TCP peer that is gone."""
    if secured(transport):
        bound_silence(transport, seconds)
