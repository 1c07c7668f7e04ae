"""Payments under disturbance, and what must be true of them afterwards on every side."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

import psycopg

from tests.flow.world import ETHER_UNITS, World
from tests.postgres.network import ProxiedNetwork
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError

AT_ONCE = 5.0
"""Seconds within which a refusal is an answer at once, on a busy machine."""


def queue(world: World, label: str, count: int) -> list[str]:
    """Queue payments of different amounts; return their operations."""
    return [insisting(world, "pay", label=label, amount=1000 + number) for number in range(count)]


def settled(world: World, operation: str) -> Any:
    """Return an operation's outcome, over whatever is away meanwhile."""
    while True:
        with contextlib.suppress(ConnectionLost, RpcError, OSError):
            return world.rpc("wait", operation=operation, timeout=1.0)


def insisting(world: World, method: str, **params: Any) -> Any:
    """Call again with the same idempotency key until the daemon has noticed that all is well."""
    key = secrets.token_hex(8)
    while True:
        try:
            return world.rpc(method, **params, idempotency_key=key, wait=False)["operation"]
        except RpcError as error:
            assert isinstance(error.data, dict)
            assert error.data["kind"] in ("database_unavailable", "safe_mode"), error


def mined(world: World, operation: str) -> Any:
    """Let blocks come until an operation has its outcome; return it."""
    while True:
        world.network.chain.mine()
        with contextlib.suppress(RpcError):
            return world.rpc("wait", operation=operation, timeout=0.2)


def check_paid_once(world: World, label: str, operations: list[str]) -> None:
    """Every payment has its outcome and both sides agree on what was paid; the channel pays on."""
    outcomes = [settled(world, operation) for operation in operations]
    for outcome in outcomes:
        # A merchant that cannot reach its own records may have put a payment off for too long.
        refused = outcome["status"] == "refused"
        assert outcome["status"] == "done" or refused, outcome
        assert not refused or outcome["error"]["kind"] == "merchant_unreachable", outcome
    done = [outcome for outcome in outcomes if outcome["status"] == "done"]
    paid = sum(outcome["amount"]["units"] for outcome in done)
    world.network.wait_mode("ready")
    assert world.balances(label) == (ETHER_UNITS - paid, paid)
    last = settled(world, insisting(world, "pay", label=label, amount=7))
    assert last["status"] == "done", last
    assert world.balances(label) == (ETHER_UNITS - paid - 7, paid + 7)


def merchant_books(network: ProxiedNetwork) -> tuple[int, int]:
    """Return count and sum of the payments whose old state the merchant has revoked."""
    with psycopg.connect(network.direct("coffee"), autocommit=True) as connection:
        row = connection.execute(
            "select count(*), coalesce(sum(amount), 0) from payment where token_answer is not null"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def refused_at_once(world: World, label: str) -> None:
    """Without the database a payment is refused as such at once, and the daemon says so."""
    before = time.monotonic()
    assert world.refused("pay", label=label, amount=1)["kind"] == "database_unavailable"
    info = world.rpc("getinfo")
    assert time.monotonic() - before < AT_ONCE
    assert info["database"] is False
    assert info["mode"] == "safe"


def execute(dsn: str, *statements: str) -> None:
    """Run statements as the test's own session, each committed by itself."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def terminate(dsn: str, database: str) -> None:
    """End every other session on a database, and wait until they are gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = %s and pid <> pg_backend_pid() and backend_type = 'client backend'",
            [database],
        )


def until(holds: Callable[[], object], *, within: float = 60.0) -> None:
    """Look again until a condition holds on a foreign process that offers no event."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
