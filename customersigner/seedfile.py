"""The seed at rest: BIP-39 entropy under a passphrase, scrypt and ChaCha20-Poly1305, as text.

"zkseed/1 " and base64 of: log2 N, r, p (one byte each) | salt 32 | nonce 12 | ciphertext. What is
before the ciphertext is authenticated with it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from customersigner.derivation import ENTROPY_LENGTHS
from customersigner.errors import SeedFileError, WrongPassphrase
from zkchannels.service.secretfile import read_secret, write_secret

_MAGIC: Final = b"zkseed/1 "
_COST: Final = bytes((15, 8, 3))
"""log2 N, r, p: 32 MiB and about a quarter of a second, once per start."""
_HIGHEST_COST: Final = (18, 8, 16)
_SALT: Final = slice(len(_COST), len(_COST) + 32)
_NONCE: Final = slice(_SALT.stop, _SALT.stop + 12)
_TAG_LENGTH: Final = 16


def seal(entropy: bytes, passphrase: bytes) -> bytes:
    """Contents of a seed file for 16 to 32 bytes of entropy."""
    head = _COST + secrets.token_bytes(_NONCE.stop - len(_COST))
    ciphertext = _cipher(head, passphrase).encrypt(head[_NONCE], entropy, _MAGIC + head)
    return _MAGIC + base64.b64encode(head + ciphertext) + b"\n"


def unseal(data: bytes, passphrase: bytes) -> bytes:
    """Entropy in the contents of a seed file.

    Raises SeedFileError for bytes that are no seed file, WrongPassphrase for a passphrase that
    does not open it or a file that was changed.
    """
    if not data.startswith(_MAGIC):
        raise SeedFileError("this is no seed file, or one of an unknown version")
    try:
        body = base64.b64decode(data.removeprefix(_MAGIC).strip(), validate=True)
    except ValueError:
        raise SeedFileError("this seed file is damaged") from None
    if len(body) - _NONCE.stop - _TAG_LENGTH not in ENTROPY_LENGTHS:
        raise SeedFileError("this seed file is damaged")
    head, ciphertext = body[: _NONCE.stop], body[_NONCE.stop :]
    try:
        return _cipher(head, passphrase).decrypt(head[_NONCE], ciphertext, _MAGIC + head)
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


def _cipher(head: bytes, passphrase: bytes) -> ChaCha20Poly1305:
    cost = head[: len(_COST)]
    # Bounds, because these come from a file: a changed one must not take the machine's memory.
    if not all(1 <= value <= high for value, high in zip(cost, _HIGHEST_COST, strict=True)):
        raise SeedFileError("this seed file is damaged")
    n, r, p = 1 << cost[0], cost[1], cost[2]
    memory = 128 * r * (n + p + 2) + (1 << 20)
    key = hashlib.scrypt(passphrase, salt=head[_SALT], n=n, r=r, p=p, maxmem=memory, dklen=32)
    return ChaCha20Poly1305(key)
