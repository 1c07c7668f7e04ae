"""Pairing: the line that the daemon shows, and the proofs by which both sides know each other.

Both derive two keys from the line's one-time secret and prove that they hold it over everything
they said, both certificates included, as SCRAM does it (RFC 5802, section 3; the secret is random,
so there is no salt): the daemon's database has what recognises the signer, not what passes for it.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from base64 import b32decode, b32encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from zkchannels.service.tls import FINGERPRINT_LENGTH, fingerprint_of

__all__ = [
    "NO_CHANNEL",
    "AddressLine",
    "InvalidLine",
    "Keys",
    "PairingLine",
    "daemons_proof",
    "fingerprint_of",
    "is_daemons_proof",
    "is_signers_proof",
    "keys_of",
    "read_address",
    "read_line",
    "signers_proof",
    "transcript",
    "write_address",
]

PREFIX: Final = "customerd-pair-1"
ALSO_PREFIX: Final = "customerd-also-1"
SECRET_LENGTH: Final = 16
NO_CHANNEL: Final = bytes(2 * FINGERPRINT_LENGTH)
"""What stands for both certificates on a Unix socket."""

_SIGNER = b"customerd/pairing/1/signer"
_DAEMON = b"customerd/pairing/1/daemon"
_TRANSCRIPT = b"customerd/pairing/1/transcript"
_WITHOUT_CERTIFICATE = "-"
_DAMAGED = "this pairing line is damaged"
_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]*)):(?P<port>[0-9]{1,5})", re.ASCII
)


class InvalidLine(Exception):
    """This is no pairing line; the message says why and never repeats the line."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the daemon keeps of the secret, 32 bytes each."""

    stored: bytes = field(repr=False)
    daemon: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PairingLine:
    """What one device shows and the other reads.

    address: "host:port", or the path of a Unix socket, which needs no fingerprint;
    expires: Unix time
    """

    address: str
    fingerprint: bytes | None
    secret: bytes = field(repr=False)
    expires: int

    @classmethod
    def fresh(cls, address: str, fingerprint: bytes | None, *, lasting: float) -> Self:
        """Return a line with a new secret, good for so many seconds."""
        return cls(
            address, fingerprint, secrets.token_bytes(SECRET_LENGTH), int(time.time() + lasting)
        )

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a line says; raises InvalidLine."""
        parts = text.strip().split(",")
        if len(parts) < 5 or parts[0] != PREFIX:
            raise InvalidLine(f"a pairing line begins with {PREFIX} and has five parts")
        address, (shown, secret, expires) = ",".join(parts[1:-3]), parts[-3:]
        fingerprint = _read_place(address, shown)
        try:
            line = cls(address, fingerprint, _unbase32(secret), int(expires))
        except ValueError:
            raise InvalidLine(_DAMAGED) from None
        if len(line.secret) != SECRET_LENGTH:
            raise InvalidLine(_DAMAGED)
        return line

    def text(self) -> str:
        """Return the line."""
        shown = _WITHOUT_CERTIFICATE if self.fingerprint is None else self.fingerprint.hex()
        secret = b32encode(self.secret).decode().rstrip("=").lower()
        return f"{PREFIX},{self.address},{shown},{secret},{self.expires}"


@dataclass(frozen=True, slots=True)
class AddressLine:
    """Where another daemon on the database of the paired one is: no secret, and good for ever.

    address, fingerprint: as in a pairing line
    """

    address: str
    fingerprint: bytes | None

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a line says; raises InvalidLine."""
        parts = text.strip().split(",")
        if len(parts) < 3 or parts[0] != ALSO_PREFIX:
            raise InvalidLine(f"an address line begins with {ALSO_PREFIX} and has three parts")
        address = ",".join(parts[1:-1])
        return cls(address, _read_place(address, parts[-1]))

    def text(self) -> str:
        """Return the line."""
        shown = _WITHOUT_CERTIFICATE if self.fingerprint is None else self.fingerprint.hex()
        return f"{ALSO_PREFIX},{self.address},{shown}"


def read_line(text: str) -> PairingLine | AddressLine:
    """Return what a line of either kind says; raises InvalidLine."""
    if text.strip().startswith(f"{ALSO_PREFIX},"):
        return AddressLine.read(text)
    return PairingLine.read(text)


def _read_place(address: str, shown: str) -> bytes | None:
    """Return the fingerprint that goes with an address, None on a Unix socket."""
    try:
        fingerprint = None if shown == _WITHOUT_CERTIFICATE else bytes.fromhex(shown)
    except ValueError:
        raise InvalidLine(_DAMAGED) from None
    if len(fingerprint or bytes(FINGERPRINT_LENGTH)) != FINGERPRINT_LENGTH:
        raise InvalidLine(_DAMAGED)
    if (fingerprint is None) is not address.startswith("/"):
        raise InvalidLine("a Unix socket has no certificate, and everything else has one")
    if fingerprint is not None:
        read_address(address)
    return fingerprint


def read_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port"; raises InvalidLine."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) >= 1 << 16:
        raise InvalidLine(f"{address!r} is not host:port")
    return found["six"] or found["name"], int(found["port"])


def write_address(host: str, port: int) -> str:
    """Return "host:port", an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def keys_of(secret: bytes) -> Keys:
    """Return what the daemon keeps of a secret."""
    return Keys(sha256(_signer_key(secret)).digest(), hmac.digest(secret, _DAEMON, "sha256"))


def transcript(channel: bytes, identity: bytes, signers: bytes, daemons: bytes) -> bytes:
    """Return what both sides prove to agree on.

    channel: fingerprints of the daemon's and of the signer's certificate, 64 bytes;
    identity: the wallet's, 20 bytes; signers, daemons: their fresh nonces, 32 bytes each
    """
    return _TRANSCRIPT + channel + identity + signers + daemons


def signers_proof(secret: bytes, said: bytes) -> bytes:
    """Return the proof, 32 bytes, that the signer read the line."""
    key = _signer_key(secret)
    mask = hmac.digest(sha256(key).digest(), said, "sha256")
    return bytes(a ^ b for a, b in zip(key, mask, strict=True))


def is_signers_proof(keys: Keys, said: bytes, proof: bytes) -> bool:
    """Whether a proof came from somebody who read the line, about what was said."""
    mask = hmac.digest(keys.stored, said, "sha256")
    key = bytes(a ^ b for a, b in zip(proof, mask, strict=True))
    return hmac.compare_digest(sha256(key).digest(), keys.stored)


def daemons_proof(keys: Keys, said: bytes) -> bytes:
    """Return the proof, 32 bytes, that the daemon made the line."""
    return hmac.digest(keys.daemon, said, "sha256")


def is_daemons_proof(secret: bytes, said: bytes, proof: bytes) -> bool:
    """Whether a proof came from the daemon that made the line, about what was said."""
    return hmac.compare_digest(daemons_proof(keys_of(secret), said), proof)


def _signer_key(secret: bytes) -> bytes:
    return hmac.digest(secret, _SIGNER, "sha256")


def _unbase32(text: str) -> bytes:
    return b32decode(text.upper() + "=" * (-len(text) % 8))
