"""Every command of docs/operations.md, in its order, on a machine that nothing else set up."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.systemd.network import CHAIN_UNIT, BoxedNetwork, machine
from zkchannels.devnet.network import ETHER
from zkchannels.escrow.ethereum import parse_address

GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"
_ARGUMENTS = re.sub(r"\\\n *", "", CHAIN_UNIT).partition("[Service]\n")[2].partition("\n")[0]
WORDS = frozenset({"sh", "tty", "again", "package"})
PATIENCE = 60.0
INSTALLING = 300.0
LASTING = f"""
[Service]
ExecStart=
{_ARGUMENTS} --state /var/lib/anvil/state.json --preserve-historical-states
StateDirectory=anvil
KillSignal=SIGINT
"""
"""A node that knows its chain again when it returns."""
_PART = re.compile(
    r"^```(\S[^\n]*)\n(.*?)^```$|^<!-- then: ([^\n]+) -->$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of the guide, what they print in part, and what happens outside after them.

    `kinds`: "tty" for what a person sees on a terminal, "again" for what is looked at until it
    shows what is expected, "package" for what needs the packages themselves.
    """

    commands: str
    kinds: frozenset[str]
    shown: tuple[str, ...] = ()
    then: str = ""


def blocks(text: str) -> list[Block]:
    """Return what the guide has executed; ValueError for a block of an unknown kind."""
    found: list[Block] = []
    for language, body, then in _PART.findall(text):
        kinds = frozenset(language.split())
        if then:
            found.append(Block("", frozenset(), then=then))
        elif language == "text":
            last = found.pop()
            found.append(Block(last.commands, last.kinds, tuple(body.splitlines())))
        elif "sh" in kinds and kinds <= WORDS:
            found.append(Block(body, kinds))
        else:
            raise ValueError(f"the guide has a block of the kind {language!r}")
    return found


def missing(shown: tuple[str, ...], output: str) -> list[str]:
    """Return which expected lines were not printed, in their order; … stands for anything."""
    lines = iter(output.splitlines())
    patterns = [".*".join(re.escape(part) for part in line.split("…")) for line in shown]
    return [
        line
        for line, pattern in zip(shown, patterns, strict=True)
        if not any(re.fullmatch(pattern, each.rstrip()) for each in lines)
    ]


def follow(
    network: BoxedNetwork, happenings: Mapping[str, Callable[[], None]], *, packages: bool
) -> Iterator[Block]:
    """Execute the guide on a machine, yielding each block before; those of packages if wanted."""
    for block in blocks(GUIDE.read_text(encoding="utf-8")):
        if "package" in block.kinds and not packages:
            continue
        yield block
        if block.then:
            happenings[block.then]()
        elif "again" in block.kinds:
            look_again(network, block)
        else:
            output = execute(network, block)
            assert not missing(block.shown, output), (block, output)


def look_again(network: BoxedNetwork, block: Block) -> None:
    """Execute a block until it shows what is expected."""
    ends = time.monotonic() + PATIENCE
    while missing(block.shown, output := execute(network, block)):
        assert time.monotonic() < ends, (block, output)


def execute(network: BoxedNetwork, block: Block) -> str:
    """Run the commands of one block as root; return what they printed."""
    network.box.path("/root/block.sh").write_text(f"set -euo pipefail\ncd /root\n{block.commands}")
    command = ["bash", "/root/block.sh"]
    if "tty" in block.kinds:
        command = ["script", "--quiet", "--return", "--command", " ".join(command), "/dev/null"]
    merchant = f"MERCHANT={network.merchants['coffee'].address}"
    environment = ["env", merchant, "LANG=C.UTF-8", "SYSTEMD_PAGER=cat"]
    # Packages are fetched from outside; nothing else leaves the machine.
    package = "package" in block.kinds
    run = network.box.with_network if package else network.box.shell
    patience = INSTALLING if package else PATIENCE
    done = run(*environment, *command, check=False, timeout=patience)
    assert done.returncode == 0 or "again" in block.kinds, (block, done.stdout, done.stderr)
    return done.stdout + done.stderr


@contextmanager
def blocks_come(network: BoxedNetwork) -> Iterator[threading.Event]:
    """Have the chain go on by itself, but while the event is set."""
    ended, paused = threading.Event(), threading.Event()

    def mine() -> None:
        while not ended.wait(0.2):
            if not paused.is_set():
                network.chain.mine()

    miner = threading.Thread(target=mine, name="miner")
    miner.start()
    try:
        yield paused
    finally:
        ended.set()
        miner.join()


@pytest.fixture
def fresh() -> Iterator[BoxedNetwork]:
    """A machine with a database server, a node and a merchant, and nothing of the customer's."""
    with machine(f"guide-{os.getpid()}") as box:
        network = BoxedNetwork(box)
        network.delay = 24 * 3600
        network.drop_in("anvil.service", LASTING)
        network.start_postgres()
        prepare(network)
        box.path("/etc/customerd").mkdir(exist_ok=True)
        yield network


def prepare(network: BoxedNetwork) -> None:
    """Start the others: a node and a merchant, whose certificate the customer has."""
    network.start_chain()
    network.start_merchant("coffee")
    certificate = network.box.path("/var/lib/merchantd/certificate.pem").read_text()
    network.write("/root/merchant.pem", certificate)


def type_all(network: BoxedNetwork, *, packages: bool) -> int:
    """Do what the guide says on a machine that has a database server, a node and a merchant.

    Returns how many blocks there were. `packages`: also install, upgrade and remove them; they
    are in /root then.
    """
    with blocks_come(network) as paused:

        def fund() -> None:
            info = network.wait_mode("ready", "safe")
            for account in (network.account, parse_address(info["guard"])):
                network.chain.faucet(account, 100 * ETHER)

        def stop_node() -> None:
            paused.set()
            network.chain.unit.stop()

        def start_node() -> None:
            network.chain.unit.start()
            paused.clear()

        happenings: dict[str, Callable[[], None]] = {
            "the accounts are funded": fund,
            "the signer is ready": lambda: network.wait_mode("ready") and None,
            "the node stops": stop_node,
            "the node returns": start_node,
        }
        return len(list(follow(network, happenings, packages=packages)))


def test_every_command_of_the_guide(fresh: BoxedNetwork) -> None:
    """An administrator who types what the guide says gets what it says."""
    assert type_all(fresh, packages=False) > 40


def test_what_the_guide_shows_is_looked_for() -> None:
    """An expected line that is not printed, or not in this order, is missed; … is anything."""
    output = "customerd 0.1.0: safe\nsigner  away\n"
    assert missing(("customerd …: safe", "signer…"), output) == []
    assert missing(("signer…", "customerd …: safe"), output) == ["customerd …: safe"]
    assert missing(("customerd …: ready",), output) == ["customerd …: ready"]
    with pytest.raises(ValueError, match="unknown"):
        blocks("```unknown\nrm\n```\n")
