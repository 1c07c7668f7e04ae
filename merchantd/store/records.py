"""The merchant's records and every statement on them; uniqueness is the constraints' work.

Times are the database's. Channel ids, nonces and locks are 32 bytes, amounts are units.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from merchantd.decisions import LocalChannel
from zkchannels.store.database import Database, NothingWritten

WAKE_CHANNEL = "merchantd_wake"
"""Notified when there is something new to decide on chain."""
DECIDED_CHANNEL = "merchantd_decided"
"""Notified when the watcher has acted or seen something."""

Connection = AsyncConnection[Any]


class Conflict(Exception):
    """Somebody else wrote first; read the records again."""


class ProveStanding(Struct, frozen=True):
    """What is recorded about a nonce, its commitments and a session."""

    commitments: bytes | None
    amount: int | None
    closing_answer: bytes | None
    refused: bool
    session_amount: int | None
    session_live: bool


class EstablishStanding(Struct, frozen=True):
    """What is recorded about a session of an establish, and the proposal in it."""

    customer: bytes
    salt: bytes
    customer_deposit: int
    merchant_deposit: int
    live: bool


class Establishment(Struct, frozen=True):
    """A channel as it was established."""

    channel: bytes
    commitments: bytes
    session: bytes
    customer: bytes
    customer_deposit: int
    merchant_deposit: int
    closing_answer: bytes
    token_answer: bytes | None


class Payment(Struct, frozen=True):
    """A payment as it is recorded."""

    commitments: bytes
    amount: int
    closing_answer: bytes
    token_answer: bytes | None
    service_note: str | None
    resource: str | None


class Lock(Struct, frozen=True):
    """A lock that can never be paid from again."""

    origin: str
    nonce: bytes | None
    secret: bytes | None
    channel: bytes | None
    customer_balance: int | None
    merchant_balance: int | None

    def __repr__(self) -> str:
        return f"Lock(origin={self.origin!r}, ...)"


class Notice(Struct, frozen=True):
    """Something the approval service has not been told."""

    id: int
    resource: str
    success: bool


class ChannelRow(Struct, frozen=True):
    """A channel for the operator's eyes."""

    channel: bytes
    customer: bytes
    customer_deposit: int
    merchant_deposit: int
    note: str
    established: datetime
    activated: datetime | None
    expire_requested: bool
    outcome: str | None
    final_customer_balance: int | None
    final_merchant_balance: int | None
    ended: datetime | None


_ESTABLISHMENT = """
SELECT channel, commitments, session, customer, customer_deposit, merchant_deposit,
       closing_answer, token_answer
FROM channel
"""

_CHANNEL_ROW = """
SELECT channel.channel, customer, customer_deposit, merchant_deposit, note, established, activated,
       requested IS NOT NULL AS expire_requested, outcome, final_customer_balance,
       final_merchant_balance, ended
FROM channel LEFT JOIN expire_request USING (channel)
"""


