"""One merchantd per database: two would send transactions with the same account."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection

from merchantd.errors import AlreadyServing
from zkchannels.service.logging import get_logger
from zkchannels.store.database import Database, DatabaseUnavailable

_LOCK = int.from_bytes(b"merchant")
_log = get_logger("merchantd.lease")


class Lease:
    """An advisory lock on a connection of its own, which the server frees when we are gone."""

    def __init__(self, dsn: str, database: Database) -> None:
        """Hold nothing yet; `database` tells when the server is back after a loss."""
        self._dsn = dsn
        self._database = database
        self._connection: AsyncConnection[Any] | None = None

    async def take(self) -> None:
        """Take the lock; raises AlreadyServing (another process has it) or DatabaseUnavailable."""
        try:
            connection = await AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="merchantd lease"
            )
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            found = await cursor.fetchone()
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error)) from None
        if found is None or not found[0]:
            await connection.close()
            raise AlreadyServing("another merchantd works on this database")
        self._connection = connection

    async def hold(self) -> None:
        """Keep the lock until cancelled, taking it again when the server was away.

        Raises AlreadyServing when another process was quicker: it serves now.
        """
        while True:
            assert self._connection is not None
            try:
                async for _ in self._connection.notifies():
                    pass
            except psycopg.OperationalError:
                _log.warning("database_away")
            await self._connection.close()
            await self._take_again()

    async def release(self) -> None:
        """Give the lock up."""
        if self._connection is not None:
            await self._connection.close()

    async def _take_again(self) -> None:
        while True:
            await self._database.wait_available()
            try:
                await self.take()
            except DatabaseUnavailable:
                continue
            return
