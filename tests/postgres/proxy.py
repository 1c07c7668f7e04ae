"""A proxy before PostgreSQL that knows where a transaction commits, and cuts right there.

It reads the framing of protocol 3.0: messages of a type byte and a length, after a first message
without a type. A commit is a COMMIT, or a writing statement outside of a transaction.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Self

FIRST = b""
_WRITES = re.compile(rb"\b(insert\s+into|update|delete\s+from)\s+(?!set\b)(\w+)", re.IGNORECASE)


class Cut(Enum):
    """Where a connection ends around a commit."""

    BEFORE = "the server never sees the commit"
    AFTER = "the server has committed, the client does not hear of it"


class Proxy:
    """Listens in a folder of its own and forwards to the folder of a server's socket.

    While `cuts` is set every second commit of a kind is cut, those that write the same tables: a
    transaction that is tried again passes. With `relentless` every commit is cut. `cut_off` lists
    the tables that the transactions wrote which were cut.
    """

    def __init__(self, directory: Path, server: Path) -> None:
        self.directory = directory
        self.server = server
        self.cuts: Cut | None = None
        self.cut_off: list[frozenset[str]] = []
        self.delay = 0.0
        """Seconds that each answer of the server takes longer."""
        self._relentless = False
        self._spared: set[frozenset[str]] = set()
        self.held = threading.Event()
        """Set while a commit waits for `release`."""
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listening: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    def __enter__(self) -> Self:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def cutting(self, cut: Cut, *, relentless: bool = False) -> Iterator[list[frozenset[str]]]:
        """Cut at every commit inside of the block; yield what was cut, for the caller to look."""
        self.cut_off = []
        self._relentless = relentless
        self._spared.clear()
        self.cuts = cut
        try:
            yield self.cut_off
        finally:
            self.cuts = None

    def hold(self) -> None:
        """Keep every COMMIT from the server until `release`; returns when one waits."""
        self.held.clear()
        self._loop.call_soon_threadsafe(self.may_commit.clear)
        assert self.held.wait(30), "nothing was committed"

    def release(self) -> None:
        """Let the commits go on."""
        self._loop.call_soon_threadsafe(self.may_commit.set)

    def is_cut(self, cut: Cut, tables: frozenset[str]) -> bool:
        """Tell whether this commit is to be cut, and remember it."""
        if self.cuts is not cut:
            return False
        if tables in self._spared and not self._relentless:
            self._spared.discard(tables)
            return False
        self._spared.add(tables)
        self.cut_off.append(tables)
        return True

    async def _listen(self) -> None:
        self._listening = await asyncio.start_unix_server(
            self._serve, path=self.directory / ".s.PGSQL.5432"
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_unix_connection(self.server / ".s.PGSQL.5432")
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, (reader, writer), server)
        self._open.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.from_client())
                group.create_task(connection.from_server())
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(connection)
            connection.end()

    async def _close(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for connection in list(self._open):
            connection.end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


class _Connection:
    """One client's connection: what is prepared on it, and whether a transaction is open."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client
        self._server, self._to_server = server
        self._prepared: dict[bytes, bytes] = {}
        self._tables: set[str] = set()
        self._in_transaction = False
        self._swallow = False

    def end(self) -> None:
        """End both sides at once."""
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def from_client(self) -> None:
        """Forward what the client says, up to a commit that is to be cut."""
        self._to_server.write(await _message(self._client, typed=False))
        held = b""
        text = FIRST
        while True:
            message = await _message(self._client)
            held += message
            text = self._statement(message) or text
            if message[:1] not in (b"Q", b"S"):
                continue
            commits = self._commits(text)
            if commits and self._proxy.is_cut(Cut.BEFORE, frozenset(self._tables)):
                self.end()
                return
            if commits:
                self._swallow = self._proxy.is_cut(Cut.AFTER, frozenset(self._tables))
                self._tables.clear()
            if text.strip().upper() == b"COMMIT" and not self._proxy.may_commit.is_set():
                self._proxy.held.set()
                await self._proxy.may_commit.wait()
            self._to_server.write(held)
            held, text = b"", FIRST

    async def from_server(self) -> None:
        """Forward what the server says, but nothing of what a cut commit is answered."""
        while True:
            message = await _message(self._server)
            if message[:1] == b"Z":
                self._in_transaction = message[5:6] != b"I"
                if self._swallow:
                    self.end()
                    return
            if self._swallow:
                continue
            if self._proxy.delay:
                asyncio.get_running_loop().call_later(
                    self._proxy.delay, self._to_client.write, message
                )
            else:
                self._to_client.write(message)

    def _statement(self, message: bytes) -> bytes:
        """Return the text of the statement that a message is about; remember what is prepared."""
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return body[:-1]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text
            return text
        if kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name, FIRST)
        return FIRST

    def _commits(self, text: bytes) -> bool:
        written = {table.decode() for _, table in _WRITES.findall(text)}
        self._tables |= written
        if text.strip().upper() == b"COMMIT":
            return True
        return bool(written) and not self._in_transaction


async def _message(reader: asyncio.StreamReader, *, typed: bool = True) -> bytes:
    head = await reader.readexactly(5 if typed else 4)
    return head + await reader.readexactly(int.from_bytes(head[-4:]) - 4)