class Records:
    """The merchant's records in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # Sessions

    async def open_sessions(self, source: str) -> int:
        """Return how many live sessions an address has."""
        count: int = await self.database.fetch_one_value(
            "SELECT count(*) FROM session WHERE source = %s AND expires > now()", (source,)
        )
        return count

    async def open_pay_session(
        self,
        session: bytes,
        *,
        source: str,
        lifetime: float,
        amount: int,
        note: str,
        resource: str | None,
        room: int,
    ) -> None:
        """Write an approved payment or refund; raises Conflict.

        `room`: how many live sessions of this address there may be beside it.
        """
        await self._write_once(
            """
            INSERT INTO session (id, kind, source, expires, amount, note, resource)
            SELECT %(session)s, 'pay', %(source)s, now() + make_interval(secs => %(lifetime)s),
                   %(amount)s, %(note)s, %(resource)s
            WHERE (SELECT count(*) FROM session
                   WHERE source = %(source)s AND expires > now()) <= %(room)s
            RETURNING id
            """,
            {
                "session": session,
                "source": source,
                "lifetime": lifetime,
                "amount": amount,
                "note": _text(note),
                "resource": resource,
                "room": room,
            },
        )

    async def open_establish_session(
        self,
        session: bytes,
        *,
        source: str,
        lifetime: float,
        customer: bytes,
        salt: bytes,
        customer_deposit: int,
        merchant_deposit: int,
        note: str,
        resource: str | None,
    ) -> None:
        """Write an approved channel."""
        await self._execute(
            """
            INSERT INTO session (id, kind, source, expires, customer, salt, customer_deposit,
                                 merchant_deposit, note, resource)
            VALUES (%s, 'establish', %s, now() + make_interval(secs => %s), %s, %s, %s, %s, %s, %s)
            """,
            (
                session,
                source,
                lifetime,
                customer,
                salt,
                customer_deposit,
                merchant_deposit,
                _text(note),
                resource,
            ),
        )

    async def cancel_session(self, session: bytes) -> None:
        """End a session that was not used; nothing is ever accepted in it again."""
        await self._execute(
            """
            WITH cancelled AS (DELETE FROM session WHERE id = %s RETURNING resource)
            INSERT INTO approval_notice (resource, success)
            SELECT resource, false FROM cancelled WHERE resource IS NOT NULL
            """,
            (session,),
        )

    async def drop_expired_sessions(self) -> None:
        """End all sessions whose time is over."""
        await self._execute(
            """
            WITH expired AS (DELETE FROM session WHERE expires <= now() RETURNING resource)
            INSERT INTO approval_notice (resource, success)
            SELECT resource, false FROM expired WHERE resource IS NOT NULL
            """,
            (),
        )

    # Establish

    async def establish_session(self, session: bytes) -> EstablishStanding | None:
        """Return the proposal that a session holds."""
        return await self.database.fetch_one(
            """
            SELECT customer, salt, customer_deposit, merchant_deposit, expires > now() AS live
            FROM session WHERE id = %s AND kind = 'establish'
            """,
            (session,),
            row=EstablishStanding,
        )

    async def channel(self, channel: bytes) -> Establishment | None:
        """Return a channel by its id."""
        return await self.database.fetch_one(
            _ESTABLISHMENT + "WHERE channel = %s", (channel,), row=Establishment
        )

    async def channel_of_session(self, session: bytes) -> Establishment | None:
        """Return the channel that was established in a session."""
        return await self.database.fetch_one(
            _ESTABLISHMENT + "WHERE session = %s", (session,), row=Establishment
        )

    async def refused(self, subject: bytes, commitments: bytes) -> bool:
        """Tell whether a proof about these commitments was refused before."""
        return bool(
            await self.database.fetch_one_value(
                """
                SELECT true FROM verdict
                WHERE subject = %s AND commitments = %s AND NOT accepted
                """,
                (subject, commitments),
            )
        )

    async def refused_in_session(self, session: bytes, commitments: bytes) -> bool:
        """Tell whether a proof in this session about these commitments was refused before."""
        return bool(
            await self.database.fetch_one_value(
                """
                SELECT true FROM verdict
                WHERE session = %s AND commitments = %s AND NOT accepted
                """,
                (session, commitments),
            )
        )

    async def refuse(self, subject: bytes, commitments: bytes, session: bytes) -> None:
        """Refuse these commitments for ever and end the session; raises Conflict."""
        await self._write_once(
            """
            WITH used AS (DELETE FROM session WHERE id = %(session)s RETURNING id, resource),
            notice AS (
                INSERT INTO approval_notice (resource, success)
                SELECT resource, false FROM used WHERE resource IS NOT NULL
            )
            INSERT INTO verdict (subject, commitments, session, accepted)
            SELECT %(subject)s, %(commitments)s, id, false FROM used
            RETURNING session
            """,
            {"subject": subject, "commitments": commitments, "session": session},
        )

    async def establish(
        self, channel: bytes, commitments: bytes, session: bytes, closing_answer: bytes
    ) -> None:
        """Write a new channel and use up its session; raises Conflict."""
        await self._write_once(
            """
            WITH used AS (
                DELETE FROM session
                WHERE id = %(session)s AND kind = 'establish' AND expires > now()
                RETURNING *
            ),
            accepted AS (
                INSERT INTO verdict (subject, commitments, session, accepted)
                SELECT %(channel)s, %(commitments)s, id, true FROM used
            ),
            notice AS (
                INSERT INTO approval_notice (resource, success)
                SELECT resource, true FROM used WHERE resource IS NOT NULL
            )
            INSERT INTO channel (channel, commitments, session, customer, salt, customer_deposit,
                                 merchant_deposit, note, closing_answer)
            SELECT %(channel)s, %(commitments)s, id, customer, salt, customer_deposit,
                   merchant_deposit, note, %(answer)s
            FROM used
            RETURNING channel
            """,
            {
                "channel": channel,
                "commitments": commitments,
                "session": session,
                "answer": closing_answer,
            },
        )

    async def activate(self, channel: bytes, token_answer: bytes) -> None:
        """Write the first token of a channel; raises Conflict when there is one."""
        await self._write_once(
            """
            UPDATE channel SET token_answer = %s, activated = now()
            WHERE channel = %s AND token_answer IS NULL
            RETURNING channel
            """,
            (token_answer, channel),
        )

    # Payments

    async def prove_standing(
        self, nonce: bytes, commitments: bytes, session: bytes
    ) -> ProveStanding:
        """Return everything that decides about a pay proof."""
        row = await self.database.fetch_one(
            """
            SELECT payment.commitments, payment.amount, payment.closing_answer,
                   verdict.subject IS NOT NULL AS refused, session.amount AS session_amount,
                   coalesce(session.expires > now(), false) AS session_live
            FROM (SELECT) AS one
            LEFT JOIN payment ON payment.nonce = %(nonce)s
            LEFT JOIN verdict ON verdict.subject = %(nonce)s
                AND verdict.commitments = %(commitments)s AND NOT verdict.accepted
            LEFT JOIN session ON session.id = %(session)s AND session.kind = 'pay'
            """,
            {"nonce": nonce, "commitments": commitments, "session": session},
            row=ProveStanding,
        )
        assert row is not None
        return row

    async def bind(
        self, nonce: bytes, commitments: bytes, session: bytes, closing_answer: bytes
    ) -> Payment:
        """Bind a nonce to commitments for ever and use up the session; raises Conflict."""
        amount, resource = await self._write_once(
            """
            WITH used AS (
                DELETE FROM session
                WHERE id = %(session)s AND kind = 'pay' AND expires > now()
                RETURNING *
            ),
            accepted AS (
                INSERT INTO verdict (subject, commitments, session, accepted)
                SELECT %(nonce)s, %(commitments)s, id, true FROM used
            )
            INSERT INTO payment (nonce, commitments, session, amount, note, resource,
                                 closing_answer)
            SELECT %(nonce)s, %(commitments)s, id, amount, note, resource, %(answer)s
            FROM used
            RETURNING amount, resource
            """,
            {
                "nonce": nonce,
                "commitments": commitments,
                "session": session,
                "answer": closing_answer,
            },
        )
        return Payment(commitments, amount, closing_answer, None, None, resource)

    async def payment(self, nonce: bytes) -> Payment | None:
        """Return a payment by the nonce that it revealed."""
        return await self.database.fetch_one(
            """
            SELECT commitments, amount, closing_answer, token_answer, service_note, resource
            FROM payment WHERE nonce = %s
            """,
            (nonce,),
            row=Payment,
        )

    async def revoke(
        self,
        nonce: bytes,
        lock: bytes,
        secret: bytes,
        token_answer: bytes,
        *,
        service_note: str | None,
    ) -> None:
        """Enter a lock as revoked and write the token; raises Conflict when it was entered.

        `service_note` is None when the merchant's service has still to be asked for it.
        """
        await self._write_once(
            """
            WITH made AS (
                UPDATE payment
                SET token_answer = %(token)s, revoked = now(), service_note = %(note)s
                WHERE nonce = %(nonce)s AND token_answer IS NULL
                RETURNING nonce
            )
            INSERT INTO lock (lock, origin, nonce, secret)
            SELECT %(lock)s, 'revoked', nonce, %(secret)s FROM made
            RETURNING nonce
            """,
            {
                "lock": lock,
                "nonce": nonce,
                "secret": secret,
                "token": token_answer,
                "note": service_note,
            },
        )

    async def deliver_note(self, nonce: bytes, note: str) -> str:
        """Write the service note of a payment, if none is; return the one that counts."""
        await self._execute(
            """
            WITH delivered AS (
                UPDATE payment SET service_note = %s
                WHERE nonce = %s AND service_note IS NULL AND token_answer IS NOT NULL
                RETURNING resource
            )
            INSERT INTO approval_notice (resource, success)
            SELECT resource, true FROM delivered WHERE resource IS NOT NULL
            """,
            (_text(note), nonce),
        )
        payment = await self.payment(nonce)
        assert payment is not None
        assert payment.service_note is not None
        return payment.service_note

    # Locks

    async def lock(self, lock: bytes) -> Lock | None:
        """Return what is known of a lock."""
        return await self.database.fetch_one(
            """
            SELECT origin, nonce, secret, channel, customer_balance, merchant_balance
            FROM lock WHERE lock = %s
            """,
            (lock,),
            row=Lock,
        )

    async def enter_mutual_lock(
        self, lock: bytes, *, channel: bytes, customer_balance: int, merchant_balance: int
    ) -> Lock:
        """Enter the lock of an agreed close; return what is known of it, also if it was there."""
        await self._execute(
            """
            INSERT INTO lock (lock, origin, channel, customer_balance, merchant_balance)
            VALUES (%s, 'mutual', %s, %s, %s)
            ON CONFLICT DO NOTHING
            """,
            (lock, channel, customer_balance, merchant_balance),
        )
        entered = await self.lock(lock)
        assert entered is not None
        return entered

    async def learn_secret(self, lock: bytes, secret: bytes) -> None:
        """Keep the secret of a lock that was entered without one, and wake the watcher."""
        await self._execute(
            """
            WITH learned AS (
                UPDATE lock SET secret = %s WHERE lock = %s AND secret IS NULL RETURNING lock
            )
            SELECT pg_notify(%s, '') FROM learned
            """,
            (secret, lock, WAKE_CHANNEL),
        )

    async def reached(self) -> tuple[int, int]:
        """Return the numbers of the newest verdict and of the newest lock.

        Asked of the server that is written to: a standby may lag behind.
        """
        verdicts, locks = await self.database.run_alone(
            """
            SELECT (SELECT coalesce(max(number), 0) FROM verdict),
                   (SELECT coalesce(max(number), 0) FROM lock)
            """,
            (),
        )
        return int(verdicts), int(locks)

    async def agreed_to_close(
        self, channel: bytes, customer_balance: int, merchant_balance: int
    ) -> bool:
        """Tell whether a mutual close on these balances was ever agreed to."""
        return bool(
            await self.database.fetch_one_value(
                """
                SELECT true FROM lock
                WHERE channel = %s AND origin = 'mutual'
                  AND customer_balance = %s AND merchant_balance = %s
                """,
                (channel, customer_balance, merchant_balance),
            )
        )

    # The watcher

    async def local(self, channel: bytes) -> LocalChannel | None:
        """Return what the watcher needs to know of a channel."""
        return await self.database.fetch_one(
            """
            SELECT customer, customer_deposit, merchant_deposit,
                   requested IS NOT NULL AS expire_requested, ended IS NOT NULL AS ended
            FROM channel LEFT JOIN expire_request USING (channel)
            WHERE channel = %s
            """,
            (channel,),
            row=LocalChannel,
        )

    async def unfinished_expiries(self) -> frozenset[bytes]:
        """Return the channels that the operator wants expired and that have not ended."""
        rows = await self.database.fetch(
            """
            SELECT channel FROM expire_request JOIN channel USING (channel) WHERE ended IS NULL
            """,
            (),
            row=_Id,
        )
        return frozenset(row.channel for row in rows)

    async def unended_channels(self) -> frozenset[bytes]:
        """Return the channels seen on chain whose end is not recorded, established or not."""
        rows = await self.database.fetch(
            """
            SELECT DISTINCT channel FROM chain_event LEFT JOIN channel USING (channel)
            WHERE channel IS NOT NULL AND ended IS NULL
            """,
            (),
            row=_Id,
        )
        return frozenset(row.channel for row in rows)

    async def secrets_of_closings(self) -> frozenset[bytes]:
        """Return the channels that were closed on a lock whose secret came later."""
        rows = await self.database.fetch(
            """
            SELECT DISTINCT lock.channel FROM lock JOIN channel USING (channel)
            WHERE lock.channel IS NOT NULL AND secret IS NOT NULL AND ended IS NULL
            """,
            (),
            row=_Id,
        )
        return frozenset(row.channel for row in rows)

    async def record_end(
        self, channel: bytes, outcome: str, customer_balance: int, merchant_balance: int
    ) -> None:
        """Write how a channel ended; only ever called for what is final."""
        await self._execute(
            """
            UPDATE channel SET outcome = %s, final_customer_balance = %s,
                               final_merchant_balance = %s, ended = now()
            WHERE channel = %s
            """,
            (outcome, customer_balance, merchant_balance, channel),
        )

    async def reopen_record(self, channel: bytes) -> None:
        """Take back a recorded end that the chain took back."""
        await self._execute(
            """
            UPDATE channel SET outcome = NULL, final_customer_balance = NULL,
                               final_merchant_balance = NULL, ended = NULL
            WHERE channel = %s
            """,
            (channel,),
        )

    async def request_expiry(self, channel: bytes) -> None:
        """Ask the watcher to expire a channel."""
        await self._execute(
            """
            WITH request AS (
                INSERT INTO expire_request (channel) VALUES (%s) ON CONFLICT DO NOTHING
            )
            SELECT pg_notify(%s, '')
            """,
            (channel, WAKE_CHANNEL),
        )

    async def announce_decisions(self) -> None:
        """Tell waiting commands that the watcher has acted."""
        await self._execute("SELECT pg_notify(%s, '')", (DECIDED_CHANNEL,))

    # The approval service

    async def notices(self) -> list[Notice]:
        """Return what the approval service has to be told, oldest first."""
        return await self.database.fetch(
            "SELECT id, resource, success FROM approval_notice ORDER BY id LIMIT 100",
            (),
            row=Notice,
        )

    async def drop_notice(self, notice: int) -> None:
        """Forget what the approval service has been told."""
        await self._execute("DELETE FROM approval_notice WHERE id = %s", (notice,))

    # The operator

    async def channel_rows(self, prefix: str = "") -> list[ChannelRow]:
        """Return all channels, or those whose id (hexadecimal) begins with a prefix."""
        return await self.database.fetch(
            _CHANNEL_ROW
            + """
            WHERE starts_with(encode(channel.channel, 'hex'), %s)
            ORDER BY established, channel.channel
            """,
            (prefix,),
            row=ChannelRow,
        )

    async def _execute(self, statement: str, parameters: Any) -> None:
        async def write(connection: Connection) -> None:
            await connection.execute(statement, parameters)

        await self.database.run(write)

    async def _write_once(self, statement: str, parameters: Any) -> tuple[Any, ...]:
        """Run a statement that returns the row it wrote; raises Conflict if it wrote none."""
        try:
            return await self.database.run_alone(statement, parameters)
        except (UniqueViolation, NothingWritten):
            raise Conflict from None


class _Id(Struct, frozen=True):
    channel: bytes


def _text(text: str) -> str:
    """PostgreSQL stores every character but NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
