"""The daemon's side of the link on a real socket, and the signer as a real process."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from zkchannels.escrow.ethereum import keccak256, recover
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import serve
from zkchannels.wire import signer as wire
from zkchannels.wire.pairing import NO_CHANNEL

PATIENCE = 60.0


class Daemon:
    """Accepts signers as customerd does; each attached one is handed out by `attached`."""

    def __init__(self, *, gone_after: float = 30.0) -> None:
        self.gone_after = gone_after
        self.request_timeout = PATIENCE
        self.identities: list[bytes] = []
        self.accounts: list[bytes] = []
        self.policies: list[list[str]] = []
        self.refuse_hello: str | None = None
        self.check: Callable[[bytes], bytes] = lambda challenge: challenge
        self.dialled = asyncio.Event()
        self._challenges: dict[Peer, tuple[bytes, bytes]] = {}
        self._arrived: asyncio.Queue[Peer] = asyncio.Queue()
        self.handlers = Handlers()
        self.handlers.register(wire.LINK_HELLO, self._hello)
        self.handlers.register(wire.LINK_ATTACH, self._attach)

    async def attached(self) -> Peer:
        """The next signer that attached."""
        async with asyncio.timeout(PATIENCE):
            return await self._arrived.get()

    def _hello(self, params: wire.LinkHelloParams, peer: Peer) -> wire.LinkChallenge:
        self.dialled.set()
        if self.refuse_hello is not None:
            raise wire.LINK_ERRORS.error(self.refuse_hello, "not you")
        assert params.version == wire.LINK_VERSION
        challenge = secrets.token_bytes(32)
        self._challenges[peer] = (params.identity, challenge)
        return wire.LinkChallenge(challenge)

    def _attach(self, params: wire.LinkAttachParams, peer: Peer) -> wire.Attached:
        identity, challenge = self._challenges.pop(peer)
        digest = keccak256(wire.CHALLENGE_TAG + self.check(challenge) + identity + NO_CHANNEL)
        if recover(digest, params.signature) != identity:
            raise wire.LINK_ERRORS.error("bad_signature", "the challenge was not signed")
        self.identities.append(identity)
        self.accounts.append(params.account)
        self.policies.append(params.policies)
        self._arrived.put_nowait(peer)
        return wire.Attached(len(self.identities), 2.0, self.gone_after, self.request_timeout)


@asynccontextmanager
async def listening(path: Path, daemon: Daemon) -> AsyncIterator[None]:
    """Serve a daemon at a path."""
    async with serve(_bound(path), lambda: Peer(daemon.handlers), grace=0.2):
        yield


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    return bound


def caller(peer: Peer) -> Callable[[Method[Any, Any], Any], Awaitable[Any]]:
    """Calls of an attached signer, each with a deadline."""

    async def call(method: Method[Any, Any], params: Any) -> Any:
        return await peer.request(method, params, timeout=PATIENCE)

    return call


class Process:
    """`customersigner` as a process of its own, with what it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, folder: Path, *arguments: str, **environment: str) -> Process:
        """Start a command on the state directory in a folder; output goes to a file there."""
        log = folder / "log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "customersigner",
                "--state-directory",
                str(folder / "state"),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | environment,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it, and those before it in the same folder, wrote."""
        return self._log.read_text()

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await self.wait()


@asynccontextmanager
async def running(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Process]:
    """A signer that runs for as long as the body does."""
    process = await Process.start(
        folder,
        "run",
        "--socket",
        str(folder / "signer.sock"),
        "--passphrase-file",
        str(folder / "passphrase"),
        *arguments,
        **environment,
    )
    try:
        yield process
    finally:
        await process.stop(signal.SIGKILL)
