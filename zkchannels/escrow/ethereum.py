"""Keccak, addresses and secp256k1 signatures: the little of Ethereum that every process needs."""

from __future__ import annotations

from coincurve import PrivateKey as Secp256k1Key
from coincurve import PublicKey as Secp256k1PublicKey
from Crypto.Hash import keccak

ADDRESS_LENGTH = 20
SIGNATURE_LENGTH = 65
ZERO_ADDRESS = bytes(ADDRESS_LENGTH)

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class EthereumError(ValueError):
    """Base of what this package raises on malformed input."""


class InvalidAddress(EthereumError):
    """The text is no address, or its mixed-case checksum (EIP-55) is wrong."""


class InvalidEcdsaSignature(EthereumError):
    """Not 65 bytes r|s|v, not canonical (high s), or no public key fits it."""


class InvalidPrivateKey(EthereumError):
    """Not 32 bytes, or not between 1 and the order of the group."""


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not SHA3-256)."""
    return keccak.new(digest_bits=256, data=data).digest()


def checksum(address: bytes) -> str:
    """EIP-55 text of a 20-byte address."""
    if len(address) != ADDRESS_LENGTH:
        raise InvalidAddress("an address has 20 bytes")
    digits = address.hex()
    nibbles = keccak256(digits.encode()).hex()
    mixed = "".join(
        digit.upper() if nibble > "7" else digit
        for digit, nibble in zip(digits, nibbles, strict=False)
    )
    return "0x" + mixed


def parse_address(text: str) -> bytes:
    """Bytes of an address written as 0x and 40 digits.

    Mixed case must carry a correct EIP-55 checksum; all-lower and all-upper text carries none.
    Raises InvalidAddress.
    """
    digits = text[2:]
    if not text.startswith("0x") or len(digits) != 2 * ADDRESS_LENGTH:
        raise InvalidAddress(f"not an address: {text!r}")
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        raise InvalidAddress(f"not an address: {text!r}") from None
    if len(address) != ADDRESS_LENGTH:  # fromhex skips blanks
        raise InvalidAddress(f"not an address: {text!r}")
    if digits not in (digits.lower(), digits.upper()) and checksum(address) != text:
        raise InvalidAddress(f"wrong checksum in address {text!r}")
    return address


class PrivateKey:
    """A secp256k1 key and the address it controls; never shows its secret."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise InvalidPrivateKey("a private key has 32 bytes")
        try:
            self._key = Secp256k1Key(secret)
        except ValueError:
            raise InvalidPrivateKey("a private key lies between 1 and the group's order") from None
        self.address: bytes = _address_of(self._key.public_key)

    def sign_digest(self, digest: bytes) -> bytes:
        """Deterministic (RFC 6979), low-s signature r|s|v of a 32-byte digest, v 27 or 28."""
        if len(digest) != 32:
            raise EthereumError("a digest has 32 bytes")
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def __repr__(self) -> str:
        return f"PrivateKey({checksum(self.address)})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not serialised")


def recover(digest: bytes, signature: bytes) -> bytes:
    """Address that signed a 32-byte digest with r|s|v (v 27 or 28).

    Raises InvalidEcdsaSignature, also for high s: each signature has one form only (EIP-2).
    """
    if len(digest) != 32:
        raise EthereumError("a digest has 32 bytes")
    if len(signature) != SIGNATURE_LENGTH or signature[64] not in (27, 28):
        raise InvalidEcdsaSignature("a signature has 65 bytes and v is 27 or 28")
    if int.from_bytes(signature[32:64]) > _HALF_ORDER:
        raise InvalidEcdsaSignature("s lies in the upper half")
    try:
        key = Secp256k1PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception here
        raise InvalidEcdsaSignature("no key fits the signature") from error
    return _address_of(key)


def _address_of(key: Secp256k1PublicKey) -> bytes:
    return keccak256(key.format(compressed=False)[1:])[-ADDRESS_LENGTH:]
