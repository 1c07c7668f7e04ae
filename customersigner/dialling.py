"""Where the daemons are, and connections to them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from customersigner.link import Way
from customersigner.pairing import PairedDaemon, read_paired
from customersigner.settings import Settings
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Limits, Peer
from zkchannels.jsonrpc.server import connect_tls, connect_unix
from zkchannels.service.logging import get_logger
from zkchannels.service.tls import (
    fingerprint_of,
    own_certificate,
    peer_certificate,
    pinning_client_context,
)
from zkchannels.wire.pairing import NO_CHANNEL, read_address

LIMITS: Final = Limits(max_outstanding=1024)
"""Room for more requests than a daemon ever has waiting, so that its pings are always read."""

log = get_logger("customersigner.link")


class Dialler:
    """Knows the daemons that the settings name, else the paired ones, else the one on this host.

    It looks at each round, so that a new pairing takes effect without a restart.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = self._version()

    def renewed(self) -> bool:
        """Whether there is another pairing than in the last round."""
        return self._version() != self._seen

    def ways(self) -> list[Way]:
        """Return the addresses in the order in which they are tried; raises SecretFileError.

        Dialling one raises OSError (ssl.SSLError is one), SecretFileError.
        """
        self._seen = self._version()
        paired: list[PairedDaemon] = []
        if self._settings.socket is None:
            paired = read_paired(self._settings.pairing_file)
        if not paired:
            paired = [PairedDaemon(str(path), None) for path in self._settings.socket_paths]
        return [Way(each.address, partial(self._dial, each)) for each in paired]

    async def _dial(self, daemon: PairedDaemon, handlers: Handlers) -> tuple[Peer, bytes]:
        """Connect; return the connection and what the identity key signs about its certificates."""
        if daemon.certificate is not None:
            return await self._dial_tls(daemon.address, daemon.certificate, handlers)
        path = Path(daemon.address)
        peer = await connect_unix(path, handlers, limits=LIMITS, name="daemon", log=log.warning)
        return peer, NO_CHANNEL

    async def _dial_tls(
        self, address: str, certificate: bytes, handlers: Handlers
    ) -> tuple[Peer, bytes]:
        host, port = read_address(address)
        own = self._settings.certificate_file
        fingerprint = fingerprint_of(own_certificate(own))  # says best what is wrong with the file
        context = pinning_client_context(own, pinned=certificate)
        peer = await connect_tls(
            host, port, context, handlers, limits=LIMITS, name="daemon", log=log.warning
        )
        # Another certificate would not have been let through; this says so without OpenSSL's help.
        if peer_certificate(peer.transport) != certificate:
            peer.abort()
            raise ConnectionError("the daemon shows another certificate")
        return peer, fingerprint_of(certificate) + fingerprint

    def _version(self) -> tuple[int, int] | None:
        try:
            status = self._settings.pairing_file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
