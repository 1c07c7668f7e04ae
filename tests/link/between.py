"""What stands between signer and daemon: a proxy that reads, one that drops, a network to break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import ssl
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol, Self

from zkchannels.service.certificate import ensure_pair
from zkchannels.service.tls import own_certificate, server_context


class Proxy:
    """Forwards TCP to a daemon; may drop what it carries in silence.

    With a certificate of its own it ends TLS and speaks it again to the daemon: a man in the
    middle, who reads what he forwards.
    """

    def __init__(self, port: int, *, impostor: Path | None = None) -> None:
        self._port = port
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self.certificate = b""
        if impostor is not None:
            ensure_pair(impostor, "customerd", "server")
            self.certificate = own_certificate(impostor)
            self._server = server_context(impostor)
            self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client.check_hostname = False
            self._client.verify_mode = ssl.CERT_NONE
        self.read = bytearray()
        """What was read, in either direction."""
        self.dialled = 0
        self.source = "127.0.0.1"
        """The address that the daemon sees."""
        self._dropping = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="between", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def silence(self) -> None:
        """Drop everything from now on, without ending any connection."""
        self._dropping = True

    def move(self) -> None:
        """Have what is open hang in silence, and what comes be forwarded from another address."""
        self._do(self._strand())
        self.source = "127.0.0.2"

    def restore(self) -> None:
        """Carry what comes from now on; what is open stays silent."""
        self._do(self._strand())
        self._dropping = False

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._server)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _strand(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _end(self) -> None:
        self._listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._client, local_addr=(self.source, 0)
            )
            pumps = {
                asyncio.create_task(self._pump(reader, far_writer)),
                asyncio.create_task(self._pump(far_reader, writer)),
            }
            self._tasks |= pumps
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if any(task.cancelled() for task in done):
                await asyncio.get_running_loop().create_future()  # stranded: neither side hears
            for each in (writer, far_writer):
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.read += data
                if self._dropping:
                    await asyncio.get_running_loop().create_future()
                writer.write(data)


class Wire(Protocol):
    """A way from a signer to its daemon that can be broken in silence."""

    host: str
    """Where the daemon listens."""
    prefix: tuple[str, ...]
    """What the signer is started with."""

    def address(self, port: int) -> str:
        """Where the signer dials, for a daemon on this port."""

    def silence(self) -> None:
        """Drop what passes, without a word to either side."""

    def restore(self) -> None:
        """Let new connections pass."""

    def move(self) -> None:
        """Give the signer another address; its old connections hang in silence."""


class Cable:
    """Two network namespaces and a cable between them: the signer lives in one of its own.

    Traffic is dropped by sending it to a hardware address that nobody has, on both sides: no
    interface goes down, no route disappears, nobody is told.
    """

    NOBODY = "02:00:00:00:00:99"

    def __init__(self) -> None:
        token = secrets.token_hex(3)
        number = int(token, 16) % 200 + 20
        self.host, self._first, self._second = (f"10.213.{number}.{last}" for last in (1, 2, 3))
        self._space, self._near, self._far = f"link-{token}", f"ln{token}", f"lf{token}"
        self.prefix = (shutil.which("ip") or "ip", "netns", "exec", self._space)

    def __enter__(self) -> Self:
        _ip("netns", "add", self._space)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", self._space)
        _ip("address", "add", f"{self.host}/24", "dev", self._near)
        _ip("link", "set", self._near, "up")
        self._inside("address", "add", f"{self._first}/24", "dev", self._far)
        self._inside("link", "set", self._far, "up")
        self._inside("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self._space)
        subprocess.run(["ip", "link", "delete", self._near], capture_output=True, check=False)

    def address(self, port: int) -> str:
        """The daemon's own."""
        return f"{self.host}:{port}"

    def silence(self) -> None:
        """Send everything to nobody."""
        for other in (self._first, self._second):
            _ip(*self._neighbour(other, self._near), "lladdr", self.NOBODY, "nud", "permanent")
        self._inside(
            *self._neighbour(self.host, self._far), "lladdr", self.NOBODY, "nud", "permanent"
        )

    def restore(self) -> None:
        """Forget the false hardware addresses."""
        for other in (self._first, self._second):
            _ip("neigh", "delete", other, "dev", self._near)
        self._inside("neigh", "delete", self.host, "dev", self._far)

    def move(self) -> None:
        """Take the signer's address away and give it another."""
        self._inside("address", "add", f"{self._second}/24", "dev", self._far)
        self._inside("address", "delete", f"{self._first}/24", "dev", self._far)
        # Removing the first address of a network removes the others, too.
        subprocess.run(
            ["ip", "-n", self._space, "address", "add", f"{self._second}/24", "dev", self._far],
            capture_output=True,
            check=False,
        )

    def _neighbour(self, address: str, device: str) -> tuple[str, ...]:
        return ("neigh", "replace", address, "dev", device)

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self._space, *arguments)


class Loopback:
    """The same by a proxy that drops, for who may not make network namespaces."""

    host = "127.0.0.1"
    prefix: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._proxy: Proxy | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._proxy is not None:
            self._proxy.__exit__(*exception)

    def address(self, port: int) -> str:
        """The proxy's."""
        if self._proxy is None:
            self._proxy = Proxy(port).__enter__()
        return self._proxy.address

    def silence(self) -> None:
        """Drop everything."""
        self._running.silence()

    def restore(self) -> None:
        """Carry new connections."""
        self._running.restore()

    def move(self) -> None:
        """Strand what is open and come from another address."""
        self._running.move()

    @property
    def _running(self) -> Proxy:
        assert self._proxy is not None
        return self._proxy


def may_make_networks() -> bool:
    """Whether this process may make network namespaces."""
    if os.geteuid() != 0:
        return False
    name = f"link-probe-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode == 0:
        _ip("netns", "delete", name)
    return made.returncode == 0


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
