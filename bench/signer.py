"""The signer: how its loss and return are felt, what its hop costs, what it needs of a device.

`python bench/signer.py [--json] [--rounds N]`: a whole network of real processes. The signer is
killed and started, suspended and continued; in a network namespace, which needs root, its cable is
cut in silence; then it serves a bare peer over its socket, beside a process that echoes through the
same code. Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.link.between import Cable, may_make_networks
from zkchannels.devnet.network import Network
from zkchannels.devnet.service import Service
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import connect_tls, connect_unix, serve, serve_tls
from zkchannels.service.certificate import ensure_pair
from zkchannels.service.secretfile import write_secret
from zkchannels.service.tls import (
    own_certificate,
    pinning_client_context,
    pinning_server_context,
)
from zkchannels.wire import signer as wire

START_TARGET = 1.0
MEMORY_TARGET = 80.0
FIRST_PAYMENT_TARGET = 3.0
"""Times a normal payment of the same run."""
PAYMENTS = 60
WARM_UP = 20
PINGS = 2000
HOPS = 3
"""Requests to the signer per payment: prove, authorize, complete."""
LAST = b"\xff" * 32


class Desk:
    """The owner of a running network, with one channel."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.connect()
        self.establish()

    def connect(self) -> None:
        """Talk to the daemon that runs now."""
        self.client = BlockingClient(str(self.network.socket), timeout=60)
        self.events = BlockingClient(str(self.network.socket), timeout=60)
        self.events.call("subscribe", {"topics": ["signer"]})

    def establish(self) -> None:
        """Open the channel."""
        address = self.network.merchants["coffee"].address
        params = {"merchant": address, "deposit": "1 ETH", "label": "b", "wait": False}
        operation = self.client.call("establish", params)["operation"]
        while True:
            self.network.chain.mine()
            try:
                self.client.call("wait", {"operation": operation, "timeout": 0.2})
                break
            except RpcError:
                continue

    def pay(self) -> float:
        """Make a payment; return its seconds."""
        began = time.perf_counter()
        self.client.call("pay", {"label": "b", "amount": 1000})
        return time.perf_counter() - began

    def told(self, kind: str) -> float:
        """Return when the daemon's next event about its signer of this kind was here."""
        for _, event in self.events.notifications():
            if event["kind"] == kind:
                return time.perf_counter()
        raise RuntimeError("the daemon is gone")


def lost_and_back(
    desk: Desk, rounds: int, lose: Callable[[], None], back: Callable[[], None]
) -> dict[str, list[float]]:
    """Return the seconds until the gate was closed, until it was open, of the first payment after
    that, and of normal ones right after it: a busy machine slows both down.
    """
    found: dict[str, list[float]] = {"safe": [], "ready": [], "first": [], "normal": []}
    for _ in range(rounds):
        began = time.perf_counter()
        lose()
        found["safe"].append(desk.told("lost") - began)
        began = time.perf_counter()
        back()
        found["ready"].append(desk.told("ready") - began)
        found["first"].append(desk.pay())
        found["normal"] += [desk.pay() for _ in range(WARM_UP)]
    return found


def first_beside_normal(found: dict[str, list[float]] | None) -> float | None:
    """Return how many times a normal payment the first one took."""
    if found is None:
        return None
    return statistics.median(found["first"]) / statistics.median(found["normal"])


def cable_cut(desk: Desk, rounds: int) -> dict[str, list[float]]:
    """Return the same for a signer behind a cable on which packets vanish without a word."""
    network = desk.network
    with Cable() as cable, contextlib.ExitStack() as stack:
        with socket.create_server((cable.host, 0)) as probe:
            port = int(probe.getsockname()[1])
        network.signer.stop()
        stack.callback(network.signer.launch)
        network.daemon.stop()
        listening = {"CUSTOMERD_SOCKETS_SIGNER_TLS": f"{cable.host}:{port}"}
        daemon = Service(
            "customerd", network.daemon.command, log=network.daemon.log, environment=listening
        )
        stack.callback(daemon.stop)
        daemon.start()
        desk.connect()
        line = desk.client.call("signer-pair", {})["line"]
        place = network.signer_command.index("run")
        base, secret = network.signer_command[:place], network.signer_command[place + 1 : place + 3]
        pair = [*cable.prefix, *base, "pair", *secret]
        subprocess.run(pair, input=line, text=True, check=True, stdout=subprocess.DEVNULL)
        command = [*cable.prefix, *base, "run", *secret]
        signer = Service("across", command, log=network.directory / "across.log")
        stack.callback(signer.stop)
        signer.launch()
        desk.told("ready")
        for _ in range(WARM_UP):
            desk.pay()
        return lost_and_back(desk, rounds, cable.silence, cable.restore)


