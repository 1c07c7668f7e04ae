"""The lease: of several daemons on one database exactly one acts.

The holder renews its lease well before it runs out; every write checks the fencing number in its
own transaction, so that a daemon that lost the lease while it was suspended writes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from psycopg import AsyncConnection, errors

from customerd.store.writes import NOTHING_WRITTEN, Statement, Writes
from zkchannels.store.database import Database, DatabaseUnavailable

T = TypeVar("T")


class LeaseHeld(Exception):
    """Another daemon holds the lease; `holder` names it."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"another daemon holds the lease: {holder}")
        self.holder = holder


class LeaseLost(DatabaseUnavailable):
    """The lease ran out or was taken over: nothing may be written until it is held again."""


_TAKE = """
insert into lease (holder, fence, expires)
values (%(holder)s, 1, now() + %(seconds)s * interval '1 second')
on conflict (one) do update
    set holder = excluded.holder, fence = lease.fence + 1, expires = excluded.expires
    where lease.expires <= now() or lease.holder = excluded.holder
returning fence
"""
_RENEW = """
update lease set expires = now() + %(seconds)s * interval '1 second'
where fence = %(fence)s returning fence
"""
_CHECK = "select 1 from lease where fence = %(fence)s and expires > now() for share"


class LeasedDatabase(Database):
    """A database whose every transaction requires the lease, once it was taken.

    Before that only the schema is brought up to date.

    Raises LeaseLost from `run` when the lease is not held any more.
    """

    def __init__(self, dsn: str, *, application_name: str, holder: str, seconds: float) -> None:
        super().__init__(dsn, application_name=application_name)
        self.holder = holder
        self.seconds = seconds
        self.fence: int | None = None

    async def take_lease(self) -> None:
        """Take the lease; raises LeaseHeld while another daemon has it."""

        async def take(connection: AsyncConnection[Any]) -> int | None:
            cursor = await connection.execute(
                _TAKE, {"holder": self.holder, "seconds": self.seconds}
            )
            row = await cursor.fetchone()
            return None if row is None else int(row[0])

        fence = await super().run(take)
        if fence is None:
            row = await self.fetch_one_value("select holder from lease")
            raise LeaseHeld(str(row))
        self.fence = fence

    async def renew_lease(self) -> None:
        """Push the end of the lease forward; raises LeaseLost when it is another's."""

        async def renew(connection: AsyncConnection[Any]) -> bool:
            cursor = await connection.execute(
                _RENEW, {"fence": self.fence, "seconds": self.seconds}
            )
            return await cursor.fetchone() is not None

        if not await super().run(renew):
            raise LeaseLost

    async def release_lease(self) -> None:
        """Let the lease run out now, so that the next daemon need not wait for it."""

        async def release(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                "update lease set expires = now() where fence = %(fence)s", {"fence": self.fence}
            )

        await super().run(release)

    async def run(
        self,
        body: Callable[[AsyncConnection[Any]], Awaitable[T]],
        *,
        answer_within: float | None = None,
    ) -> T:
        """Run `body` in a transaction that fails when the lease is not held."""

        async def fenced(connection: AsyncConnection[Any]) -> T:
            cursor = await connection.execute(_CHECK, {"fence": self.fence})
            if await cursor.fetchone() is None:
                raise LeaseLost
            return await body(connection)

        if self.fence is None:
            return await super().run(body, answer_within=answer_within)
        return await super().run(fenced, answer_within=answer_within)

    async def write(self, writes: Writes) -> tuple[int | None, float]:
        """Commit writes as one statement that fails when the lease is not held.

        Returns the number of the newest event that it recorded, if any, and the server's Unix time.
        Raises LeaseLost, what a write's `otherwise` says, and what `run_alone` raises.
        """
        assert self.fence is not None, "nothing is written before the lease was taken"
        writes.add(Statement(_CHECK, {"fence": self.fence}), otherwise=LeaseLost)
        try:
            last, time, *_ = await self.run_alone(*writes.compose())
        except errors.DatabaseError as error:
            if error.sqlstate != NOTHING_WRITTEN:
                raise
            raise writes.failure(int(error.diag.message_primary or "0")) from None
        return last, time
