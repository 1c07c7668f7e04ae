"""The lease: of several daemons on one database exactly one acts.

Every write requires the lease by its fencing number, renews it, and leaves a mark in it; so a
daemon that was overtaken while it was suspended writes nothing, and one whose COMMIT got no answer
finds out whether it took place. What leaves the daemon is fenced by the daemon's own clock: without
a renewal within the lease time nothing is sent, as another daemon may act by then.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from psycopg import AsyncConnection, errors

from customerd.store.writes import NOTHING_WRITTEN, Statement, Writes
from zkchannels.store.database import Database, DatabaseUnavailable

T = TypeVar("T")

RELEASE_WITHIN = 2.0
"""Seconds that the end of a daemon waits for a server that may hang, to give the lease up."""

CHANNEL = "customerd"
"""Notified when a lease is given up, and when a standby should look at the database again."""


class LeaseHeld(Exception):
    """Another daemon holds the lease; `holder` names it, `expires_in` is in seconds."""

    def __init__(self, holder: str, expires_in: float) -> None:
        super().__init__(f"another daemon holds the lease: {holder}")
        self.holder = holder
        self.expires_in = expires_in


class LeaseLost(DatabaseUnavailable):
    """The lease ran out or was taken over: nothing may be written or sent until it is held."""

    def __init__(self, message: str = "another daemon has taken the lease") -> None:
        super().__init__(message)


# A lease that ends later than any holder could have set it is what a server's clock leaves behind
# that was set back: then a holder that renewed nothing for the lease time, by the clock of the one
# who waits, is taken for dead.
_TAKE = """
insert into lease (holder, fence, expires, mark)
values (%(holder)s, 1, now() + %(seconds)s * interval '1 second', %(mark)s)
on conflict (one) do update
    set holder = excluded.holder, fence = lease.fence + 1, expires = excluded.expires,
        mark = excluded.mark
    where lease.expires <= now() or lease.holder = excluded.holder
       or lease.mark = %(dead)s and lease.expires > excluded.expires