def memory(pid: int) -> dict[str, float]:
    """Return a process' memory in MiB, now and at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: int(fields[field].split()[0]) / 1024
        for name, field in (("resident", "VmRSS"), ("peak", "VmHWM"))
    }


def bare_start(rounds: int) -> list[float]:
    """Return the seconds of a Python that does nothing."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(time.perf_counter() - began)
    return times


# -- the hop --------------------------------------------------------------------------------------


async def round_trips(peer: Peer, method: Any, params: Any) -> float:
    """Return the median microseconds of a request and its answer."""
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await peer.request(method, params, timeout=30)
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def introductions(arrived: asyncio.Queue[Peer]) -> Handlers:
    """Return a daemon's answers to signers that introduce themselves; they are put on a queue."""

    def attach(_params: wire.LinkAttachParams, peer: Peer) -> wire.Attached:
        arrived.put_nowait(peer)
        return wire.Attached(1, 2.0, 30.0)

    handlers = Handlers()
    handlers.register(
        wire.LINK_HELLO, lambda _params, _peer: wire.LinkChallenge(secrets.token_bytes(32))
    )
    handlers.register(wire.LINK_ATTACH, attach)
    return handlers


async def over_unix(network: Network) -> dict[str, float]:
    """Measure the signer and an echo on a Unix socket."""
    arrived: asyncio.Queue[Peer] = asyncio.Queue()
    handlers = introductions(arrived)
    network.signer_socket.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(network.signer_socket))
    async with serve(bound, lambda: Peer(handlers), grace=0.2):
        return await hop(network, arrived, ["--unix", str(network.signer_socket)])


async def over_tls(network: Network) -> dict[str, float]:
    """Measure the same on a loopback connection with TLS, both certificates pinned."""
    arrived: asyncio.Queue[Peer] = asyncio.Queue()
    handlers = introductions(arrived)
    own, device = network.directory / "link.pem", network.signer_directory / "link.pem"
    ensure_pair(own, "customerd", "server")
    ensure_pair(device, "customersigner", "client")
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    paired = {"address": address, "certificate": b64encode(own_certificate(own)).decode()}
    write_secret(network.signer_directory / "daemon.json", json.dumps([paired]).encode())
    command = network.signer_command[: network.signer_command.index("--socket")]
    signer = Service("paired signer", command, log=network.directory / "paired.log")
    context = pinning_server_context(own, pinned=own_certificate(device))
    network.signer.stop()
    async with (
        asyncio.TaskGroup() as group,
        serve_tls(listening, lambda: Peer(handlers), context, group, grace=0.2),
    ):
        signer.launch()
        try:
            return await hop(network, arrived, ["--tls", address, str(own), str(device)])
        finally:
            signer.kill()


async def hop(network: Network, arrived: asyncio.Queue[Peer], dial: list[str]) -> dict[str, float]:
    """Return microseconds per round trip: to an echo, to the signer, to the signer's worker."""
    signer = await asyncio.wait_for(arrived.get(), 60)
    command = [sys.executable, __file__, "--echo", *dial]
    bare = Service("echo", command, log=network.directory / "echo.log")
    bare.launch()
    try:
        peer = await asyncio.wait_for(arrived.get(), 60)
        found: dict[str, list[float]] = {"echo": [], "ping": [], "record": []}
        for _ in range(5):  # taking turns, so that noise meets them alike
            found["echo"].append(await round_trips(peer, wire.PING, wire.Nothing()))
            found["ping"].append(await round_trips(signer, wire.PING, wire.Nothing()))
            asked = wire.RecordsParams(LAST, 1)
            found["record"].append(await round_trips(signer, wire.RECORDS, asked))
    finally:
        bare.kill()
    return {name: min(times) for name, times in found.items()}


