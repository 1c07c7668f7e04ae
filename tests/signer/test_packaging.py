"""The signer's unit says what the program is confined to."""

from __future__ import annotations

import configparser
from pathlib import Path

PACKAGING = Path(__file__).parents[2] / "packaging"


def test_the_unit_confines_the_signer() -> None:
    """A user of its own, an encrypted passphrase, no network, no capability, one writable place."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(PACKAGING / "systemd" / "customersigner.service")
    service = unit["Service"]
    wanted = {
        "Type": "notify",
        "ExecStart": "/usr/bin/customersigner run",
        "User": "customersigner",
        "StateDirectory": "customersigner",
        "StateDirectoryMode": "0700",
        "LoadCredentialEncrypted": "customersigner.passphrase",
        "PrivateNetwork": "yes",
        "RestrictAddressFamilies": "AF_UNIX",
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "LimitCORE": "0",
    }
    assert {name: service[name] for name in wanted} == wanted
