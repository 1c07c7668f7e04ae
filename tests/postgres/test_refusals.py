"""The server is there and does not work for us: locked, read-only, full, closed to us, too new."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from tests.flow.world import World
from tests.postgres.network import ProxiedNetwork, events
from tests.postgres.payments import (
    check_paid_once,
    execute,
    insisting,
    queue,
    refused_at_once,
    settled,
    terminate,
    until,
)
from zkchannels.devnet.service import Service


def _terminate_both(network: ProxiedNetwork) -> None:
    for name in ("customerd", "coffee"):
        terminate(network.cluster.dsn(), network.database(name))


@contextlib.contextmanager
def _session(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("table", ["channel", "operation", "lease"])
def test_rows_locked_by_somebody_else(world: World, network: ProxiedNetwork, table: str) -> None:
    """Rows that another session keeps locked hold up what writes them; then it goes on."""
    label = world.establish("1 ETH")
    with _session(network.direct("customerd")) as session:
        session.execute(f"lock table {table} in row exclusive mode")
        session.execute(f"select from {table} for no key update")
        if table == "lease":
            refusal = world.refused("pay", label=label, amount=1000)
            assert refusal["kind"] == "database_unavailable"
            operations = []
        else:
            operations = queue(world, label, 2)
        network.rpc("getinfo")
    network.wait_mode("ready")
    check_paid_once(world, label, operations)
    assert network.daemon.running


def test_a_deadlock_is_the_other_sessions_or_tried_again(
    world: World, network: ProxiedNetwork
) -> None:
    """A session that locks in the other order makes a deadlock: the payment is made anyway."""
    label = world.establish("1 ETH")
    with _session(network.direct("customerd")) as session:
        # The daemon's own limit comes first: it is the one whose transaction is rolled back.
        session.execute("set local deadlock_timeout = '60s'")
        session.execute("select from channel for no key update")
        operations = queue(world, label, 1)
        session.execute("select from lease for update")
    check_paid_once(world, label, operations)


def test_serializable_sessions(world: World, network: ProxiedNetwork) -> None:
    """Under the strictest isolation everything works, with what it makes fail tried again."""
    label = world.establish("1 ETH")
    name = network.database("customerd")
    turn = f"alter database {name} set default_transaction_isolation = "
    execute(network.cluster.dsn(), turn + "'serializable'")
    try:
        terminate(network.cluster.dsn(), name)
        operations = [insisting(world, "pay", label=label, amount=1000) for _ in range(5)]
        check_paid_once(world, label, operations)
    finally:
        execute(network.cluster.dsn(), turn + "'read committed'")
        terminate(network.cluster.dsn(), name)


@contextlib.contextmanager
def _read_only(network: ProxiedNetwork) -> Iterator[None]:
    name = network.database("customerd")
    turn = f"alter database {name} set default_transaction_read_only = "
    execute(network.cluster.dsn(), turn + "on")
    terminate(network.cluster.dsn(), name)
    yield
    execute(network.cluster.dsn(), turn + "off")


@contextlib.contextmanager
def _no_login(network: ProxiedNetwork) -> Iterator[None]:
    """Refuse the daemons' role, as for a password that was changed."""
    name = network.cluster.user
    admin = psycopg.conninfo.make_conninfo(network.cluster.dsn(), user="administrator")
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        execute(network.cluster.dsn(), "create role administrator superuser login")
    execute(admin, f"alter role {name} nologin")
    for database in ("customerd", "coffee"):
        terminate(admin, network.database(database))
    yield
    execute(admin, f"alter role {name} login")


@contextlib.contextmanager
def _no_database(network: ProxiedNetwork) -> Iterator[None]:
    """Take the database away, as while it is being restored."""
    name = network.database("customerd")
    execute(network.cluster.dsn(), f"alter database {name} allow_connections false")
    terminate(network.cluster.dsn(), name)
    execute(network.cluster.dsn(), f"alter database {name} rename to elsewhere")
    yield
    execute(
        network.cluster.dsn(),
        f"alter database elsewhere rename to {name}",
        f"alter database {name} allow_connections true",
    )


@contextlib.contextmanager
def _no_tables(network: ProxiedNetwork) -> Iterator[None]:
    """Leave an empty database, as at the beginning of a restore."""
    execute(
        network.direct("customerd"), "alter schema public rename to away", "create schema public"
    )
    yield
    execute(network.direct("customerd"), "drop schema public", "alter schema away rename to public")


@pytest.mark.parametrize(
    "refusing", [_read_only, _no_login, _no_database, _no_tables], ids=lambda way: way.__name__[1:]
)
def test_a_server_that_refuses(
    world: World,
    network: ProxiedNetwork,
    refusing: object,
) -> None:
    """While the server refuses us payments are refused at once; then all goes on by itself."""
    label = world.establish("1 ETH")
    operations = queue(world, label, 3)
    assert callable(refusing)
    with refusing(network):
        network.wait_info(lambda info: not info["database"])
        refused_at_once(world, label)
    check_paid_once(world, label, operations)
    for service in (network.daemon, network.merchants["coffee"].service):
        assert service.running
        assert not [line for line in events(service.log) if line["event"] == "failed"]


def test_too_many_connections(world: World, network: ProxiedNetwork) -> None:
    """With every connection of the server taken by others the daemons wait for theirs."""
    label = world.establish("1 ETH")
    with contextlib.ExitStack() as taken:
        session = taken.enter_context(psycopg.connect(network.cluster.dsn(), autocommit=True))
        ours = [network.database(name) for name in ("customerd", "coffee")]

        def crowded_out() -> bool:
            """End the daemons' sessions and be quicker than they are."""
            _take_all(network, taken)
            session.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = any(%s)",
                [ours],
            )
            _take_all(network, taken)
            return not world.rpc("getinfo")["database"]

        until(crowded_out)
        assert world.refused("pay", label=label, amount=1000)["kind"] == "database_unavailable"
    network.wait_mode("ready")
    check_paid_once(world, label, [insisting(world, "pay", label=label, amount=1000)])


def _take_all(network: ProxiedNetwork, taken: contextlib.ExitStack) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            taken.enter_context(psycopg.connect(network.cluster.dsn()))


@pytest.mark.parametrize("program", ["customerd", "coffee"])
def test_a_schema_of_a_newer_program(world: World, network: ProxiedNetwork, program: str) -> None:
    """A database that a newer program has used ends the start, with the reason in one line."""
    merchant = network.merchants["coffee"].service
    service: Service = network.daemon if program == "customerd" else merchant
    service.stop()
    component = "customerd" if program == "customerd" else "merchantd"
    newer = f"insert into schema_version values ('{component}', 999, '0999_newer.sql', '')"
    execute(network.direct(program), newer)
    try:
        service.launch()
        assert service.wait(60) == 1
        assert "0999_newer.sql, which this program does not know" in service.last_lines(3)
        assert "Traceback" not in service.last_lines(3)
    finally:
        execute(network.direct(program), "delete from schema_version where version = 999")
        service.stop()
    world.everything_runs()
    world.pay(world.establish("1 ETH"), 1)


def test_an_operation_at_work_outlives_a_refusal(world: World, network: ProxiedNetwork) -> None:
    """A call that waits for its payment while the database goes away gets the payment's outcome."""
    label = world.establish("1 ETH")
    operations = queue(world, label, 3)
    _terminate_both(network)
    assert settled(world, operations[-1])["status"] == "done"
    check_paid_once(world, label, operations)
