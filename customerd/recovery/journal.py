"""The continuous backup: every change of a channel, soon after its commit, in a second place.

One encrypted file per channel, replaced whenever something about the channel was committed. It is
written behind the commits, never before an effect leaves: what the rules ask to be durable first is
durable in PostgreSQL and with the signer, and a second place that is slow or full must not stop a
payment. How far it is behind is shown.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from customerd.channels import queries as channels
from customerd.recovery import archive
from customerd.recovery.backup import document
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.store.events import Event, Store
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError
from zkchannels.store.database import CommitOutcomeUnknown, DatabaseUnavailable
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from customerd.signing.gateway import Gateway

log = get_logger("customerd.recovery")

AGAIN_AFTER = 5.0
"""Seconds after which a file that could not be written is tried again."""


class Journal:
    """Writes the files; `directory` is None where no second place is configured."""

    def __init__(self, directory: str | None, store: Store, gateway: Gateway) -> None:
        self.directory = None if directory is None else Path(directory)
        self._store = store
        self._gateway = gateway
        self._waiting: dict[bytes, float] = {}
        self._wake = asyncio.Event()
        self._key: bytes | None = None
        self.trouble = ""

    @property
    def pending(self) -> int:
        """How many channels have changes that are not in the second place yet."""
        return len(self._waiting)

    @property
    def behind(self) -> float:
        """For how many seconds the oldest of these changes has been waiting."""
        return max((time.monotonic() - since for since in self._waiting.values()), default=0.0)

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        if self.directory is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="journal events")
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._write_all(self.directory)
                    self.trouble = ""
                except (
                    SecretFileError,
                    OSError,
                    DatabaseUnavailable,
                    CommitOutcomeUnknown,
                    SignerAway,
                    SignerSlow,
                    RpcError,
                ) as error:
                    self._complain(str(error) or type(error).__name__)
                    await asyncio.sleep(AGAIN_AFTER)
                    self._wake.set()

    def _complain(self, reason: str) -> None:
        if reason != self.trouble:
            log.error("backup_not_written", reason=reason)
        self.trouble = reason

    async def _listen(self) -> None:
        async with self._store.bus.subscription() as events:
            await self._everything()
            while True:
                event: Event | None = await events.get()
                if event is None:
                    await self._everything()
                elif event.channel is not None and event.topic in ("channel", "operation"):
                    self._waiting.setdefault(event.channel, time.monotonic())
                    self._wake.set()

    async def _everything(self) -> None:
        while True:
            try:
                rows = await channels.channels(self._store.database)
            except DatabaseUnavailable:
                await self._store.database.wait_available()
                continue
            break
        for row in rows:
            self._waiting.setdefault(row.channel, time.monotonic())
        self._wake.set()

    async def _write_all(self, directory: Path) -> None:
        while self._waiting:
            channel = next(iter(self._waiting))
            key = await self._backup_key()
            assert self._gateway.identity is not None
            since = self._waiting.pop(channel)
            try:
                await self._write(directory, channel, key, self._gateway.identity)
            except BaseException:
                self._waiting[channel] = since
                raise

    async def _backup_key(self) -> bytes:
        """Return the key; the first time the signer has to be there."""
        if self._key is None:
            await self._gateway.wait_ready()
            self._key = (await self._gateway.request(wire.BACKUP_KEY, wire.Nothing())).key
        return self._key

    async def _write(self, directory: Path, channel: bytes, key: bytes, identity: bytes) -> None:
        content = await document.collect(self._store, channel)
        path = directory / f"{channel.hex()}{archive.SUFFIX}"

        def write() -> None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if content.rows["channel"]:
                archive.write(path, document.encode(content), key=key, identity=identity)
            else:  # a channel that never came to be
                path.unlink(missing_ok=True)

        await asyncio.to_thread(write)
