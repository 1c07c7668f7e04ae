"""Files that hold secrets: readable by their owner alone, replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

BIGGEST = 1 << 20


class SecretFileError(Exception):
    """A secret cannot be read or written safely; the message names the file, never its content."""


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file, one newline at its end left out.

    Raises SecretFileError when it is missing, no regular file, not owned by this process's user or
    root, open to anybody else, or larger than 1 MiB. Of a credential that is root's, as systemd
    hands it over, the group's mode says nothing: it is that of the access list for the service.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return _read(path, is_credential=bool(directory) and path.parent == Path(directory or ""))


def secret(path: Path, name: str) -> bytes:
    """Return a secret: the credential with this name, or else the content of the file."""
    found = credential(name)
    return read_secret(path) if found is None else found


def write_secret(path: Path, data: bytes) -> None:
    """Write or replace a secret file, mode 0600; on disk when this returns.

    After a crash either the old content or the new one is there. Raises SecretFileError.
    """
    half_written = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(half_written, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            half_written.rename(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                half_written.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise SecretFileError(f"{path}: {error.strerror}") from error


def credential(name: str) -> bytes | None:
    """Return a credential that systemd handed to this service, or None when it has none so named.

    Raises what `read_secret` does.
    """
    path = credential_path(name)
    return None if path is None else read_secret(path)


def credential_path(name: str) -> Path | None:
    """Return where a credential is, for what reads files by itself; None when there is none."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    if "/" in name or name in ("", ".", ".."):
        raise SecretFileError(f"{name!r} is no name of a credential")
    path = Path(directory) / name
    return path if path.exists() else None


def _read(path: Path, *, is_credential: bool) -> bytes:
    try:
        # A FIFO must not hold up the daemon; what was checked is what is read.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise SecretFileError(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretFileError(f"{path} is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise SecretFileError(f"{path} belongs to another user (uid {status.st_uid})")
        others = 0o007 if is_credential and status.st_uid == 0 else 0o077
        if status.st_mode & others:
            raise SecretFileError(
                f"{path} is open to others (mode {status.st_mode & 0o777:04o}): chmod 600 {path}"
            )
        if status.st_size > BIGGEST:
            raise SecretFileError(f"{path} is too large for a secret")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(BIGGEST).removesuffix(b"\n")
    except OSError as error:
        raise SecretFileError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Put a rename on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
