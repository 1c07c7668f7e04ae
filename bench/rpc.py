"""What a call costs beside an asyncio server that only echoes, and the command line's cold start.

Every server is a process of its own; all take turns in each round, so that noise meets them alike.
All run on one processor, the echo reads into a buffer of its own as a Peer does, and the allocator
keeps what asyncio's streams free: left to chance, each of these moves a ratio by up to two.
Run it as `python bench/rpc.py`, with `--json` for a program to read.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from msgspec import Struct

from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import connect_unix, serve

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.5
KINDS = ("protocol", "streams", "peer")
REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"getinfo"}\n'
SETTLED = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 25),
    "MALLOC_TOP_PAD_": str(1 << 20),
}
COLD_CALL = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from zkchannels.jsonrpc.client import BlockingClient;"
    "BlockingClient(sys.argv[2]).call('getinfo')"
)


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Balance(Struct, frozen=True):
    units: int
    text: str


class Info(Struct, frozen=True):
    """About as much as the daemon tells of itself."""

    version: str = "0.1.0"
    network: str = "devnet"
    height: int = 812_345
    following: bool = True
    channels: int = 3
    balance: Balance = Balance(123_456_789, "0.123456789 ETH")
    signer: str = "attached"
    uptime: int = 123_456
    process: int = 4242
    warnings: tuple[str, ...] = ()


GETINFO = Method("getinfo", Nothing, Info, summary="Tell about the daemon.")


async def serve_peer(path: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    handlers = Handlers()
    handlers.register(GETINFO, lambda _params, _peer: Info())
    async with serve(listening, lambda: Peer(handlers)):
        await ready()


class Echo(asyncio.BufferedProtocol):
    """The least that asyncio can do: what comes in goes out, with nothing allocated for reading."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(1 << 16))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def serve_protocol(path: str) -> None:
    async with await asyncio.get_running_loop().create_unix_server(Echo, path):
        await ready()


async def serve_streams(path: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(echo, path):
        await ready()


async def ready() -> None:
    """Say so, then serve until the parent goes away."""
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


SERVERS: dict[str, Callable[[str], Awaitable[None]]] = {
    "protocol": serve_protocol,
    "streams": serve_streams,
    "peer": serve_peer,
}


@contextmanager
def server(kind: str, path: str) -> Iterator[None]:
    """Run one server as a process."""
    command = [sys.executable, __file__, "--serve", kind, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the {kind} server did not start")
        yield
        process.stdin.close()


class Times:
    """Microseconds of single calls, by round."""

    def __init__(self) -> None:
        self.rounds: list[list[float]] = []

    def summary(self) -> dict[str, float]:
        p50 = [median(one) for one in self.rounds]
        p99 = [sorted(one)[len(one) * 99 // 100] for one in self.rounds]
        return {"p50_min": min(p50), "p50_median": median(p50), "p99_min": min(p99)}


def raw_calls(client: socket.socket, request: bytes, count: int) -> list[float]:
    """Time calls made with nothing but a socket."""
    times = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        client.sendall(request)
        while not client.recv(65536).endswith(b"\n"):
            pass
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times


async def peer_calls(peer: Peer, count: int) -> list[float]:
    """Time typed calls from one Peer to another."""
    nothing = Nothing()
    times = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await peer.request(GETINFO, nothing, timeout=10)
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times


async def stream_calls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, count: int
) -> list[float]:
    """Time echoes with asyncio's streams on both sides."""
    times = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        writer.write(request)
        await writer.drain()
        await reader.readline()
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times


async def measure(paths: dict[str, str], rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Return the figures of each server, called with a bare socket and from asyncio."""
    with ExitStack() as stack:
        clients = {}
        for kind, path in paths.items():
            clients[kind] = stack.enter_context(socket.socket(socket.AF_UNIX))
            clients[kind].connect(path)
        clients["peer"].sendall(REQUEST)
        # What is echoed is as long as the answer: both servers write the same number of bytes.
        answer = clients["peer"].recv(65536)
        peer = await connect_unix(paths["peer"])
        reader, writer = await asyncio.open_unix_connection(paths["streams"])
        times: dict[str, Times] = {name: Times() for name in (*KINDS, "peers", "two streams")}
        for turn in range(-1, rounds):
            found = {
                kind: raw_calls(client, REQUEST if kind == "peer" else answer, count)
                for kind, client in clients.items()
            }
            found["two streams"] = await stream_calls(reader, writer, answer, count)
            found["peers"] = await peer_calls(peer, count)
            if turn >= 0:  # the first turn warms up
                for name, one in found.items():
                    times[name].rounds.append(one)
        peer.close()
        writer.close()
        await asyncio.gather(peer.wait_closed(), writer.wait_closed())
    return {name: one.summary() for name, one in times.items()}


def cold_starts(path: str, rounds: int) -> dict[str, dict[str, float]]:
    """Time the start of an empty program, and of one that makes a call, in milliseconds."""
    isolated = [sys.executable, "-IS", "-c"]
    commands = {
        "pass": [*isolated, "pass"],
        "call": [*isolated, COLD_CALL, str(ROOT), path],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(-2, rounds):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True)
            if turn >= 0:
                times[name].append((time.perf_counter() - begun) * 1000)
    return {name: {"min": min(one), "median": median(one)} for name, one in times.items()}


def run(rounds: int, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, ExitStack() as stack:
        paths = {kind: str(Path(directory) / kind) for kind in KINDS}
        for kind, path in paths.items():
            stack.enter_context(server(kind, path))
        with BlockingClient(paths["peer"]) as client:
            assert client.call("getinfo")["height"] == Info().height
        calls = asyncio.run(measure(paths, rounds, count))
        starts = cold_starts(paths["peer"], rounds)
    return {
        "target": TARGET,
        "calls_us": calls,
        "starts_ms": starts,
        "ratios": {
            "Peer server to Protocol echo": ratio(calls, "peer", "protocol", "p50_"),
            "Peer server to streams echo": ratio(calls, "peer", "streams", "p50_"),
            "two Peers to streams on both sides": ratio(calls, "peers", "two streams", "p50_"),
            "one call to an empty program": ratio(starts, "call", "pass", ""),
        },
    }


def ratio(
    found: dict[str, dict[str, float]], name: str, beside: str, prefix: str
) -> dict[str, float]:
    return {
        kind: found[name][prefix + kind] / found[beside][prefix + kind]
        for kind in ("min", "median")
    }


def show(found: dict[str, Any]) -> None:
    print("round trip, microseconds         p50 min   p50 median   p99 min")
    for name, one in found["calls_us"].items():
        print(f"{name:<30}{one['p50_min']:>10.1f}{one['p50_median']:>13.1f}{one['p99_min']:>10.1f}")
    print("start of a program, milliseconds     min       median")
    for name, one in found["starts_ms"].items():
        print(f"{name:<30}{one['min']:>10.1f}{one['median']:>13.1f}")
    print(f"ratios (target {found['target']})                   min       median")
    for name, one in found["ratios"].items():
        print(f"{name:<34}{one['min']:>6.2f}{one['median']:>13.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=300, help="calls of each kind in a round")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        kind, path = options.serve
        asyncio.run(SERVERS[kind](path))  # type: ignore[arg-type]
        return 0
    if not SETTLED.items() <= os.environ.items():
        # The allocator reads its settings as a process starts, so this one starts again.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTLED})
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = run(options.rounds, options.calls)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    return int(any(one["min"] > TARGET for one in found["ratios"].values()))


if __name__ == "__main__":
    sys.exit(main())
