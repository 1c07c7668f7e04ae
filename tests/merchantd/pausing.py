"""merchantd whose watcher stops in the middle of each decision while somebody holds a lock.

A decision reads the chain's records, then the merchant's, then acts; between the two a test has the
chain change.
"""

from __future__ import annotations

import sys

import merchantd.app
from merchantd.__main__ import main
from merchantd.decisions import LocalChannel
from merchantd.store.records import Records

LOCK = 20261121
"""Number of the advisory lock that holds a decision up."""


class PausingRecords(Records):
    """The merchant's records, read as slowly as a test wants."""

    async def local(self, channel: bytes) -> LocalChannel | None:
        """Read a channel once nobody holds the lock."""
        await self.database.fetch_one_value(
            "SELECT pg_advisory_lock(%s)::text || pg_advisory_unlock(%s)::text", (LOCK, LOCK)
        )
        return await super().local(channel)


if __name__ == "__main__":
    merchantd.app.Records = PausingRecords  # type: ignore[misc]
    sys.exit(main())
