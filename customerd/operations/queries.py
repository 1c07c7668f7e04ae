"""Reading and changing operations, their steps and the requests they sent."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec

from customerd.store.events import Change
from customerd.store.writes import Statement, Writes
from zkchannels.store.database import Database

ENDED = frozenset({"done", "refused", "cancelled"})

_OPERATION = """
operation.operation, operation.kind, operation.channel, operation.label,
operation.amount, operation.note, operation.force, operation.parameters,
operation.idempotency_key, operation.status, operation.step, operation.error_kind,
operation.error_message, extract(epoch from operation.created)::float8,
extract(epoch from operation.updated)::float8, attempt.receipt, attempt.service_note,
operation.held, channel.escrow, channel.customer_balance,
(select json_agg(json_build_array(name, extract(epoch from started), extract(epoch from finished))
                 order by number)
 from step where step.operation = operation.operation)
"""
_FROM = """
from operation left join attempt using (operation)
left join channel on channel.channel = operation.channel
"""
_ATTEMPT = "operation, channel, index, attempt, session, nonce, proof, live, receipt, service_note"


class StepRow(msgspec.Struct, frozen=True):
    """One step of an operation; times are Unix seconds."""

    name: str
    started: float
    finished: float | None


class OperationRow(msgspec.Struct, frozen=True):
    """One row of the table `operation`, with its steps, its channel and its payment's receipt."""

    operation: bytes
    kind: str
    channel: bytes | None
    label: str
    amount: int | None
    note: str
    force: bool
    parameters: bytes
    idempotency_key: str | None
    status: str
    step: str | None
    error_kind: str | None
    error_message: str | None
    created: float
    updated: float
    receipt: bool | None
    service_note: str | None
    held: bool = False
    """Whether it waits for the user's word, after the database went back in time."""
    escrow: bytes | None = None
    customer_balance: int | None = None
    """What its channel holds for the customer, in units; None when the channel is forgotten."""
    taken: list[tuple[str, float, float | None]] | None = None

    @property
    def steps(self) -> list[StepRow]:
        """Its steps as they are recorded, oldest first."""
        return [StepRow(*each) for each in self.taken or ()]

    @property
    def ended(self) -> bool:
        """Whether the operation has its final outcome."""
        return self.status in ENDED


class AttemptRow(msgspec.Struct, frozen=True):
    """The request of an establish or a payment as it was sent."""

    operation: bytes
    channel: bytes
    index: int
    attempt: int
    session: bytes
    nonce: bytes | None
    proof: bytes
    live: bool
    receipt: bool | None
    service_note: str | None

    def __repr__(self) -> str:
        return f"AttemptRow(index={self.index}, attempt={self.attempt}, live={self.live})"


async def operation_by_id(database: Database, operation: bytes) -> OperationRow | None:
    """Return one operation."""
    return await database.fetch_one(
        f"select {_OPERATION} {_FROM} where operation.operation = %(operation)s",
        {"operation": operation},
        row=OperationRow,
    )


async def operation_by_key(database: Database, key: str) -> OperationRow | None:
    """Return the operation that was requested with an idempotency key."""
    return await database.fetch_one(
        f"select {_OPERATION} {_FROM} where operation.idempotency_key = %(key)s",
        {"key": key},
        row=OperationRow,
    )


async def unfinished(database: Database) -> list[OperationRow]:
    """Return all operations without a final outcome, in the order they were requested."""
    return await database.fetch(
        f"""
        select {_OPERATION} {_FROM}
        where operation.status in ('queued', 'running') order by operation.number
        """,
        row=OperationRow,
    )


