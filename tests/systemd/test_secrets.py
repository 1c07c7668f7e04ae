"""Secrets reach the services that need them, and nobody else."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from tests.flow.world import World
from tests.systemd.network import BoxedNetwork
from tests.systemd.waiting import answered, journal_of

CREDENTIAL = "customersigner.passphrase"
GUARD_KEY = "/var/lib/customerd/guard.key"


def test_the_passphrase_is_in_the_encrypted_credential_alone(network: BoxedNetwork) -> None:
    """The running signer was given it by systemd; it is in no file, argument or environment."""
    secret = network.passphrase_text.encode()
    handed = network.box.path(f"/run/credentials/customersigner.service/{CREDENTIAL}")
    assert handed.read_bytes() == secret
    process = network.box.path(f"/proc/{network.signer.pid}")
    for what in ("cmdline", "environ"):
        assert secret not in (process / what).read_bytes()
    stored = network.box.path(f"/etc/credstore.encrypted/{CREDENTIAL}").read_bytes()
    assert secret not in stored
    # The folders that are written to, the journal's included.
    for place in ("/etc", "/var/lib/customersigner", "/var/lib/customerd", "/var/log", "/run/log"):
        found = network.box.shell(
            "grep", "--recursive", "--files-with-matches", "--fixed-strings", "--file=-", place,
            given=network.passphrase_text, check=False,
        )  # fmt: skip
        assert found.stdout == "", place


def test_a_credential_is_its_services_alone(network: BoxedNetwork) -> None:
    """No other user reads what systemd handed over, the daemon's own not excepted."""
    place = f"/run/credentials/customersigner.service/{CREDENTIAL}"
    for user in ("customerd", "merchantd", "nobody"):
        done = network.as_user(user, "cat", place, check=False)
        assert done.returncode != 0, user
        assert "Permission denied" in done.stderr
    assert network.as_user("customersigner", "cat", place).stdout == network.passphrase_text


def test_a_signer_without_its_credential_says_so(network: BoxedNetwork) -> None:
    """It asks nobody and guesses nothing: it ends, and its unit tells why."""
    stored = network.box.path(f"/etc/credstore.encrypted/{CREDENTIAL}")
    sealed = stored.read_bytes()
    stored.unlink()
    try:
        with journal_of(network.box, "--unit=customersigner.service") as wait:
            network.box.shell("systemctl", "restart", "customersigner.service", check=False)
            wait("passphrase")
    finally:
        stored.write_bytes(sealed)
    network.box.shell("systemctl", "reset-failed", "customersigner.service")
    network.signer.start()
    network.wait_mode("ready")


def test_a_secret_that_others_can_read_is_refused(network: BoxedNetwork) -> None:
    """The daemon does not run with a key that is open to others; it names file and remedy."""
    file = network.box.path(GUARD_KEY)
    file.chmod(0o644)
    with journal_of(network.box, "--unit=customerd.service") as wait:
        network.box.shell("systemctl", "restart", "--no-block", "customerd.service")
        wait(f"chmod 600 {GUARD_KEY}")
    file.chmod(0o600)
    assert answered(lambda: network.rpc("getinfo"))["guard"]


def test_the_daemons_secrets_come_from_credentials(network: BoxedNetwork) -> None:
    """Its key from an encrypted one, its password from a file of root's, and from nowhere else."""
    guard = network.rpc("getinfo")["guard"]
    key, config = network.box.path(GUARD_KEY).read_text(), network.config.read_text()
    password = secrets.token_urlsafe(24)
    network.sql(f"alter role customerd password '{password}'")
    sealed = "/etc/credstore.encrypted/customerd.guard-key"
    seal = ("systemd-creds", "encrypt", "--name=customerd.guard-key", "-", sealed)
    network.box.shell(*seal, given=key)
    network.write("/root/password", password, mode=0o600)
    network.drop_in(
        "customerd.service",
        "[Service]\nLoadCredential=customerd.database-password:/root/password\n",
    )
    by_password = 'dsn = "host=127.0.0.1 user=customerd dbname=customerd"'
    network.config.write_text(config.replace("[database]\n", f"[database]\n{by_password}\n"))
    network.box.path(GUARD_KEY).unlink()
    try:
        network.daemon.restart()
        info = network.rpc("getinfo")
        assert (info["guard"], info["database"]) == (guard, True)
        assert not network.box.path(GUARD_KEY).exists()
        sessions = "select client_addr from pg_stat_activity where application_name = 'customerd'"
        asked = network.as_user("postgres", "psql", "-qXAtc", sessions).stdout
        assert set(asked.split()) == {"127.0.0.1"}
        process = network.box.path(f"/proc/{network.daemon.pid}")
        for what in ("cmdline", "environ"):
            assert password.encode() not in (process / what).read_bytes()
    finally:
        network.write(GUARD_KEY, key, mode=0o600, owner="customerd")
        network.config.write_text(config)
        network.box.path(sealed).unlink()
        network.remove_drop_in("customerd.service")
        network.daemon.restart()
    assert network.rpc("getinfo")["guard"] == guard


def test_secret_files_are_for_their_service_alone(world: World) -> None:
    """After payments, every file below the state folders can be read by its own user only."""
    network: BoxedNetwork = world.network  # type: ignore[assignment]
    world.pay(world.establish(), "0.25 ETH")
    for name in ("customerd", "customersigner", "merchantd"):
        home = network.box.path(f"/var/lib/{name}")
        owner = home.stat().st_uid
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for folder, _, files in os.walk(home):
            for file in files:
                status = Path(folder, file).lstat()
                assert status.st_uid == owner, file
                assert file == "certificate.pem" or status.st_mode & 0o077 == 0, file
