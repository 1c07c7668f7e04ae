"""Secrets that systemd hands over, and files that others could read."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.customerd.conftest import Alone
from zkchannels.devnet.service import Service
from zkchannels.escrow.ethereum import PrivateKey, checksum
from zkchannels.store.link import complete


def _credentials(place: Path, **values: str) -> dict[str, str]:
    folder = place / "credentials"
    folder.mkdir(parents=True, mode=0o700)
    for name, value in values.items():
        path = folder / name.replace("_", ".", 1).replace("_", "-")
        path.touch(mode=0o400)
        path.chmod(0o600)
        path.write_text(value + "\n")
        path.chmod(0o400)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def _refused(command: list[str], environment: Mapping[str, str]) -> str:
    """Start what does not start; return what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_daemon_takes_its_keys_from_systemd(memory_directory: Path, database_dsn: str) -> None:
    """With credentials the daemon has their guard and makes no file of its own for it."""
    place = memory_directory / f"credentials{secrets.token_hex(4)}"
    key = secrets.token_bytes(32)
    environment = _credentials(
        place,
        customerd_guard_key=key.hex(),
        customerd_tokens_key=secrets.token_hex(32),
        customerd_database_password="not asked for on this socket",
    )
    alone = Alone(place, database_dsn)
    service = Service("customerd", alone.command, log=place / "log", environment=environment)
    service.start()
    try:
        assert alone.rpc("getinfo")["guard"] == checksum(PrivateKey(key).address)
        assert not (place / "guard.key").exists()
        assert not (place / "tokens.key").exists()
        assert key.hex() not in (place / "log").read_text()
    finally:
        service.stop()

    (place / "credentials" / "customerd.guard-key").chmod(0o444)
    said = _refused(alone.command, environment)
    assert "customerd.guard-key is open to others (mode 0444)" in said
    assert key.hex() not in said


@pytest.mark.parametrize(
    ("dsn", "name"),
    [("host=db password=hunter2", "hunter2"), ("postgresql://a:hunter2@db/x", "hunter2")],
)
def test_the_passwords_credential_comes_first(dsn: str, name: str) -> None:
    """The credential is what the server is sent, whatever the connection string holds."""
    assert conninfo_to_dict(complete(dsn, application_name="x"))["password"] == name
    completed = complete(dsn, application_name="x", password=b"its 'secret'")
    assert conninfo_to_dict(completed)["password"] == "its 'secret'"


@pytest.mark.parametrize("program", ["customerd", "merchantd"])
def test_a_password_that_others_can_read_keeps_a_program_from_starting(
    tmp_path: Path, program: str
) -> None:
    """A configuration with a password that is open to others is refused: how to mend it is said."""
    config = tmp_path / f"{program}.toml"
    dsn = "host=/nowhere password=hunter2"
    config.write_text(
        f'[database]\ndsn = "{dsn}"\n'
        if program == "customerd"
        else f'database = "{dsn}"\n[chain]\nendpoints = ["http://127.0.0.1:9"]\n'
    )
    config.chmod(0o640)
    arguments = ["run"] if program == "merchantd" else []
    said = _refused([sys.executable, "-m", program, "--config", str(config), *arguments], {})
    assert f"chmod 600 {config}" in said
    assert f"{program}.database-password" in said
    assert "hunter2" not in said