async def operations(
    database: Database,
    *,
    channel: bytes | None,
    label: str | None,
    status: str | None,
    limit: int,
    visible: Collection[bytes] | None,
) -> list[OperationRow]:
    """Return operations, newest first; `visible`: only those on one of these channels."""
    return await database.fetch(
        f"""
        select {_OPERATION} {_FROM}
        where (%(channel)s::bytea is null or operation.channel = %(channel)s
               or operation.channel is null and operation.label = %(label)s)
          and (%(status)s::text is null or operation.status = %(status)s)
          and (%(visible)s::bytea[] is null or operation.channel = any(%(visible)s))
        order by operation.number desc limit %(limit)s
        """,
        {
            "channel": channel,
            "label": label,
            "status": status,
            "limit": limit,
            "visible": None if visible is None else list(visible),
        },
        row=OperationRow,
    )


async def attempt_of(database: Database, operation: bytes) -> AttemptRow | None:
    """Return the request that an operation sent, if it wrote one."""
    return await database.fetch_one(
        f"select {_ATTEMPT} from attempt where operation = %(operation)s",
        {"operation": operation},
        row=AttemptRow,
    )


def insert_operation(
    writes: Writes,
    *,
    operation: bytes,
    kind: str,
    channel: bytes,
    label: str,
    escrow: bytes,
    customer_balance: int,
    amount: int | None,
    note: str,
    force: bool,
    parameters: bytes,
    idempotency_key: str | None,
    token: bytes | None = None,
) -> OperationRow:
    """Add a queued operation to the writes, and return it; `token`: who but the owner asked for it.

    Their commit raises psycopg.errors.UniqueViolation for a used key.
    """
    statement = Statement(
        """
        insert into operation (operation, kind, channel, label, amount, note, force, parameters,
            idempotency_key, token)
        values (%(operation)s, %(kind)s, %(channel)s, %(label)s, %(amount)s, %(note)s, %(force)s,
            %(parameters)s, %(idempotency_key)s, %(token)s)
        """,
        {
            "operation": operation,
            "kind": kind,
            "channel": channel,
            "label": label,
            "amount": amount,
            "note": note,
            "force": force,
            "parameters": parameters,
            "idempotency_key": idempotency_key,
            "token": token,
        },
    )
    writes.add(statement)
    writes.event(
        "operation",
        "queued",
        channel=channel,
        label=label,
        operation=operation,
        operation_kind=kind,
    )
    now = time.time()
    return OperationRow(
        operation=operation,
        kind=kind,
        channel=channel,
        label=label,
        amount=amount,
        note=note,
        force=force,
        parameters=parameters,
        idempotency_key=idempotency_key,
        status="queued",
        step=None,
        error_kind=None,
        error_message=None,
        created=now,
        updated=now,
        receipt=None,
        service_note=None,
        escrow=escrow,
        customer_balance=customer_balance,
    )


async def cancel_operation(change: Change, row: OperationRow) -> bool:
    """Cancel an operation that has written no request; tell whether it was possible."""
    changed = await change.execute(
        """
        update operation set status = 'cancelled', updated = now(), error_kind = 'cancelled',
            error_message = 'cancelled before anything was bound'
        where operation = %(operation)s and status in ('queued', 'running') and kind <> 'close'
          and not exists (select from attempt where attempt.operation = operation.operation)
        """,
        {"operation": row.operation},
    )
    if changed:
        change.event(
            "operation",
            "cancelled",
            channel=row.channel,
            label=row.label,
            operation=row.operation,
            operation_kind=row.kind,
        )
    return bool(changed)


def write_attempt(writes: Writes, attempt: AttemptRow) -> None:
    """Write the request before it is sent; a new session replaces the request of a dead one."""
    statement = Statement(
        """
        insert into attempt values (%(operation)s, %(channel)s, %(index)s, %(attempt)s,
            %(session)s, %(nonce)s, %(proof)s, true, null, null)
        on conflict (operation) do update set session = excluded.session,
            nonce = excluded.nonce, proof = excluded.proof, attempt = excluded.attempt, live = true
        """,
        msgspec.structs.asdict(attempt),
    )
    writes.add(statement)


