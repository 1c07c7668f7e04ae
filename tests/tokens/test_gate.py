"""The gate's table, cell by cell, against a daemon that is brought into each situation."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from customerd.rpc.gate import CONDITIONS, LEVELS, Gate, Undeclared, verdict
from customerd.rpc.methods import METHODS, NoParams, Stopping
from tests.flow.world import World
from tests.tokens.support import Holder, create, kind_of
from tools import generate_gate_docs
from tools.generate_gate_docs import ANSWERED, SITUATIONS, cell
from tools.generated import ROOT
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method

KINDS = {condition.kind for condition in CONDITIONS}
MISSING = {name: missing for name, missing in SITUATIONS.items() if "starting" not in name}


def signer_away(world: World) -> None:
    """Kill the signer and wait until the daemon noticed."""
    world.network.signer.kill()
    world.network.wait_info(lambda info: "safe_mode" in info["missing"])


def chain_away(world: World) -> None:
    """Stop the node and wait until the daemon noticed."""
    assert isinstance(world.network.chain, Anvil)
    world.network.chain.stop()
    world.network.wait_info(lambda info: "chain_unavailable" in info["missing"])


def database_away(world: World) -> None:
    """Kill PostgreSQL and wait until the daemon noticed."""
    world.network.cluster.kill()
    world.network.wait_info(lambda info: "database_unavailable" in info["missing"])


AWAY: dict[str, Callable[[World], None]] = {
    "safe_mode": signer_away,
    "chain_unavailable": chain_away,
    "database_unavailable": database_away,
}


def all_back(world: World, missing: frozenset[str]) -> None:
    """Bring everything back, the daemon included, and wait until it is ready."""
    if "chain_unavailable" in missing:
        assert isinstance(world.network.chain, Anvil)
        world.network.chain.restart()
    if "database_unavailable" in missing:
        world.network.cluster.restart()
    world.everything_runs()


def asked(socket: str, method: Method[Any, Any]) -> str:
    """Call a method's example; return "answered" or the kind by which the gate refuses it."""
    try:
        with BlockingClient(socket, timeout=60) as client:
            answer = client.call(method.name, msgspec.to_builtins(method.example))
    except RpcError as error:
        kind = kind_of(error)
        assert kind in method.errors, (method.name, kind)
        return kind if kind in KINDS else ANSWERED
    if method.result is not dict[str, Any]:
        msgspec.convert(answer, method.result, strict=True)
    return ANSWERED


def row(socket: str) -> dict[str, str]:
    """Ask every method but `stop`; return what becomes of each."""
    return {method.name: asked(socket, method) for method in METHODS if method.name != "stop"}


def expected(situation: str) -> dict[str, str]:
    """The column of the table."""
    return {
        method.name: cell(method.needs, SITUATIONS[situation])
        for method in METHODS
        if method.name != "stop"
    }


def stops(world: World, service: Service) -> None:
    """`stop` is answered in every situation, and the daemon ends."""
    with BlockingClient(str(world.network.socket)) as client:
        msgspec.convert(client.call("stop"), Stopping, strict=True)
    assert service.wait(30.0) == 0


def test_every_cell_of_the_table(own_world: World) -> None:
    """Every method in every situation answers what docs/gate.md says, also to a token's holder."""
    world = own_world
    world.everything_runs()
    reading = [method for method in METHODS if method.grant == "read"]
    token = create(world, *(method.name for method in reading))["token"]
    for situation, missing in MISSING.items():
        with Holder(world, token) as holder:
            for kind in sorted(missing):
                AWAY[kind](world)
            info = world.network.wait_info(lambda info, m=missing: set(info["missing"]) == m)
            assert (info["mode"] == "ready") == (
                not missing & {"safe_mode", "database_unavailable"}
            )
            assert row(str(world.network.socket)) == expected(situation), situation
            for method in reading:
                try:
                    holder.call(method.name, **msgspec.to_builtins(method.example))
                    found = ANSWERED
                except RpcError as error:
                    found = kind_of(error) if kind_of(error) in KINDS else ANSWERED
                assert found == cell(method.needs, missing), (situation, method.name)
        stops(world, world.network.daemon)
        all_back(world, missing)


