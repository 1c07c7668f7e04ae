"""Asking for a recovery: one unfinished operation per channel at the most."""

from __future__ import annotations

import hashlib
import secrets

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Status
from customerd.operations import queries as operations
from customerd.operations.queries import OperationRow
from customerd.recovery import queries as recovery
from customerd.store.events import Change, Store
from customerd.store.writes import Writes

_PARAMETERS = hashlib.sha256(b"recover").digest()


async def request(store: Store, channel: Channel) -> OperationRow:
    """Return the unfinished recovery of a channel, or queue one."""
    operation = secrets.token_bytes(16)

    async def write(change: Change) -> OperationRow | bytes:
        row = await channels.lock_channel(
            change.connection, channel.channel, allowed=frozenset(Status)
        )
        present = await recovery.unfinished_recovery(change, row.channel)
        if present is not None:
            return present
        writes = Writes()
        queued = operations.insert_operation(
            writes,
            operation=operation,
            kind="recover",
            channel=row.channel,
            label=row.label,
            amount=None,
            note="",
            force=False,
            parameters=_PARAMETERS,
            idempotency_key=None,
        )
        await change.include(writes)
        return queued

    found = await store.change(write)
    if isinstance(found, OperationRow):
        return found
    row = await operations.operation_by_id(store.database, found)
    assert row is not None
    return row
