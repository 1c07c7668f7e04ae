"""The seed at rest: opened by its passphrase alone, changed by nobody."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from customersigner import seedfile
from customersigner.errors import SeedFileError, WrongPassphrase
from zkchannels.service.secretfile import SecretFileError

ENTROPY = bytes(range(16))
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """A seed file's contents."""
    return seedfile.seal(ENTROPY, PASSPHRASE)


def test_it_comes_back_from_a_private_file(tmp_path: Path) -> None:
    """What was created is loaded again, from a file only its owner can read."""
    path = tmp_path / "seed"
    seedfile.create(path, ENTROPY, PASSPHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert seedfile.load(path, PASSPHRASE) == ENTROPY
    assert [entry.name for entry in tmp_path.iterdir()] == ["seed"]


def test_a_seed_is_never_overwritten(tmp_path: Path) -> None:
    """Creating over an existing file is refused and leaves it as it is."""
    path = tmp_path / "seed"
    path.write_bytes(b"something")
    with pytest.raises(SeedFileError, match="never overwritten"):
        seedfile.create(path, ENTROPY, PASSPHRASE)
    assert path.read_bytes() == b"something"


def test_a_missing_seed_names_the_way_out(tmp_path: Path) -> None:
    """Loading without a file says what to run."""
    with pytest.raises(SeedFileError, match="customersigner init"):
        seedfile.load(tmp_path / "seed", PASSPHRASE)


def test_a_wrong_passphrase_is_refused(sealed: bytes) -> None:
    """Another passphrase does not open it, and the error repeats neither."""
    with pytest.raises(WrongPassphrase) as caught:
        seedfile.unseal(sealed, b"battery staple")
    assert "battery" not in str(caught.value)


@pytest.mark.parametrize("position", [3, 20, 36, 50, 70, -1], ids=str)
def test_a_changed_file_is_refused(sealed: bytes, position: int) -> None:
    """One flipped bit in salt, nonce, ciphertext or tag is noticed."""
    body = bytearray(base64.b64decode(sealed.split()[1]))
    body[position] ^= 1
    with pytest.raises(WrongPassphrase):
        seedfile.unseal(b"zkseed/1 " + base64.b64encode(body), PASSPHRASE)


@pytest.mark.parametrize("cost", [b"\xff\x08\x01", b"\x0f\xff\x01", b"\x0f\x08\xff", b"\0\x08\x01"])
def test_absurd_costs_are_refused_at_once(sealed: bytes, cost: bytes) -> None:
    """A changed cost cannot make the signer take all memory or time."""
    body = base64.b64decode(sealed.split()[1])
    with pytest.raises(SeedFileError, match="damaged"):
        seedfile.unseal(b"zkseed/1 " + base64.b64encode(cost + body[3:]), PASSPHRASE)


@pytest.mark.parametrize(
    "data", [b"", b"zkseed/2 AAAA", b"zkseed/1 ", b"zkseed/1 !!!!", b"zkseed/1 AAAA", b"\0" * 100]
)
def test_what_is_no_seed_file_is_refused(data: bytes) -> None:
    """Other bytes, versions and lengths are refused without trying the passphrase."""
    with pytest.raises(SeedFileError) as caught:
        seedfile.unseal(data, PASSPHRASE)
    assert not isinstance(caught.value, WrongPassphrase)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_open_to_others_is_refused(tmp_path: Path, sealed: bytes, mode: int) -> None:
    """A seed that group or others may read is not used."""
    path = tmp_path / "seed"
    path.write_bytes(sealed)
    path.chmod(mode)
    with pytest.raises(SecretFileError):
        seedfile.load(path, PASSPHRASE)


def test_the_file_shows_nothing_of_the_seed(sealed: bytes) -> None:
    """Sealing twice gives different files without the entropy in them."""
    assert seedfile.seal(ENTROPY, PASSPHRASE) != sealed
    assert ENTROPY not in base64.b64decode(sealed.split()[1])