def test_a_daemon_that_starts_or_stands_by(own_world: World) -> None:
    """Without PostgreSQL, and behind another daemon, only what needs nothing is answered."""
    world = own_world
    world.everything_runs()
    token = create(world, "getinfo")["token"]
    for another in (True, False):
        with _waiting(world, behind_another=another) as socket:
            assert row(socket) == expected("starting, standby, stopping")
            with BlockingClient(socket) as client:
                mode = client.call("getinfo")["mode"]
                assert mode == ("standby" if another else "starting")
            with BlockingClient(socket.replace("customerd.sock", "monitor.sock")) as client:
                with pytest.raises(RpcError) as refusal:
                    client.call("authenticate", {"token": token})
                assert kind_of(refusal.value) == "not_ready"


@contextlib.contextmanager
def _waiting(world: World, *, behind_another: bool) -> Iterator[str]:
    """Run a second daemon that waits for the first one's lease, or for PostgreSQL."""
    network = world.network
    directory = network.directory / "second"
    directory.mkdir(exist_ok=True)
    text = network.config.read_text()
    for name in ("customerd", "signer", "monitor"):
        text = text.replace(f"{network.directory}/{name}.sock", f"{directory}/{name}.sock")
    if not behind_another:
        text = re.sub(r'dsn = "host=[^ ]*', f'dsn = "host={directory}', text)
    config = directory / "customerd.toml"
    config.write_text(text)
    log = directory / "customerd.log"
    second = Service(
        "second", [sys.executable, "-m", "customerd", "--config", str(config)], log=log
    )
    second.launch()
    try:
        second.wait_told("standing by" if behind_another else "waiting for PostgreSQL")
        yield str(directory / "customerd.sock")
    finally:
        second.kill()


def test_the_signer_comes_and_goes(world: World) -> None:
    """Its loss closes the gate and the merchants' connections; its return lets everything go on."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    world.network.wait_info(lambda _: _merchants(world) > 0)
    os.kill(world.network.signer.pid, signal.SIGSTOP)
    try:
        resting = world.rpc("pay", label=label, amount="0.1 ETH", wait=False)["operation"]
        info = world.network.wait_info(lambda info: info["mode"] == "safe")
        assert info["missing"] == ["safe_mode"]
        assert _merchants(world) == 0
        assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "safe_mode"
        rests = world.rpc("operation", operation=resting)
        assert rests["status"] in ("queued", "running")
        assert info["operations"] == 1
    finally:
        os.kill(world.network.signer.pid, signal.SIGCONT)
    world.network.wait_mode("ready")
    assert world.rpc("wait", operation=resting)["status"] == "done"
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (700_000_000, 300_000_000)


def _merchants(world: World) -> int:
    """How many connections to merchants the daemon has open."""
    text = world.rpc("metrics")["text"]
    found = re.search(r"^customerd_merchant_connections (\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_the_table_in_the_documentation_is_current() -> None:
    """docs/gate.md is what tools/generate_gate_docs.py makes of the registry now."""
    text = generate_gate_docs.TARGET.read_text(encoding="utf-8")
    assert text == generate_gate_docs.with_table(text)
    command = [sys.executable, "-m", "tools.generate_gate_docs", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_every_method_declares_what_it_needs() -> None:
    """No method of the registry leaves its need out, and one that does is not let through."""
    for method in METHODS:
        assert method.needs in LEVELS, method.name
    forgetful = Method("forgetful", NoParams, Stopping, summary="Declares nothing.")
    with pytest.raises(Undeclared):
        verdict(forgetful.needs, frozenset())
    gate = Gate(dict.fromkeys(KINDS, lambda: True))
    with pytest.raises(Undeclared):
        gate.check(forgetful.needs)
    for needs in ("", "Nothing", "none", "owner"):
        with pytest.raises(Undeclared):
            gate.check(needs)


def test_methods_declare_the_gate_s_errors() -> None:
    """Whatever the gate can answer to a method is among its documented kinds."""
    for method in METHODS:
        reach = LEVELS[: LEVELS.index(method.needs) + 1]
        for condition in CONDITIONS:
            if condition.level in reach:
                assert condition.kind in method.errors, (method.name, condition.kind)
