"""More than one daemon on a machine: one for each wallet, or one for each person."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from mnemonic import Mnemonic

from tests.systemd.network import BoxedNetwork, Unit
from tests.systemd.waiting import answered, until
from zkchannels.jsonrpc.client import BlockingClient

PERSON = "person"


def settings(network: BoxedNetwork, database: str) -> str:
    """The configuration of one more daemon."""
    return (
        f'[database]\ndsn = "dbname={database}"\n'
        f'[chain]\nendpoints = ["{network.chain.url}"]\npoll = "2s"\n'
        '[merchant]\ncertificates = "/etc/customerd/merchants.pem"\n'
    )


def ask(network: BoxedNetwork, path: str) -> Any:
    """Call getinfo on a socket of the machine."""
    with BlockingClient(str(network.box.path(path)), timeout=60) as client:
        return client.call("getinfo", {})


def test_one_more_wallet_has_a_daemon_of_its_own(network: BoxedNetwork) -> None:
    """Its socket starts it, with keys and records of its own, beside the one that is there."""
    network.sql("create database second owner customerd")
    network.write("/etc/customerd/second.toml", settings(network, "second"))
    first = network.rpc("getinfo")
    network.box.shell("systemctl", "start", "customerd@second.socket")
    daemon = Unit(network.box, "customerd@second.service")
    assert daemon.state == "inactive"
    place = "/run/customerd/second/customerd.sock"
    second = answered(lambda: ask(network, place))
    until(lambda: daemon.running)
    assert second["guard"] != first["guard"]
    assert network.box.path("/var/lib/customerd/second/guard.key").exists()
    assert network.box.path("/run/customerd/second/signer.sock").is_socket()
    listed = network.ctl("--wallet", "second", "list", "--json")
    assert json.loads(listed.stdout) == {"channels": []}
    assert network.rpc("getinfo")["pid"] == first["pid"]
    attach_a_signer(network)
    logged = network.box.shell("customerctl", "--wallet", "second", "logs").stdout
    assert "rpc=/run/customerd/second/customerd.sock" in logged
    assert "rpc=/run/customerd/customerd.sock" not in logged
    units = ("customersigner@second.service", "customerd@second.socket", "customerd@second.service")
    network.box.shell("systemctl", "stop", *units)
    told = network.ctl("--wallet", "second", "list").stderr
    assert "systemctl start customerd@second" in told
    assert not network.box.path("/run/customerd/second/customerd.sock").exists()
    assert network.listening.running


def attach_a_signer(network: BoxedNetwork) -> None:
    """Make a seed for the second wallet, pair its signer, and start that's unit."""
    words, passphrase = Mnemonic("english").generate(128), secrets.token_urlsafe(24)
    sealed = "/etc/credstore.encrypted/customersigner.second.passphrase"
    seal = ("systemd-creds", "encrypt", "--name=customersigner.passphrase", "-", sealed)
    network.box.shell(*seal, given=passphrase)
    place = "/var/lib/customersigner/second.passphrase"
    network.write(place, passphrase, mode=0o600, owner="customersigner")
    command = ("customersigner", "--state-directory", "/var/lib/customersigner/second")
    secret = ("--passphrase-file", place)
    user = "customersigner"
    network.as_user(user, *command, "init", "--restore", *secret, given=words + "\n")
    offered = network.ctl("--wallet", "second", "signer-pair", "--json").stdout
    network.as_user(user, *command, "pair", *secret, given=json.loads(offered)["line"] + "\n")
    network.box.path(place).unlink()
    network.box.shell("systemctl", "start", "customersigner@second.service")
    until(lambda: ask(network, "/run/customerd/second/customerd.sock")["signer"]["attached"])


@pytest.fixture
def person(network: BoxedNetwork) -> Iterator[BoxedNetwork]:
    """The machine with one more user, whose own systemd runs without a session."""
    network.box.shell("useradd", "--create-home", PERSON)
    network.box.shell("loginctl", "enable-linger", PERSON)
    until(lambda: network.box.shell("systemctl", "is-active", bus(network), check=False).stdout)
    network.box.shell("systemctl", "start", bus(network))
    yield network
    network.box.shell("loginctl", "disable-linger", PERSON)
    network.box.shell("systemctl", "stop", bus(network))
    network.box.shell("userdel", "--remove", PERSON)


def bus(network: BoxedNetwork) -> str:
    """The unit of that user's systemd."""
    return f"user@{uid(network)}.service"


def uid(network: BoxedNetwork) -> str:
    """That user's number."""
    return network.box.shell("id", "--user", PERSON).stdout.strip()


def as_person(network: BoxedNetwork, *command: str, given: str = "") -> str:
    """Run a command as that user."""
    environment = f"XDG_RUNTIME_DIR=/run/user/{uid(network)}"
    home = f"HOME=/home/{PERSON}"
    return network.as_user(PERSON, "env", environment, home, *command, given=given).stdout


def test_a_person_runs_daemon_and_signer(person: BoxedNetwork) -> None:
    """The user units: activation, readiness, the signer's attachment, stop; all without root."""
    person.sql(f"create role {PERSON} login", f"create database personal owner {PERSON}")
    home = f"/home/{PERSON}"
    for folder in ("customerd", "customersigner"):
        as_person(person, "mkdir", "--parents", f"{home}/.config/{folder}")
    config = f"{home}/.config/customerd/customerd.toml"
    person.write(config, settings(person, "personal"), owner=PERSON)
    passphrase = f"{home}/.config/customersigner/passphrase"
    person.write(passphrase, secrets.token_urlsafe(), mode=0o600, owner=PERSON)
    init = ("customersigner", "init", "--restore", "--passphrase-file", passphrase)
    as_person(person, *init, given=person.words + "\n")
    systemctl = ("systemctl", "--user")
    as_person(person, *systemctl, "start", "customerd.socket")
    assert json.loads(as_person(person, "customerctl", "getinfo", "--json"))["version"]
    as_person(person, *systemctl, "start", "customerd.service", "customersigner.service")
    place = f"/run/user/{uid(person)}/customerd/customerd.sock"
    until(lambda: ask(person, place)["signer"]["attached"])
    text = as_person(person, *systemctl, "show", "--property=StatusText", "customerd.service")
    assert text.startswith("StatusText=ready: ")
    as_person(person, "customerctl", "stop")
    until(
        lambda: (
            "inactive"
            in as_person(person, *systemctl, "show", "--property=ActiveState", "customerd.service")
        )
    )
    assert person.rpc("getinfo")["mode"] == "ready"
