"""The monitor port over TLS, and what keeps others from filling either door."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import secrets
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from customerd.rpc import methods
from customerd.rpc.monitor import AUTHENTICATE_WITHIN, MOST_CONNECTIONS, MOST_PER_TOKEN
from tests.customerd.conftest import Alone
from tests.link.parts import free_port
from zkchannels.devnet.postgres import Cluster
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_tls, connect_unix
from zkchannels.service.certificate import ensure_pair
from zkchannels.service.tls import fingerprint_of, own_certificate, pinning_client_context

GROUP = grp.getgrgid(os.getegid()).gr_name


class Doors(Alone):
    """A daemon with both doors for holders of tokens."""

    def __init__(self, directory: Path, dsn: str) -> None:
        super().__init__(directory, dsn)
        self.port, self.monitor = free_port(), directory / "monitor.sock"
        sockets = (
            f'[sockets]\nmonitor = "{self.monitor}"\nmonitor_group = "{GROUP}"\n'
            f'monitor_tls = "127.0.0.1:{self.port}"\n'
        )
        self.config.write_text(self.config.read_text().replace("[sockets]\n", sockets))

    def token(self, *names: str, **more: Any) -> str:
        """Make a token; return its secret."""
        return str(self.rpc("token-create", methods=list(names), **more)["token"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("monitor.pem", "open to others"), ("monitor.pem", "nonsense"), ("signer-link.pem", "no key")],
)
def test_a_certificate_that_cannot_be_used_is_told(
    memory_directory: Path, name: str, content: str
) -> None:
    """A broken or readable file ends the start with its name and the reason, not with a trace."""
    directory = memory_directory / f"unusable-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    doors = Doors(directory, "host=/nowhere")
    settings = doors.config.read_text()
    doors.config.write_text(
        settings.replace("[sockets]\n", f'[sockets]\nsigner_tls = "127.0.0.1:{free_port()}"\n')
    )
    path = directory / name
    ensure_pair(path, "customerd", "server")
    if content == "open to others":
        path.chmod(0o644)
    elif content == "nonsense":
        path.write_text("nonsense")
    else:
        path.write_text(path.read_text().partition("-----BEGIN PRIVATE KEY")[0])
    done = subprocess.run(doors.command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    (line,) = (row for row in done.stderr.splitlines() if "secret_file_not_usable" in row)
    assert str(path) in line
    assert "Traceback" not in done.stderr


class Callers:
    """Makes connections, and ends them all."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._made: list[Peer] = []

    async def tls(self) -> Peer:
        """Connect as a holder does, who pins the daemon's certificate."""
        pinned = own_certificate(self._doors.directory / "monitor.pem")
        context = pinning_client_context(None, pinned=pinned)
        self._made.append(await connect_tls("127.0.0.1", self._doors.port, context))
        return self._made[-1]

    async def unix(self) -> Peer:
        """Connect to the monitor socket."""
        self._made.append(await connect_unix(self._doors.monitor))
        return self._made[-1]

    async def end(self) -> None:
        """End all connections."""
        for peer in self._made:
            peer.abort()
            await peer.wait_closed()


@pytest.fixture(scope="module")
def doors(memory_directory: Path, postgres_cluster: Cluster) -> Iterator[Doors]:
    """A running daemon with both doors, for all tests of this file."""
    postgres_cluster.create_database("doors")
    daemon = Doors(memory_directory / "doors", postgres_cluster.dsn("doors"))
    daemon.service.start()
    yield daemon
    assert daemon.service.stop() == 0


@pytest.fixture
async def callers(doors: Doors) -> AsyncIterator[Callers]:
    """What connects to the daemon's doors."""
    found = Callers(doors)
    yield found
    await found.end()


async def present(peer: Peer, token: str) -> methods.Granted:
    """Authenticate."""
    return await peer.request(methods.AUTHENTICATE, methods.AuthenticateParams(token))


async def test_a_holder_over_tls(doors: Doors, callers: Callers) -> None:
    """A token is good over TLS 1.3 as on the socket, and is revoked there as well."""
    token = doors.token("getinfo", "subscribe")
    peer = await callers.tls()
    with pytest.raises(RpcError, match="authenticate first"):
        await peer.request(methods.GETINFO, methods.NoParams())
    granted = await present(peer, token)
    assert granted.methods == ["getinfo", "subscribe"]
    assert (await peer.request(methods.GETINFO, methods.NoParams())).mode == "safe"
    with pytest.raises(RpcError, match="does not allow list"):
        await peer.request(methods.LIST, methods.NoParams())
    doors.rpc("token-revoke", id=granted.id)
    await peer.wait_closed()
    again = await callers.tls()
    with pytest.raises(RpcError, match="revoked"):
        await present(again, token)
    await again.wait_closed()


