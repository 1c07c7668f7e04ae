"""Secret files: refused when anybody else could have read them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zkchannels.service.certificate import ensure_pair
from zkchannels.service.secretfile import (
    SecretFileError,
    credential,
    credential_path,
    read_secret,
    secret,
    write_secret,
)
from zkchannels.service.tls import pinning_client_context, server_context


def test_written_secret_reads_back(tmp_path: Path) -> None:
    """A secret reads back as written, is the owner's alone, and leaves no other file."""
    path = tmp_path / "key"
    write_secret(path, b"\x00\xffsecret")
    write_secret(path, b"second")
    assert read_secret(path) == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_one_newline_at_the_end_is_no_part_of_it(tmp_path: Path) -> None:
    """A secret typed with an editor is the same as one written by a program."""
    write_secret(tmp_path / "key", b"secret\n")
    assert read_secret(tmp_path / "key") == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o620])
def test_open_file_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that others may read, write or run is refused, and the message says how to mend it."""
    write_secret(tmp_path / "key", b"hunter2")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(SecretFileError, match="chmod 600") as caught:
        read_secret(tmp_path / "key")
    assert "hunter2" not in str(caught.value)


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file of another user, who can change it at will, is refused."""
    if os.geteuid() == 0:
        write_secret(tmp_path / "key", b"secret")
        os.chown(tmp_path / "key", 65534, 65534)
        with pytest.raises(SecretFileError, match="another user"):
            read_secret(tmp_path / "key")
        return
    # Nobody else can give files away, but in a namespace of one's own root's are somebody else's.
    read = "from zkchannels.service.secretfile import *; read_secret(Path('/etc/passwd'))"
    refused = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", read],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "belongs to another user" in refused.stderr


def test_other_things_are_refused_at_once(tmp_path: Path) -> None:
    """A missing file, a folder and a FIFO nobody writes to give an error, not a wait."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, reason in (("missing", "No such file"), (".", "regular"), ("fifo", "regular")):
        with pytest.raises(SecretFileError, match=reason):
            read_secret(tmp_path / name)


def test_huge_file_is_refused(tmp_path: Path) -> None:
    """A file beyond 1 MiB is not a secret."""
    write_secret(tmp_path / "key", b"x" * ((1 << 20) + 1))
    with pytest.raises(SecretFileError, match="too large"):
        read_secret(tmp_path / "key")


def test_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    """When a secret cannot be replaced the old one stays and nothing half written is left."""
    (tmp_path / "key").mkdir()
    with pytest.raises(SecretFileError):
        write_secret(tmp_path / "key", b"secret")
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
    with pytest.raises(SecretFileError, match="No such file"):
        write_secret(tmp_path / "missing" / "key", b"secret")


def test_written_secret_ignores_the_umask(tmp_path: Path) -> None:
    """The mode is 0600 whatever umask the process has."""
    before = os.umask(0)
    try:
        write_secret(tmp_path / "key", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials come from systemd's folder; without it, or one so named, there is none."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert credential("passphrase") is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    write_secret(tmp_path / "credentials" / "passphrase", b"secret\n")
    (tmp_path / "outside").write_bytes(b"other")
    assert credential("passphrase") == b"secret"
    assert credential("other") is None
    with pytest.raises(SecretFileError, match="no name"):
        credential("../outside")


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as systemd names it to a service."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def test_a_credential_comes_before_its_file(credentials: Path, tmp_path: Path) -> None:
    """Where systemd hands a secret over, its file is not looked at; without, the file counts."""
    write_secret(tmp_path / "file", b"of the file")
    assert secret(tmp_path / "file", "program.key") == b"of the file"
    assert credential_path("program.key") is None
    write_secret(credentials / "program.key", b"of systemd\n")
    assert secret(tmp_path / "missing", "program.key") == b"of systemd"
    assert credential_path("program.key") == credentials / "program.key"


@pytest.mark.parametrize("mode", [0o604, 0o444, 0o602])
def test_a_credential_that_all_may_read_is_refused(credentials: Path, mode: int) -> None:
    """A folder of credentials that is none, with files open to all, is refused."""
    write_secret(credentials / "program.key", b"hunter2")
    (credentials / "program.key").chmod(mode)
    with pytest.raises(SecretFileError, match="open to others"):
        credential("program.key")


def test_a_credential_that_is_roots_is_accepted(credentials: Path, tmp_path: Path) -> None:
    """systemd's own is root's, 0440 for its access list; the same mode elsewhere is refused."""
    elsewhere = tmp_path / "folder" / "program.key"
    elsewhere.parent.mkdir()
    for path in (credentials / "program.key", elsewhere):
        write_secret(path, b"secret")
        path.chmod(0o440)
    if os.geteuid() == 0:
        assert credential("program.key") == b"secret"
    else:
        with pytest.raises(SecretFileError, match="open to others"):
            credential("program.key")
    with pytest.raises(SecretFileError, match="open to others"):
        read_secret(elsewhere)


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_tls_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Server and client refuse a certificate's key that is open to others, before they use it."""
    pair = tmp_path / "pair.pem"
    ensure_pair(pair, "customerd", "server")
    server_context(pair)
    pinning_client_context(pair, pinned=None)
    pair.chmod(mode)
    with pytest.raises(SecretFileError, match="chmod 600"):
        server_context(pair)
    with pytest.raises(SecretFileError, match="chmod 600"):
        pinning_client_context(pair, pinned=None)
