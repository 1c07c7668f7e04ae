"""TLS 1.3 with pinned self-signed certificates: settings, fingerprints, a bound on silence."""

from __future__ import annotations

import asyncio
import socket
import ssl
from hashlib import sha256
from pathlib import Path
from typing import Final

from zkchannels.service.secretfile import SecretFileError, read_secret

FINGERPRINT_LENGTH: Final = 32

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: a pin does not expire, and a small device may not know the time."""


def fingerprint_of(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in DER, 32 bytes: what the other side pins."""
    return sha256(certificate).digest()


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of a PEM certificate, hexadecimal: what a customer pins."""
    return fingerprint_of(_der(certificate.read_text(encoding="ascii"))).hex()


def own_certificate(path: Path) -> bytes:
    """Return the certificate, in DER, of a file that holds it and its key.

    Raises SecretFileError when the file cannot be read, is open to others, or holds none.
    """
    try:
        return _der(read_secret(path).decode("ascii"))
    except ValueError:
        raise SecretFileError(f"{path} holds no certificate") from None


def server_context(certificate: Path, private_key: Path | None = None) -> ssl.SSLContext:
    """Return a server's TLS settings: version 1.3 and no session tickets.

    A ticket would let a merchant recognise a customer's next connection and so link payments, and
    a signer that was forgotten resume. Without `private_key` the certificate's file holds it.
    Raises SecretFileError, also for a key that is open to others.
    """
    read_secret(private_key or certificate)  # checks whose it is; the library reads it by itself
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, private_key)
    except ssl.SSLError as error:
        raise SecretFileError(
            f"{private_key or certificate}: no key that belongs to the certificate: {error.reason}"
        ) from None
    except OSError as error:
        raise SecretFileError(f"{certificate}: {error.strerror}") from None
    return context


def pinning_server_context(
    own: Path, *, pinned: bytes | None, anonymous: bool = False
) -> ssl.SSLContext:
    """Return the settings of a server that lets in one client certificate (DER) and no other.

    `anonymous` lets in whoever shows no certificate at all, too.
    """
    context = server_context(own)
    context.verify_mode = ssl.CERT_OPTIONAL if anonymous else ssl.CERT_REQUIRED
    _pin(context, pinned)
    return context


def pinning_client_context(own: Path | None, *, pinned: bytes | None) -> ssl.SSLContext:
    """Return the settings of a client for the server with one certificate (DER) and no other.

    Without `pinned` any server is connected to, and the caller compares the fingerprint before it
    sends anything; without `own` the client shows no certificate. Raises SecretFileError when that
    file, which holds its key, is open to others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if pinned is None else ssl.CERT_REQUIRED
    _pin(context, pinned)
    if own is not None:
        read_secret(own)  # checks whose it is
        context.load_cert_chain(own)
    return context


def peer_certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """Return the other side's certificate in DER; None without TLS or without a certificate."""
    secured = transport.get_extra_info("ssl_object")
    return None if secured is None else secured.getpeercert(binary_form=True)


def bound_silence(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the system end a TCP connection whose other end acknowledged nothing for so long."""
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _pin(context: ssl.SSLContext, pinned: bytes | None) -> None:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    if pinned is not None:
        context.load_verify_locations(cadata=pinned)


def _der(pem: str) -> bytes:
    """Return the first certificate of a PEM text; raises ValueError."""
    start, end = pem.find(_BEGIN), pem.find(_END)
    if start < 0 or end < 0:
        raise ValueError("no certificate")
    return ssl.PEM_cert_to_DER_cert(pem[start : end + len(_END)])
