"""The seed at rest: BIP-39 entropy under a passphrase (scrypt, ChaCha20-Poly1305), one small file.

Layout: "ZKSEED" | version 1 | log2 N | r | p (one byte each) | salt 32 | nonce 12 | ciphertext.
The 54 bytes before the ciphertext are authenticated with it.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from zkchannels.service.secretfile import read_secret, write_secret

from customersigner.derivation import ENTROPY_LENGTHS
from customersigner.errors import SeedFileError, WrongPassphrase

_MAGIC = b"ZKSEED\x01"
_COST: Final = (15, 8, 3)
"""log2 N, r, p: 32 MiB and about a quarter of a second, once per start."""
_HIGHEST_COST: Final = (18, 8, 16)
_SALT_END: Final = len(_MAGIC) + len(_COST) + 32
_HEADER: Final = _SALT_END + 12
_TAG: Final = 16


def seal(entropy: bytes, passphrase: bytes) -> bytes:
    """Contents of a seed file for 16 to 32 bytes of entropy."""
    header = _MAGIC + bytes(_COST) + secrets.token_bytes(_HEADER - len(_MAGIC) - len(_COST))
    return header + _cipher(header, passphrase).encrypt(header[_SALT_END:], entropy, header)


def unseal(data: bytes, passphrase: bytes) -> bytes:
    """Entropy in the contents of a seed file.

    Raises SeedFileError for bytes that are no seed file, WrongPassphrase for a passphrase that
    does not open it or a file that was changed.
    """
    if not data.startswith(_MAGIC[:-1]):
        raise SeedFileError("this is no seed file")
    if not data.startswith(_MAGIC):
        raise SeedFileError("this seed file is of a version that this program cannot read")
    if len(data) - _HEADER - _TAG not in ENTROPY_LENGTHS:
        raise SeedFileError("this seed file is damaged")
    header = data[:_HEADER]
    try:
        return _cipher(header, passphrase).decrypt(header[_SALT_END:], data[_HEADER:], header)
    except InvalidTag:
        raise WrongPassphrase(
            "the passphrase is wrong, or the seed file was changed or damaged"
        ) from None


def create(path: Path, entropy: bytes, passphrase: bytes) -> None:
    """Write a new seed file, readable by its owner alone; raises SeedFileError if there is one."""
    if path.exists():
        raise SeedFileError(f"{path} exists: a seed is never overwritten")
    write_secret(path, seal(entropy, passphrase))


def load(path: Path, passphrase: bytes) -> bytes:
    """Entropy of a seed file; raises what `unseal` and `read_secret` raise."""
    if not path.exists():
        raise SeedFileError(f"{path} does not exist: run customersigner init first")
    return unseal(read_secret(path), passphrase)


def _cipher(header: bytes, passphrase: bytes) -> ChaCha20Poly1305:
    cost = header[len(_MAGIC) : len(_MAGIC) + len(_COST)]
    log_n, r, p = cost
    # Bounds, because these come from a file: a changed one must not take the machine's memory.
    if not all(1 <= value <= high for value, high in zip(cost, _HIGHEST_COST, strict=True)):
        raise SeedFileError("this seed file is damaged")
    salt = header[len(_MAGIC) + len(_COST) : _SALT_END]
    n = 1 << log_n
    memory = 128 * r * (n + p + 2) + (1 << 20)
    try:
        key = hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)
    except (ValueError, MemoryError):
        raise SeedFileError("this seed file is damaged") from None
    return ChaCha20Poly1305(key)
