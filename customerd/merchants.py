"""Connections to merchants: a fresh one for every payment, all dropped when the signer leaves."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from customerd.config import MerchantSettings
from zkchannels.escrow.ethereum import checksum, parse_address
from zkchannels.jsonrpc.peer import Limits, Peer
from zkchannels.jsonrpc.server import connect_tls
from zkchannels.service.logging import get_logger
from zkchannels.wire import merchant as wire

log = get_logger("customerd.merchants")

_ADDRESS = re.compile(
    r"^zkchannel://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?"
    r"/(?P<escrow>0x[0-9A-Fa-f]{40})$"
)
WARM_FOR = 30.0
"""Seconds an unused connection is kept; merchants drop silent ones later than that."""


class MerchantUnreachable(Exception):
    """No TLS connection to the merchant could be made; the text says why."""


class InvalidMerchantAddress(ValueError):
    """Not of the form zkchannel://host[:port]/0xESCROW."""


@dataclass(frozen=True, slots=True)
class MerchantAddress:
    """Where a merchant listens and which of its escrows is meant."""

    host: str
    port: int
    escrow: bytes

    @classmethod
    def parse(cls, text: str) -> MerchantAddress:
        """Read `zkchannel://host[:port]/0xESCROW`; raises InvalidMerchantAddress."""
        match = _ADDRESS.match(text)
        if match is None:
            raise InvalidMerchantAddress("write an address as zkchannel://host[:port]/0xESCROW")
        port = int(match["port"] or wire.DEFAULT_PORT)
        if not 0 < port < 65536:
            raise InvalidMerchantAddress("a port is a number from 1 to 65535")
        try:
            escrow = parse_address(match["escrow"])
        except ValueError as error:
            raise InvalidMerchantAddress(str(error)) from None
        return cls(match["host"].strip("[]"), port, escrow)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == wire.DEFAULT_PORT else f":{self.port}"
        return f"zkchannel://{host}{port}/{checksum(self.escrow)}"


class Merchants:
    """Opens sessions with merchants; `allowed` closes the gate for new ones in safe mode."""

    def __init__(self, settings: MerchantSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | None = None
        self._open: set[Peer] = set()
        self._warm: dict[tuple[str, int], Peer] = {}
        self._wanted: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()
        self._allowed = False

    def use(self, settings: MerchantSettings) -> None:
        """Go by other settings from now on; the file of certificates is read again."""
        self._settings = settings
        self._tls = None

    def allow(self) -> None:
        """Let sessions be opened: a signer is attached."""
        self._allowed = True

    def drop_all(self) -> None:
        """Let go of every connection at once and open no new one: the signer left."""
        self._allowed = False
        self._warm.clear()
        for peer in list(self._open):
            peer.abort()

    @property
    def connections(self) -> int:
        """How many connections are open, warm ones included."""
        return len(self._open)

    def prepare(self, host: str, port: int) -> None:
        """Make an unused connection ready in the background."""
        if self._settings.warm and self._allowed:
            self._wanted.add((host, port))
            self._wake.set()

    async def run(self) -> None:
        """Make warm connections as they are asked for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            at_work: set[tuple[str, int]] = set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                for key in self._wanted - at_work:
                    at_work.add(key)
                    group.create_task(self._warm_up(key, at_work), name="warm connection")
                self._wanted.clear()

    async def _warm_up(self, key: tuple[str, int], at_work: set[tuple[str, int]]) -> None:
        try:
            present = self._warm.get(key)
            if present is not None and not present.closed:
                return
            peer = await self._connect(*key)
        except MerchantUnreachable as error:
            log.debug("merchant_not_warmed", host=key[0], port=key[1], reason=str(error))
            return
        finally:
            at_work.discard(key)
        self._warm[key] = peer
        asyncio.get_running_loop().call_later(WARM_FOR, self._cool, key, peer)

    def _cool(self, key: tuple[str, int], peer: Peer) -> None:
        if self._warm.get(key) is peer:
            del self._warm[key]
            peer.close()

    @asynccontextmanager
    async def session(self, host: str, port: int) -> AsyncIterator[Peer]:
        """Yield a connection for one payment; raises MerchantUnreachable."""
        peer = self._warm.pop((host, port), None)
        if peer is None or peer.closed:
            peer = await self._connect(host, port)
        try:
            yield peer
        finally:
            peer.close()
            if self._allowed:
                self.prepare(host, port)

    async def _connect(self, host: str, port: int) -> Peer:
        if not self._allowed:
            raise MerchantUnreachable("no merchant is contacted while no signer is attached")
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                peer = await connect_tls(
                    host,
                    port,
                    self._context(),
                    None,
                    limits=Limits(max_line=wire.MAXIMUM_LINE),
                    on_closed=self._open.discard,
                    name=f"merchant {host}:{port}",
                    log=log.warning,
                )
        except TimeoutError:
            raise MerchantUnreachable("the merchant does not answer") from None
        except ssl.SSLError as error:
            reason = error.reason or type(error).__name__
            raise MerchantUnreachable(f"no secure connection: {reason}") from None
        except socket.gaierror:
            raise MerchantUnreachable(f"the host {host} is not known") from None
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else type(error).__name__
            raise MerchantUnreachable(f"{host}:{port} does not answer: {reason}") from None
        if not peer.closed:
            self._open.add(peer)
        if not self._allowed:
            peer.abort()
            raise MerchantUnreachable("the signer left")
        return peer

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = ssl.create_default_context(cafile=self._settings.certificates)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            self._tls = context
        return self._tls