returning fence
"""
_HOLD = """
update lease set expires = now() + %(seconds)s * interval '1 second', mark = %(mark)s
where fence = %(fence)s
"""
_RELEASE = """
with released as (
    update lease set expires = now(), mark = %(mark)s where fence = %(fence)s returning fence
)
select pg_notify(%(channel)s, '') from released
"""
_OTHERS = "select holder, mark, extract(epoch from expires - now())::float8 from lease"
_MARKED = "select mark = %(mark)s from lease where fence = %(fence)s"
_LAST_EVENT = "select (select max(seq) from event), extract(epoch from now())::float8"


class _Other(NamedTuple):
    holder: str
    mark: bytes
    expires_in: float


class LeasedDatabase(Database):
    """A database whose every transaction requires the lease, once it was taken.

    Before that only the schema is brought up to date. `seconds` is the lease time: the same for all
    daemons of a database.

    Raises LeaseLost from `run` and `write` when the lease is not held any more.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        holder: str,
        seconds: float,
        password: bytes | None = None,
    ) -> None:
        # A transaction that was left open would keep the next daemon from the lease.
        super().__init__(
            dsn, application_name=application_name, password=password, idle_within=seconds
        )
        self.holder = holder
        self.seconds = seconds
        self.fence: int | None = None
        self.overtaken = asyncio.Event()
        """Set once another daemon has the lease: what this one remembers may not be trusted."""
        self._held_until = 0.0
        self._watched: tuple[bytes, float] = (b"", 0.0)

    @property
    def alive(self) -> bool:
        """Whether the database can be worked with, as far as is known: connected, lease held."""
        return super().alive and (self.fence is None or not self._expired())

    def _expired(self) -> bool:
        """Tell whether another daemon may act already, by this machine's own clock."""
        return self.overtaken.is_set() or _clock() > self._held_until

    async def take_lease(self) -> None:
        """Take the lease; raises LeaseHeld while another daemon has it."""

        async def take(connection: AsyncConnection[Any]) -> int | None:
            values = {"holder": self.holder, "dead": self._dead(), **self._new_mark()}
            row = await (await connection.execute(_TAKE, values)).fetchone()
            return None if row is None else int(row[0])

        began = _clock()
        fence = await super().run(take)
        if fence is None:
            other = await self.fetch_one(_OTHERS, row=_Other)
            assert other is not None, "leases are never deleted"
            if other.mark != self._watched[0]:
                self._watched = (other.mark, _clock())
            raise LeaseHeld(other.holder, min(max(other.expires_in, 0.0), self.seconds))
        self.fence = fence
        self._held_until = began + self.seconds

    def _dead(self) -> bytes:
        """Return the mark that nobody has replaced for the lease time, by our clock."""
        mark, since = self._watched
        return mark if _clock() - since > self.seconds else b""

    async def wait_lease(self, held: LeaseHeld) -> None:
        """Return when the lease of another may have ended, or was given up; never raises."""
        try:
            async with asyncio.timeout(held.expires_in + 0.05), await self.listen(CHANNEL) as ends:
                await anext(ends)
        except TimeoutError:
            return
        except DatabaseUnavailable:
            # No more than a look now and then, also when everything but this connection works.
            await asyncio.sleep(self.seconds / 3)

    async def renew_lease(self) -> None:
        """Push the end of the lease forward; raises LeaseLost when it is another's."""
        assert self.fence is not None

        async def nothing(_connection: AsyncConnection[Any]) -> None:
            """Every transaction renews."""

        await self.run(nothing)

    async def release_lease(self) -> None:
        """Let the lease run out now, so that the next daemon need not wait for it.

        It is given up only if the server answers soon: this is asked at the end of a process.
        """

        async def release(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                _RELEASE, {"fence": self.fence, "channel": CHANNEL, **self._new_mark()}
            )

        await super().run(release, answer_within=RELEASE_WITHIN)

    def require_lease(self) -> None:
        """Raise LeaseLost when another daemon may act already."""
        if self.fence is not None and self._expired():
            raise LeaseLost("the lease was not renewed in time")

    async def was_committed(self, connection: AsyncConnection[Any]) -> bool | None:
        """Tell by its mark whether the newest transaction was committed."""
        if self.fence is None or not self.mark:
            return None
        values = {"mark": self.mark, "fence": self.fence}
        row = await (await connection.execute(_MARKED, values)).fetchone()
        return None if row is None else bool(row[0])

    async def run(
        self,
        body: Callable[[AsyncConnection[Any]], Awaitable[T]],
        *,
        answer_within: float | None = None,
    ) -> T:
        """Run `body` in a transaction that fails when the lease is not held."""

        async def fenced(connection: AsyncConnection[Any]) -> T:
            hold = self._hold()
            self.mark = hold.values["mark"]
            cursor = await connection.execute(*hold)
            if not cursor.rowcount:
                self.overtaken.set()
                raise LeaseLost
            return await body(connection)

        if self.fence is None:
            return await super().run(body, answer_within=answer_within)
        began = _clock()
        result = await super().run(fenced, answer_within=answer_within)
        self._held_until = max(self._held_until, began + self.seconds)
        return result

    async def write(self, writes: Writes) -> tuple[int | None, float]:
        """Commit writes as one statement that fails when the lease is not held.

        Returns the number of the newest event that it recorded, if any, and the server's Unix time.
        Raises LeaseLost, what a write's `otherwise` says, and what `run_alone` raises.
        """
        assert self.fence is not None, "nothing is written before the lease was taken"
        began = _clock()
        hold = self._hold()
        writes.add(hold, otherwise=LeaseLost)
        try:
            last, moment, *_ = await self.run_alone(
                *writes.compose(), mark=hold.values["mark"], recall=_LAST_EVENT
            )
        except errors.DatabaseError as error:
            if error.sqlstate != NOTHING_WRITTEN:
                raise
            failure = writes.failure(int(error.diag.message_primary or "0"))
            if isinstance(failure, LeaseLost):
                self.overtaken.set()
            raise failure from None
        self._held_until = max(self._held_until, began + self.seconds)
        return last, moment

    def _hold(self) -> Statement:
        return Statement(_HOLD, {"fence": self.fence, **self._new_mark()})

    def _new_mark(self) -> dict[str, Any]:
        return {"mark": secrets.token_bytes(12), "seconds": self.seconds}


def _clock() -> float:
    """Return seconds that pass while the machine sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
