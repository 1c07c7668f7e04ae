"""Asks the person: on the signer's own terminal, or by `customersigner confirm` on a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from customersigner.errors import SignerError
from customersigner.questions import AskerGone, Question, Questions
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_unix, serve
from zkchannels.service.logging import get_logger
from zkchannels.service.sockets import SocketError, bind_owner_only, peer_credentials

WITHDRAWN: Final = "confirm.withdrawn"
LONGEST_LINE: Final = 1024
QUIET_AFTER_WITHDRAWAL: Final = 2.0
"""Seconds until the next question: a yes on its way to the one withdrawn must not meet another."""

log = get_logger("customersigner.confirm")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters, nothing to say."""


class Agreed(msgspec.Struct, frozen=True):
    """What the person said."""

    yes: bool


ATTEND = Method("confirm.attend", Nothing, Nothing, summary="Be asked from now on.", errors=())
ASK = Method("confirm.ask", Question, Agreed, summary="Ask the person.", errors=())


class NobodyToServe(SignerError):
    """No signer runs on this state directory."""


class Terminal:
    """A person at a terminal. Use it from one event loop."""

    def __init__(self, source: int, output: int) -> None:
        self._source = source
        self._output = output
        self._asking: asyncio.Task[object] | None = None
        self._quiet_until = 0.0

    @classmethod
    def of_process(cls) -> Terminal | None:
        """The terminal that this process was started on, if both its ends are one."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return None
        return cls(sys.stdin.fileno(), sys.stdout.fileno())

    async def ask(self, question: Question) -> bool:
        """Show a question and read a line; only a plain yes is one. Raises AskerGone."""
        self._asking = asking = asyncio.current_task()
        try:
            return await self._ask(question)
        finally:
            if self._asking is asking:
                self._asking = None

    async def _ask(self, question: Question) -> bool:
        self._require_foreground()
        await asyncio.sleep(self._quiet_until - asyncio.get_running_loop().time())
        with suppress(termios.error):
            termios.tcflush(self._source, termios.TCIFLUSH)  # what was typed before is no answer
        self._write("\n" + "\n".join(question.lines) + "\n[y/N] ")
        try:
            line = await self._read()
        except asyncio.CancelledError:
            self._write("\nThe question was withdrawn.\n")
            self._quiet_until = asyncio.get_running_loop().time() + QUIET_AFTER_WITHDRAWAL
            raise
        if not line:
            raise AskerGone
        agreed = line.strip().lower() in (b"y", b"yes")
        self._write("Agreed.\n" if agreed else "Refused.\n")
        return agreed

    def withdraw(self) -> None:
        """Take back the question that is being asked."""
        if self._asking is not None:
            self._asking.cancel()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        line: asyncio.Future[bytes] = loop.create_future()

        def ready() -> None:
            try:
                read = os.read(self._source, LONGEST_LINE)
            except OSError:  # the terminal was closed
                read = b""
            if not line.done():
                line.set_result(read)

        loop.add_reader(self._source, ready)
        try:
            return await line
        finally:
            loop.remove_reader(self._source)

    def _require_foreground(self) -> None:
        """A process in the background is stopped when it reads from its terminal."""
        try:
            if os.tcgetpgrp(self._source) != os.getpgrp():
                raise AskerGone
        except OSError:
            raise AskerGone from None

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self._output, text.encode())


class _Remote:
    """A person at `customersigner confirm`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def ask(self, question: Question) -> bool:
        try:
            return (await self._peer.request(ASK, question)).yes
        except asyncio.CancelledError:
            with suppress(ConnectionLost):
                self._peer.notify(WITHDRAWN, Nothing())
            raise
        except (ConnectionLost, RpcError):
            raise AskerGone from None


async def serve_people(path: Path, questions: Questions) -> None:
    """Let `customersigner confirm` of the same user answer questions, until cancelled."""
    try:
        listening = bind_owner_only(path)
    except SocketError as error:
        log.warning("confirmation_socket_unusable", reason=str(error))
        return
    async with asyncio.TaskGroup() as group:
        handlers = Handlers(task_group=group)

        async def until_gone(peer: Peer, asked: ExitStack) -> None:
            with asked:
                await peer.wait_closed()

        async def attend(_params: Nothing, peer: Peer) -> Nothing:
            asked = ExitStack()  # from before the answer: whoever reads it is being asked
            asked.enter_context(questions.asking(_Remote(peer)))
            group.create_task(until_gone(peer, asked), name="person")
            return Nothing()

        handlers.register(ATTEND, attend)
        people = serve(
            listening, lambda: Peer(handlers, name="person", log=log.warning), accept=_same_owner
        )
        try:
            async with people:
                await asyncio.get_running_loop().create_future()
        finally:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - at once, on the way out


async def attend(path: Path, terminal: Terminal) -> None:
    """Answer a running signer's questions on a terminal until it ends. Raises NobodyToServe."""
    reason = await _attended(path, terminal)
    if reason:
        raise NobodyToServe(f"no signer answers on {path}: {reason}")


async def _attended(path: Path, terminal: Terminal) -> str:
    """Return why nobody can be attended; empty once somebody was."""
    async with asyncio.TaskGroup() as group:
        handlers = Handlers(task_group=group)

        async def ask(question: Question, _peer: Peer) -> Agreed:
            try:
                return Agreed(await terminal.ask(question))
            except AskerGone:
                peer.abort()  # nobody can be asked here any more
                return Agreed(False)

        def notified(name: str, _params: msgspec.Raw, _peer: Peer) -> None:
            if name == WITHDRAWN:
                terminal.withdraw()

        handlers.register(ASK, ask, cancel_on_disconnect=True)
        try:
            peer = await connect_unix(
                path, handlers, name="signer", notifications="deliver", on_notification=notified
            )
        except OSError as error:
            return error.strerror or str(error)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, peer.abort)
        with suppress(ConnectionLost, RpcError):
            await peer.request(ATTEND, Nothing())
            print("Waiting for questions of the signer; Ctrl-C ends this.", flush=True)  # noqa: T201
            await peer.wait_closed()
        peer.abort()
    return ""


def _same_owner(transport: asyncio.Transport) -> bool:
    _, uid, _ = peer_credentials(transport.get_extra_info("socket"))
    return uid in (os.geteuid(), 0)
