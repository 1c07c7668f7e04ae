"""One merchantd per database: two would send transactions with the same account."""

from __future__ import annotations

from merchantd.errors import AlreadyServing
from zkchannels.service.logging import get_logger
from zkchannels.store.database import Backend, Database, DatabaseUnavailable, Listener

_LOCK = int.from_bytes(b"merchant")
_CHANNEL = "merchantd_lease"
_log = get_logger("merchantd.lease")


class Lease:
    """An advisory lock on a listening connection, which the server frees when we are gone."""

    def __init__(self, database: Database) -> None:
        """Hold nothing yet."""
        self._database = database
        self._listener: Listener | None = None
        self._lost: Backend | None = None

    async def take(self) -> None:
        """Take the lock; raises AlreadyServing (another process has it) or DatabaseUnavailable."""
        if self._lost is not None:
            # The server may take longer than we to see that our connection was cut: then we would
            # find the lock held by nobody but ourselves.
            await self._database.end(self._lost)
            self._lost = None
        listener = await self._database.listen(_CHANNEL)
        if not await listener.try_lock(_LOCK):
            await listener.aclose()
            raise AlreadyServing("another merchantd works on this database")
        self._listener = listener

    async def hold(self) -> None:
        """Keep the lock until cancelled, taking it again when the server was away.

        Raises AlreadyServing when another process was quicker: it serves now.
        """
        while True:
            assert self._listener is not None
            try:
                async for _ in self._listener:
                    continue
            except DatabaseUnavailable:
                _log.warning("database_away")
            self._lost = self._listener.backend
            await self._take_again()

    async def release(self) -> None:
        """Give the lock up."""
        if self._listener is not None:
            await self._listener.aclose()

    async def _take_again(self) -> None:
        while True:
            await self._database.wait_available()
            try:
                await self.take()
            except DatabaseUnavailable:
                continue
            return