def test_the_command_line_pins_the_certificate(doors: Doors, tmp_path: Path) -> None:
    """`customerctl --socket tls://` talks to that server, and sends nothing to another."""
    file = tmp_path / "token"
    file.write_text(doors.token("getinfo"))
    pinned = fingerprint_of(own_certificate(doors.directory / "monitor.pem")).hex()

    def ctl(fingerprint: str) -> subprocess.CompletedProcess[str]:
        server = f"tls://127.0.0.1:{doors.port}#{fingerprint}"
        command = [sys.executable, "-m", "customerctl", "--token", str(file), "--socket", server]
        return subprocess.run([*command, "getinfo"], capture_output=True, text=True, check=False)

    assert "safe" in ctl(pinned).stdout
    other = ctl("0" * 64)
    assert (other.returncode, other.stdout) == (3, "")
    assert "another certificate" in other.stderr
    assert ctl("0" * 63).returncode == 2
    assert any(event.get("sha256") == pinned for event in doors.log())


def test_older_tls_and_plain_text_are_not_spoken(doors: Doors) -> None:
    """TLS 1.2 fails, and so does a request without TLS; the certificate's key is a secret file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", doors.port), timeout=30) as link,
        pytest.raises(OSError, match=r"(?i)protocol|reset|alert"),
    ):
        context.wrap_socket(link)
    with socket.create_connection(("127.0.0.1", doors.port), timeout=30) as link:
        link.sendall(b'{"jsonrpc":"2.0","id":1,"method":"getinfo"}\n')
        said = b""
        try:
            while received := link.recv(4096):
                said += received
        except ConnectionResetError:
            pass
        assert b"jsonrpc" not in said
    assert stat.S_IMODE((doors.directory / "monitor.pem").stat().st_mode) == 0o600


async def ended(writer: asyncio.StreamWriter) -> None:
    """End a connection that has ended perhaps."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_who_presents_nothing_keeps_nobody_out(doors: Doors, callers: Callers) -> None:
    """Silent connections beyond all room, on both doors: holders come in and stay in."""
    token = doors.token("getinfo")
    inside = [await callers.tls(), await callers.unix()]
    for peer in inside:
        await present(peer, token)
    async with AsyncExitStack() as stack:
        for number in range(MOST_CONNECTIONS + 10):
            _, writer = await asyncio.open_connection("127.0.0.1", doors.port)
            stack.push_async_callback(ended, writer)
            idle = await callers.unix()
            if number == 0:
                first = idle
        newcomers = [await callers.tls(), await callers.unix()]
        for peer in newcomers:
            await present(peer, token)
        for peer in [*inside, *newcomers]:
            assert await peer.request(methods.GETINFO, methods.NoParams())
        async with asyncio.timeout(AUTHENTICATE_WITHIN):
            await first.wait_closed()
    assert doors.rpc("getinfo")["mode"] == "safe"


async def test_one_token_has_its_own_places_only(doors: Doors, callers: Callers) -> None:
    """A holder who opens ever more connections is stopped, and others come in."""
    greedy, modest = doors.token("getinfo"), doors.token("getinfo")
    for _ in range(MOST_PER_TOKEN):
        await present(await callers.unix(), greedy)
    with pytest.raises(RpcError, match="connections already"):
        await present(await callers.unix(), greedy)
    await present(await callers.unix(), modest)


async def test_a_connection_has_to_present_something_soon(callers: Callers) -> None:
    """Whoever says nothing is cut off."""
    silent = await callers.unix()
    await silent.wait_closed()


def test_the_socket_has_its_group(doors: Doors) -> None:
    """The configured group owns the socket; a group that is not there is told at the start."""
    status = doors.monitor.stat()
    assert (stat.S_IMODE(status.st_mode), grp.getgrgid(status.st_gid).gr_name) == (0o660, GROUP)
    doors.service.stop()
    config = doors.config.read_text()
    doors.config.write_text(config.replace(f'"{GROUP}"', '"no-such-group"'))
    doors.service.launch()
    assert doors.service.wait(30.0) == 1
    assert "no-such-group" in doors.service.last_lines()
    doors.config.write_text(config)
    doors.service.start()
