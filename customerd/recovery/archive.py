"""One encrypted file: what a backup is on disk.

"zkbackup/1 " and the wallet's identity (20 bytes, in clear) | salt 32 | ciphertext. Each file has a
key of its own, HMAC-SHA-256(backup key, salt), used once with ChaCha20-Poly1305 and a nonce of
zeros; what is before the ciphertext is authenticated with it. The backup key is the signer's: the
twelve words open the file, and nothing else does.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from zkchannels.service.secretfile import write_secret

SUFFIX: Final = ".zkbackup"
LARGEST: Final = 1 << 30
_MAGIC: Final = b"zkbackup/1 "
_IDENTITY: Final = slice(len(_MAGIC), len(_MAGIC) + 20)
_SALT: Final = slice(_IDENTITY.stop, _IDENTITY.stop + 32)


class BackupUnusable(Exception):
    """The file cannot be read, is no backup, is damaged, or of a version that is not known."""


class AnotherWallet(Exception):
    """The backup belongs to another wallet."""


def seal(content: bytes, *, key: bytes, identity: bytes) -> bytes:
    """Return the bytes of a file."""
    head = _MAGIC + identity + secrets.token_bytes(_SALT.stop - _SALT.start)
    return head + _cipher(key, head).encrypt(bytes(12), content, head)


def unseal(data: bytes, *, key: bytes, identity: bytes) -> bytes:
    """Return the content of a file; raises BackupUnusable, AnotherWallet."""
    if not data.startswith(_MAGIC):
        raise BackupUnusable("this is no backup, or one of an unknown version")
    head = data[: _SALT.stop]
    if len(head) < _SALT.stop:
        raise BackupUnusable("this backup is cut off")
    if head[_IDENTITY] != identity:
        raise AnotherWallet("this backup belongs to another wallet than the attached signer's")
    try:
        return _cipher(key, head).decrypt(bytes(12), data[_SALT.stop :], head)
    except InvalidTag:
        raise BackupUnusable("this backup is damaged, cut off or was changed") from None


def write(path: Path, content: bytes, *, key: bytes, identity: bytes) -> int:
    """Write or replace a file, mode 0600, on disk when this returns; return its size.

    After a crash the old file or the new one is there. Raises SecretFileError.
    """
    data = seal(content, key=key, identity=identity)
    write_secret(path, data)
    return len(data)


def read(path: Path, *, key: bytes, identity: bytes) -> bytes:
    """Return the content of a file; raises BackupUnusable, AnotherWallet."""
    try:
        if path.stat().st_size > LARGEST:
            raise BackupUnusable(f"{path} is too large for a backup")
        data = path.read_bytes()
    except OSError as error:
        raise BackupUnusable(f"{path}: {error.strerror}") from None
    return unseal(data, key=key, identity=identity)


def _cipher(key: bytes, head: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hmac.digest(key, head[_SALT], "sha256"))
