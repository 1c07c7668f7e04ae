"""The signer's manual page and unit say what the program does and is confined to."""

from __future__ import annotations

import argparse
import configparser
from pathlib import Path

from customersigner.__main__ import parser

PACKAGING = Path(__file__).parents[2] / "packaging"


def test_the_manual_page_names_every_command_and_option() -> None:
    """Nothing can be typed that the page does not tell of."""
    page = (PACKAGING / "man" / "customersigner.1").read_text()
    parsers = [parser()]
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
                for command in action.choices:
                    assert f".It Cm {command}\n" in page, command
            for option in action.option_strings:
                if option.startswith("--") and option != "--help":
                    assert f"Fl {option[1:]}" in page, option


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