async def echo(kind: str, address: str, *certificates: str) -> None:
    """Be a peer that answers at once, dialling as a signer would."""
    handlers = Handlers()
    handlers.register(wire.PING, lambda _params, _peer: wire.Done())
    if kind == "--unix":
        peer = await connect_unix(address, handlers)
    else:
        daemon, own = map(Path, certificates)
        host, port = address.rsplit(":", 1)
        context = pinning_client_context(own, pinned=own_certificate(daemon))
        peer = await connect_tls(host, int(port), context, handlers)
    await peer.request(wire.LINK_HELLO, wire.LinkHelloParams(wire.LINK_VERSION, bytes(20)))
    await peer.request(wire.LINK_ATTACH, wire.LinkAttachParams(bytes(65), bytes(20), bytes(16)))
    await peer.wait_closed()


# -- all of it ------------------------------------------------------------------------------------


def measure(rounds: int) -> dict[str, Any]:
    """Run a network, measure, and return the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Network(Path(directory), merchants=("coffee",)) as network,
    ):
        desk, service = Desk(network), network.signer
        normal = [desk.pay() for _ in range(WARM_UP + PAYMENTS)][WARM_UP:]
        device = memory(service.pid)
        killed = lost_and_back(desk, rounds, service.kill, service.launch)
        usual = statistics.median([*normal, *(desk.pay() for _ in range(PAYMENTS))])
        cut = lost_and_back(
            desk,
            max(2, rounds // 3),
            lambda: os.kill(service.pid, signal.SIGSTOP),
            lambda: os.kill(service.pid, signal.SIGCONT),
        )
        cable = cable_cut(desk, max(3, rounds // 2)) if may_make_networks() else None
        network.daemon.stop()
        trips = {"unix": asyncio.run(over_unix(network)), "tls": asyncio.run(over_tls(network))}
    bare = statistics.median(bare_start(rounds))
    added = {link: HOPS * found["record"] / 1000 for link, found in trips.items()}
    return {
        "start_to_attached_s": _spread(killed["ready"]) | {"target": START_TARGET},
        "start_beside_bare_python": statistics.median(killed["ready"]) / bare,
        "memory_mib": device | {"target": MEMORY_TARGET},
        "killed_to_safe_mode_s": _spread(killed["safe"]),
        "silent_to_safe_mode_s": _spread(cut["safe"]),
        "continued_to_ready_s": _spread(cut["ready"]),
        "cable_cut_to_safe_mode_s": None if cable is None else _spread(cable["safe"]),
        "cable_back_to_ready_s": None if cable is None else _spread(cable["ready"]),
        "payment_ms": usual * 1000,
        "first_payment_ratio": {
            "restarted": first_beside_normal(killed),
            "restarted_worst": max(killed["first"]) / statistics.median(killed["normal"]),
            "continued": first_beside_normal(cut),
            "cable": first_beside_normal(cable),
            "target": FIRST_PAYMENT_TARGET,
        },
        "round_trip_us": trips,
        "ping_beside_echo": {link: found["ping"] / found["echo"] for link, found in trips.items()},
        "record_beside_echo": {
            link: found["record"] / found["echo"] for link, found in trips.items()
        },
        "added_per_payment_ms": added,
        "added_share_of_payment": {link: each / (usual * 1000) for link, each in added.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)}


def missed(result: dict[str, Any]) -> list[str]:
    """Return the names of the targets that were missed."""
    held = {
        "start_to_attached_s": result["start_to_attached_s"]["median"] <= START_TARGET,
        "memory_mib": result["memory_mib"]["resident"] <= MEMORY_TARGET,
        "first_payment_ratio": max(
            result["first_payment_ratio"][way] or 0.0 for way in ("restarted", "continued", "cable")
        )
        <= FIRST_PAYMENT_TARGET,
    }
    return [name for name, holds in held.items() if not holds]


def main() -> int:
    """Measure, print, and return 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    if sys.argv[1:2] == ["--echo"]:
        asyncio.run(echo(*sys.argv[2:]))
        return 0
    options = parser.parse_args()
    result = measure(options.rounds)
    result["missed"] = missed(result)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(name, value)
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
