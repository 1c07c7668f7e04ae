"""Asking for a recovery: one unfinished operation per channel at the most."""

from __future__ import annotations

import hashlib
import secrets

import psycopg

from customerd.channels.record import Channel
from customerd.operations import queries as operations
from customerd.operations.queries import OperationRow
from customerd.recovery import queries as recovery
from customerd.store.events import Store
from customerd.store.writes import Writes

_PARAMETERS = hashlib.sha256(b"recover").digest()


async def request(store: Store, channel: Channel) -> OperationRow:
    """Return the unfinished recovery of a channel, or queue one."""
    while True:
        present = await recovery.unfinished_recovery(store.database, channel.channel)
        if present is not None:
            row = await operations.operation_by_id(store.database, present)
            assert row is not None
            return row
        writes = Writes()
        row = operations.insert_operation(
            writes,
            operation=secrets.token_bytes(16),
            kind="recover",
            channel=channel.channel,
            label=channel.label,
            escrow=channel.escrow,
            customer_balance=channel.customer_balance,
            amount=None,
            note="",
            force=False,
            parameters=_PARAMETERS,
            idempotency_key=None,
        )
        try:
            await store.write(writes)
        except psycopg.errors.UniqueViolation:
            continue  # somebody else was quicker, and asked for the same
        return row