def session_is_dead(writes: Writes, operation: bytes) -> None:
    """Record that the merchant does not know the session (any more): propose again."""
    statement = "update attempt set live = false where operation = %(operation)s"
    writes.add(Statement(statement, {"operation": operation}))


def write_receipt(
    writes: Writes, operation: bytes, *, receipt: bool, service_note: str | None
) -> None:
    """Record whether the merchant confirmed the payment, and its service note."""
    statement = Statement(
        """
        update attempt set receipt = %(receipt)s, service_note = %(service_note)s
        where operation = %(operation)s
        """,
        {"operation": operation, "receipt": receipt, "service_note": service_note},
    )
    writes.add(statement)


class OperationEnded(Exception):
    """The operation was cancelled while a step was at work; the step's writes are undone."""


class StepTrail:
    """The steps of one run of an operation, written with the transaction that ends each."""

    def __init__(self, row: OperationRow) -> None:
        self.row = row
        self.current: str | None = None
        self._taken = list(row.taken or ())
        self._started = self._finished = datetime.now(UTC)
        self._unwritten: list[tuple[int, str, datetime, datetime | None]] = []

    def enter(self, name: str) -> None:
        """Begin a step; the one before it ends now."""
        now = datetime.now(UTC)
        if self.current is not None:
            self._unwritten.append((len(self._taken), self.current, self._started, now))
            self._taken.append((self.current, self._started.timestamp(), now.timestamp()))
        self.current, self._started = name, now

    def add_to(self, writes: Writes, *, status: str = "running", **details: Any) -> None:
        """Add the finished steps, the current one and the operation's status to the writes."""
        if (steps := self._steps(status)) is not None:
            writes.add(steps)
        writes.add(self._outcome(status, details), otherwise=OperationEnded)
        writes.event(
            "operation",
            status if status in ENDED else "step",
            channel=self.row.channel,
            label=self.row.label,
            operation=self.row.operation,
            operation_kind=self.row.kind,
            step=self.current,
            **details,
        )

    def _steps(self, status: str) -> Statement | None:
        entries = list(self._unwritten)
        if self.current is not None:
            self._finished = datetime.now(UTC)
            finished = self._finished if status in ENDED else None
            entries.append((len(self._taken), self.current, self._started, finished))
        if not entries:
            return None
        return Statement(
            """
            insert into step (operation, number, name, started, finished)
            select %(operation)s, (step ->> 0)::int, step ->> 1, (step ->> 2)::timestamptz,
                (step ->> 3)::timestamptz
            from jsonb_array_elements(%(steps)s::jsonb) as new (step)
            on conflict (operation, number) do update set finished = excluded.finished
            """,
            {
                "operation": self.row.operation,
                "steps": msgspec.json.encode(entries).decode(),
            },
        )

    def _outcome(self, status: str, details: dict[str, Any]) -> Statement:
        return Statement(
            """
            update operation set status = %(status)s, step = %(step)s, updated = now(),
                error_kind = %(error_kind)s, error_message = %(error_message)s
            where operation = %(operation)s and status in ('queued', 'running')
            """,
            {
                "operation": self.row.operation,
                "status": status,
                "step": self.current,
                "error_kind": details.get("error_kind"),
                "error_message": details.get("error_message"),
            },
        )

    def committed(self) -> None:
        """Forget what the last transaction wrote; called once it is committed."""
        self._unwritten.clear()

    def done(self, at: float, shown: dict[str, Any]) -> OperationRow:
        """Return the operation's row as the commit that ended it left it, so nobody reads it.

        Args:
            at: Unix time that the commit carries
            shown: what else it changed of the row
        """
        assert self.current is not None
        last = (self.current, self._started.timestamp(), self._finished.timestamp())
        return msgspec.structs.replace(
            self.row,
            status="done",
            step=self.current,
            updated=at,
            taken=[*self._taken, last],
            **shown,
        )
