"""Macaroons with first-party caveats: tokens that their holder can restrict, and nobody can widen.

Birgisson et al., "Macaroons: Cookies with Contextual Caveats for Decentralized Authorization in the
Cloud" (NDSS 2014), section III: a chain of HMAC-SHA256, each caveat keyed by what came before it.
Key derivation and the binary form (version 2, in base64url) are those of libmacaroons.

Written on `hmac` rather than on a library: pymacaroons had its last release in February 2018 and
brings six and PyNaCl for third-party caveats, and macaroonbakery brings HTTP and protobuf for
their discharge; here there is one party. What is left of a macaroon is the loop in `_chain`, and
the command line, which restricts tokens offline, has to start fast.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac

TYPE_CHECKING = False  # `typing` would double the start of the command line
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

LOCATION = "customerd"
LONGEST = 16 * 1024
"""Bytes of a token's binary form, at the most."""
MOST_CAVEATS = 64

_VERSION = 2
_END, _LOCATION, _IDENTIFIER, _SIGNATURE = 0, 1, 2, 6
_KEY_GENERATOR = b"macaroons-key-generator".ljust(32, b"\0")
_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class MacaroonError(Exception):
    """The text is no macaroon that can be read; the message never repeats it."""


class Macaroon:
    """An identifier, caveats, and the signature over both that makes it a secret."""

    __slots__ = ("caveats", "identifier", "signature")

    def __init__(self, identifier: bytes, caveats: tuple[str, ...], signature: bytes) -> None:
        self.identifier = identifier
        self.caveats = caveats
        self.signature = signature

    def __repr__(self) -> str:
        return f"Macaroon(identifier={self.identifier.hex()}, caveats={self.caveats})"

    @classmethod
    def mint(cls, root_key: bytes, identifier: bytes, caveats: Sequence[str] = ()) -> Self:
        """Make a macaroon; whoever has `root_key` can verify it."""
        minted = cls(identifier, (), _signature(_derived(root_key), identifier))
        for caveat in caveats:
            minted = minted.restricted(caveat)
        return minted

    def restricted(self, caveat: str) -> Self:
        """Return a macaroon that is valid only where the caveat holds as well."""
        if len(self.caveats) >= MOST_CAVEATS:
            raise MacaroonError(f"a token has at most {MOST_CAVEATS} caveats")
        signature = _signature(self.signature, caveat.encode())
        return type(self)(self.identifier, (*self.caveats, caveat), signature)

    def verify(self, root_key: bytes) -> list[bytes] | None:
        """Return for each caveat a name of the token that ends with it; None when it is forged.

        The names, digests of the signatures in between, stay the same in everything that a holder
        derives; they let a limit be counted for all who share it, and authorize nothing.
        """
        signatures = list(_chain(root_key, self.identifier, self.caveats))
        if not hmac.compare_digest(signatures[-1], self.signature):
            return None
        return [hashlib.sha256(b"account" + signature).digest() for signature in signatures[1:]]

    def encode(self) -> str:
        """Return the token as text: base64url without padding."""
        parts = [bytes([_VERSION]), _field(_LOCATION, LOCATION.encode())]
        parts += [_field(_IDENTIFIER, self.identifier), bytes([_END])]
        for caveat in self.caveats:
            parts += [_field(_IDENTIFIER, caveat.encode()), bytes([_END])]
        parts += [bytes([_END]), _field(_SIGNATURE, self.signature)]
        text = binascii.b2a_base64(b"".join(parts), newline=False).decode()
        return text.translate({43: 45, 47: 95}).rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a token; raises MacaroonError. One macaroon has one text."""
        try:
            given = text.encode("ascii")
        except UnicodeEncodeError:
            raise MacaroonError("the token is not in base64url") from None
        if len(given) > LONGEST * 4 // 3 or not _ALPHABET.issuperset(given):
            raise MacaroonError("the token is not in base64url, or too long")
        try:
            padded = given.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(given) % 4)
            read = cls._read(_Reader(binascii.a2b_base64(padded)))
        except (binascii.Error, IndexError, UnicodeDecodeError):
            raise MacaroonError("the token is damaged or incomplete") from None
        if read.encode() != text:
            raise MacaroonError("the token is damaged")
        return read

    @classmethod
    def _read(cls, reader: _Reader) -> Self:
        if reader.byte() != _VERSION:
            raise MacaroonError("the token is of another version")
        reader.field(_LOCATION)
        identifier = reader.field(_IDENTIFIER)
        reader.end()
        caveats: list[str] = []
        while not reader.at_end():
            caveats.append(reader.field(_IDENTIFIER).decode())
            reader.end()
            if len(caveats) > MOST_CAVEATS:
                raise MacaroonError(f"a token has at most {MOST_CAVEATS} caveats")
        return cls(identifier, tuple(caveats), reader.field(_SIGNATURE))


class _Reader:
    """Takes fields from the binary form; raises IndexError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def byte(self) -> int:
        """Take one byte."""
        value = self._data[self._place]
        self._place += 1
        return value

    def number(self) -> int:
        """Take a length: seven bits a byte, the lowest first."""
        value = shift = 0
        while (byte := self.byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 21:
                raise MacaroonError("the token is damaged")
        return value | byte << shift

    def field(self, kind: int) -> bytes:
        """Take a field of this kind."""
        if self.number() != kind:
            raise MacaroonError("the token is damaged, or has caveats of a third party")
        length = self.number()
        value = self._data[self._place : self._place + length]
        if len(value) < length:
            raise IndexError
        self._place += length
        return value

    def end(self) -> None:
        """Take the end of a section."""
        if not self.at_end():
            raise MacaroonError("the token is damaged, or has caveats of a third party")

    def at_end(self) -> bool:
        """Take the end of a section, if it is here."""
        if self._data[self._place] != _END:
            return False
        self._place += 1
        return True


def _chain(root_key: bytes, identifier: bytes, caveats: Sequence[str]) -> Iterator[bytes]:
    signature = _signature(_derived(root_key), identifier)
    yield signature
    for caveat in caveats:
        signature = _signature(signature, caveat.encode())
        yield signature


def _derived(root_key: bytes) -> bytes:
    return _signature(_KEY_GENERATOR, root_key)


def _signature(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _field(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + _number(len(value)) + value


def _number(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
