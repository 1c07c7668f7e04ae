"""Hostile clients of every door: what they make a program write is bounded, and is counted."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from tests.flow.world import World
from tests.journal.journald import Entry, Journald
from tests.journal.network import RecordedNetwork
from zkchannels.service.flood import LINES
from zkchannels.wire import signer as wire

CONNECTIONS = 150
_NOTIFICATION = b'{"jsonrpc":"2.0","method":"stop"}\n'


def rush(connect: Callable[[], socket.socket], *lines: bytes) -> None:
    """Connect many times, one after the other, and send the same each time until cut off."""
    for _ in range(CONNECTIONS):
        with connect() as hostile:
            hostile.settimeout(10)
            try:
                hostile.sendall(b"".join(lines))
                hostile.shutdown(socket.SHUT_WR)
                while hostile.recv(65536):
                    pass
            except OSError:
                continue


def unix(path: object) -> Callable[[], socket.socket]:
    """Return a function that connects to a Unix socket."""

    def connect() -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        return connected

    return connect


def bounded(
    journald: Journald,
    event: str,
    since: float,
    *,
    program: str = "customerd",
    of: int = CONNECTIONS,
) -> int:
    """Check that the lines of an event kept to their rate, and that the rest was counted.

    Returns how many lines there would have been.
    """

    wanted = of - of // 50  # a busy machine may cut one before it is read

    def told(found: list[Entry]) -> int:
        lines = [entry for entry in found if entry.get("EVENT") == event]
        owed = [entry for entry in found if entry.get("ABOUT") == event]
        # This kernel's queue may be short: what journald was too slow for is counted as well.
        owed += [entry for entry in found if entry.get("EVENT") == "log_lines_dropped"]
        left_out = [int(entry.get("SUPPRESSED", 0)) for entry in lines]
        return len(lines) + sum(left_out) + sum(int(entry["COUNT"]) for entry in owed)

    # journalctl is told milliseconds, and the first line may come within the same one.
    matches = (f"SYSLOG_IDENTIFIER={program}", f"--since=@{since - 0.002:.3f}")
    entries = journald.until(lambda found: told(found) >= wanted, *matches)
    lines = [entry for entry in entries if entry.get("EVENT") == event]
    lasted = time.time() - since
    assert len(lines) <= LINES.burst + LINES.per_second * lasted + 1
    return told(entries)


def request(method: str, params: object) -> bytes:
    """Return a request as a line."""
    return (
        msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + b"\n"
    )


def test_every_door_of_the_daemon(
    world: World, recorded: RecordedNetwork, journald: Journald
) -> None:
    """Requests without an id, wrong tokens, impostors of the signer: a burst, a rate, a count."""
    identity = bytes.fromhex(recorded.rpc("signer-status")["identity"][2:])
    hello = request("link.hello", wire.LinkHelloParams(wire.LINK_VERSION, identity))
    attach = request(
        "link.attach",
        wire.LinkAttachParams(signature=b"\1" * 65, account=identity, instance=bytes(16)),
    )
    since = time.time()
    rush(unix(recorded.socket), _NOTIFICATION)
    rush(unix(recorded.signer_socket), _NOTIFICATION)
    rush(unix(recorded.signer_socket), hello, attach)
    rush(unix(recorded.monitor_socket), request("authenticate", {"token": "x"}))
    assert bounded(journald, "notification_refused", since, of=2 * CONNECTIONS)
    assert bounded(journald, "signer_refused", since)
    assert bounded(journald, "token_refused", since)
    world.everything_runs()


def test_a_merchant_that_sends_garbage(journald: Journald) -> None:
    """Lines about a server that answers with garbage are bounded like all others."""
    code = """
import asyncio, os, socket, sys
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import configure, tell_missing
configure("customerd-garbage")

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(int(sys.argv[1])):
        ours, theirs = socket.socketpair()
        _, peer = await loop.create_connection(lambda: Peer(name="merchant"), sock=ours)
        theirs.sendall(b'{"jsonrpc":"2.0","id":77,"result":1}\\n{]\\n')
        theirs.shutdown(socket.SHUT_WR)
        await peer.wait_closed()
        theirs.close()
    while True:
        tell_missing()
        await asyncio.sleep(0.1)

asyncio.run(main())
"""
    since = time.time()
    command = journald.connected("x", sys.executable, "-c", code, str(CONNECTIONS))
    with subprocess.Popen(command) as process:
        try:
            assert bounded(journald, "answer_unknown", since, program="customerd-garbage")
        finally:
            process.kill()


def test_a_customer_of_the_merchant_s(world: World, journald: Journald) -> None:
    """What strangers send to the merchant's port is bounded in the same way."""
    merchant = world.network.merchants["coffee"]
    port = int(merchant.address.rpartition("/")[0].rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(world.network.directory / "merchants.pem"))

    def connect() -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", port))
        return context.wrap_socket(plain, server_hostname="localhost")

    since = time.time()
    rush(connect, _NOTIFICATION)
    assert bounded(journald, "notification_refused", since, program="merchantd")
