"""Tokens from the command line: made by the owner, restricted offline, used with `--token`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flow.world import World
from zkchannels.macaroon import Macaroon


def as_holder(world: World, file: Path, *arguments: str) -> Any:
    """Run `customerctl` at the monitor socket with a token."""
    monitor = ("--socket", str(world.network.monitor_socket), "--token", str(file))
    return world.network.ctl(*monitor, *arguments)


def test_the_way_of_a_token(world: World, tmp_path: Path) -> None:
    """Make, use, restrict, use, revoke: what is printed is the token and nothing else."""
    label = world.establish("1 ETH")
    options = (
        "--method",
        "list,pay,wait",
        "--method",
        "getinfo",
        "--expires",
        "30d",
        "--rate",
        "100/s",
    )
    made = world.network.ctl("token-create", *options, "--spend", "0.1 ETH", "--note", "till")
    assert (made.returncode, made.stderr) == (0, "")
    file, less = tmp_path / "token", tmp_path / "less"
    file.write_text(made.stdout)
    assert label in as_holder(world, file, "list").stdout
    assert as_holder(world, file, "pay", label, "0.05 ETH").returncode == 0
    over = as_holder(world, file, "pay", label, "0.06 ETH", "--json")
    assert json.loads(over.stdout)["error"]["data"]["kind"] == "spending_limit"
    channel = world.show(label)["channel"]
    limits = ("--method", "getinfo,pay,wait", "--channel", channel, "--spend", "0.01 ETH")
    restricted = world.network.ctl("token-restrict", str(file), *limits, "--expires", "1h")
    assert (restricted.returncode, restricted.stderr) == (0, "")
    less.write_text(restricted.stdout)
    assert as_holder(world, less, "getinfo").returncode == 0
    assert "does not allow list" in as_holder(world, less, "list").stderr
    assert as_holder(world, less, "pay", label, "0.01 ETH").returncode == 0
    assert as_holder(world, less, "pay", label, "0.01 ETH").returncode == 1
    identity = Macaroon.decode(made.stdout.strip()).identifier.hex()
    listed = world.network.ctl("token-list").stdout
    assert identity in listed
    assert "0.06 ETH of 0.1 ETH" in listed
    assert world.network.ctl("token-revoke", identity).returncode == 0
    for gone in (file, less):
        assert "revoked" in as_holder(world, gone, "getinfo").stderr


@pytest.mark.parametrize("content", ["", "not a token", "AgEJY3VzdG9tZXJk", "\u00e9", "a\nb"])
def test_what_is_no_token_is_told_without_showing_it(
    world: World, tmp_path: Path, content: str
) -> None:
    """Empty, damaged and foreign files are refused, and their content is not repeated."""
    file = tmp_path / "token"
    file.write_text(content)
    for done in (
        as_holder(world, file, "getinfo"),
        world.network.ctl("token-restrict", str(file), "--method", "getinfo"),
    ):
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert not content or content not in done.stderr
    missing = as_holder(world, tmp_path / "nowhere", "getinfo")
    assert missing.returncode == 2


def test_restrictions_that_cannot_be_read(world: World, tmp_path: Path) -> None:
    """Labels for ids, other assets, nonsense, and nothing at all make no token."""
    file = tmp_path / "token"
    created = world.network.ctl("token-create", "--method", "pay", "--spend", "0.1 ETH")
    file.write_text(created.stdout)
    for options in (
        ("--channel", "coffee"),
        ("--spend", "1 GOLD"),
        ("--expires", "soon"),
        ("--rate", "often"),
        ("--method", "two words"),
        (),
    ):
        done = world.network.ctl("token-restrict", str(file), *options)
        assert (done.returncode in (1, 2), done.stdout) == (True, ""), options
