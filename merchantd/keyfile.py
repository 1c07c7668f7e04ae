"""The file of the merchant's secret key, which names the one database that may use it.

Hexadecimal: 16 bytes that the database holds as well, then the key's 192 bytes.
"""

from __future__ import annotations

from pathlib import Path

from merchantd.config import MERCHANT_KEY
from merchantd.errors import KeyMismatch
from merchantd.terms import INSTALLATION_LENGTH
from zkchannels.abacus import InvalidKey, SecretKey
from zkchannels.service.secretfile import credential_path, secret, write_secret

_SECRET_LENGTH = 192


def create_key(path: Path, installation: bytes) -> SecretKey:
    """Return the key in `path`; a new one, tied to this installation, if there is no file.

    Raises KeyMismatch when the file's key belongs to another installation: one key serves exactly
    one escrow, and all its records are in exactly one database (docs/protocol.md, keys).
    """
    if not path.exists() and credential_path(MERCHANT_KEY) is None:
        write_secret(path, (installation + SecretKey.generate().to_bytes()).hex().encode())
    return load_key(path, installation)


def load_key(path: Path, installation: bytes) -> SecretKey:
    """Return the key in a credential or in `path`.

    Raises KeyMismatch when it belongs to another installation.
    """
    try:
        data = bytes.fromhex(secret(path, MERCHANT_KEY).decode("ascii"))
    except ValueError:
        data = b""
    if len(data) != INSTALLATION_LENGTH + _SECRET_LENGTH:
        raise KeyMismatch(f"{path} is no merchant key file")
    if data[:INSTALLATION_LENGTH] != installation:
        raise KeyMismatch(
            f"the key in {path} belongs to another database: one key serves exactly one escrow"
        )
    try:
        return SecretKey.from_bytes(data[INSTALLATION_LENGTH:])
    except InvalidKey:
        raise KeyMismatch(f"{path} is damaged") from None
