"""The blocking client over TLS; a module of its own, as what it imports takes long to start."""

from __future__ import annotations

import hashlib
import socket
import ssl

from zkchannels.jsonrpc.client import BlockingClient, ConnectError, reason_of


class TlsClient(BlockingClient):
    """One connection over TLS 1.3 to the server with one certificate; raises ConnectError.

    `pinned`: the SHA-256 of that certificate, hexadecimal; nothing is sent to another server.
    """

    def __init__(self, host: str, port: int, pinned: str, *, connect_timeout: float = 10.0) -> None:
        self._received = bytearray()
        self._searched = 0
        self._last_identity = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is compared below, as a whole
        place = f"{host}:{port}"
        try:
            with socket.create_connection((host, port), connect_timeout) as plain:
                secured = context.wrap_socket(plain)
        except OSError as error:
            raise ConnectError(place, reason_of(error), error) from None
        shown = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
        if shown != pinned.lower():
            secured.close()
            raise ConnectError(place, "stranger", OSError(0, "another certificate"))
        secured.settimeout(None)
        self._socket = secured
