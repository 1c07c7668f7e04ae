"""Payments that are learned of afterwards, entered among the operations as if made by them."""

from __future__ import annotations

import hashlib

from customerd.channels.record import Channel
from customerd.store.events import Change
from zkchannels.wire.signer import Proved, Record

_NOT_ASKED_FOR = hashlib.sha256(b"learned of afterwards").digest()


def forgotten_operation(channel: bytes, index: int) -> bytes:
    """Return an id for the payment to a state of which nobody remembers the operation.

    The same each time, and never that of an operation that was asked for.
    """
    return channel[:16] if index == 0 else channel[16:24] + index.to_bytes(8)


async def enter(
    change: Change, row: Channel, proved: Proved, *, receipt: bool | None, note: str | None = None
) -> None:
    """Record that an attempt reached its state: its operation is done, also if it was queued.

    With it the next comparison can tell how the state was reached, and the operation, where the
    database still has it, is never run again (rule operation-once). `receipt` is whether the
    merchant's pay token on the state is known.
    """
    kind, amount = "establish", row.customer_deposit
    if proved.index > 0:
        kind, amount = ("pay" if proved.amount >= 0 else "refund"), proved.amount
    values = {
        "operation": proved.operation,
        "kind": kind,
        "channel": row.channel,
        "label": row.label,
        "amount": amount,
        "parameters": _NOT_ASKED_FOR,
        "index": proved.index,
        "attempt": proved.attempt,
        "nothing": bytes(16),
        "receipt": receipt,
        "note": note,
    }
    await change.execute(
        """
        insert into operation (operation, kind, channel, label, amount, parameters, status)
        values (%(operation)s, %(kind)s, %(channel)s, %(label)s, %(amount)s, %(parameters)s, 'done')
        on conflict (operation) do update set status = 'done', held = false, updated = now()
            where operation.status in ('queued', 'running')
        """,
        values,
    )
    # What was proved under the same number after signer and database went back was never bound.
    await change.execute(
        """
        delete from attempt using operation
        where attempt.operation = operation.operation and operation.status in ('queued', 'running')
          and attempt.channel = %(channel)s and index = %(index)s
          and attempt.attempt = %(attempt)s and attempt.operation <> %(operation)s
        """,
        values,
    )
    await change.execute(
        """
        insert into attempt (operation, channel, index, attempt, session, proof, receipt,
            service_note)
        values (%(operation)s, %(channel)s, %(index)s, %(attempt)s, %(nothing)s, '', %(receipt)s,
            %(note)s)
        on conflict do nothing
        """,
        values,
    )
    await change.execute(
        """
        update attempt set receipt = %(receipt)s, service_note = coalesce(%(note)s, service_note)
        where channel = %(channel)s and index = %(index)s and attempt = %(attempt)s
            and %(receipt)s::boolean is not null
        """,
        values,
    )
    change.event(
        "channel",
        "state_entered",
        channel=row.channel,
        label=row.label,
        operation=proved.operation,
        index=proved.index,
    )


async def enter_record(
    change: Change, row: Channel, record: Record, *, receipt: bool | None, note: str | None = None
) -> None:
    """Enter the attempts that the signer's record says led to the two newest states."""
    if record.previous is not None:
        await enter(change, row, record.previous, receipt=None)
    if record.reached is not None:
        await enter(change, row, record.reached, receipt=receipt, note=note)
