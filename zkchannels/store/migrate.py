"""Numbered SQL files per component, applied in one transaction under one advisory lock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from zkchannels.store.database import Database
from zkchannels.store.errors import MigrationError

__all__ = ["Component", "MigrationError", "migrate"]

# Any number will do as long as every program of the project takes the same.
_LOCK = int.from_bytes(b"customer")

_TABLE = """
create table if not exists schema_version (
    component text not null,
    version integer not null check (version > 0),
    name text not null,
    sha256 text not null,
    applied timestamptz not null default now(),
    primary key (component, version)
)
"""
_APPLIED = "select component, version, name, sha256 from schema_version order by version"


class _Migration(NamedTuple):
    component: str
    version: int
    name: str
    sha256: str
    statements: str

    def __str__(self) -> str:
        return f"{self.component}/{self.name}"


class _Applied(NamedTuple):
    component: str
    version: int
    name: str
    sha256: str


@dataclass(frozen=True)
class Component:
    """A part with tables of its own; `package` holds migrations/NNNN_name.sql, from 0001 on."""

    name: str
    package: str


async def migrate(database: Database, components: Iterable[Component]) -> list[str]:
    """Bring the schema of the components, in this order, to the version this program ships.

    Returns the names of what was applied now ("chain/0001_chain.sql"). All or nothing; any number
    of programs may do this at once, one of them applies it. Raises MigrationError when a file is
    missing, edited after it was applied, or failed, or when the database is newer than the program.
    """
    shipped = [migration for component in components for migration in _load(component)]
    if await database.fetch_one_value("select to_regclass('schema_version')") is not None:
        applied = await database.fetch(_APPLIED, row=_Applied)
        if not _pending(shipped, applied):
            return []

    async def apply(connection: AsyncConnection[Any]) -> list[str]:
        # Another program's migration, or a big table, takes as long as it takes.
        await connection.execute("set local statement_timeout = 0")
        await connection.execute("set local lock_timeout = 0")
        await connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        await connection.execute(_TABLE)
        rows = await (await connection.execute(_APPLIED)).fetchall()
        pending = _pending(shipped, [_Applied(*row) for row in rows])
        for migration in pending:
            await _apply(connection, migration)
        return [str(migration) for migration in pending]

    return await database.run(apply, answer_within=86_400)


def _load(component: Component) -> list[_Migration]:
    folder = resources.files(component.package) / "migrations"
    if not folder.is_dir():
        raise MigrationError(f"{component.package} has no folder of migrations")
    migrations = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".sql"):
            continue
        named = re.fullmatch(r"(\d{4})_[a-z0-9_]+\.sql", file.name)
        if named is None:
            raise MigrationError(f"{component.name}/{file.name} is not named NNNN_name.sql")
        statements = file.read_text("utf-8").replace("\r\n", "\n")
        sha256 = hashlib.sha256(statements.encode()).hexdigest()
        migrations.append(_Migration(component.name, int(named[1]), file.name, sha256, statements))
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise MigrationError(f"the migrations of {component.name} are not 0001, 0002, ...")
    return migrations


def _pending(shipped: list[_Migration], applied: list[_Applied]) -> list[_Migration]:
    """Return what is still to be applied, after checking that the rest is what was applied."""
    ours = {(migration.component, migration.version): migration for migration in shipped}
    components = {migration.component for migration in shipped}
    done = set()
    for row in applied:
        if row.component not in components:
            continue
        migration = ours.get((row.component, row.version))
        if migration is None:
            raise MigrationError(
                f"the database has {row.component}/{row.name}, which this program does not know:"
                " it was used by a newer one"
            )
        if migration.sha256 != row.sha256:
            raise MigrationError(f"{migration} is not what was applied to this database")
        done.add((row.component, row.version))
    pending = [migration for key, migration in ours.items() if key not in done]
    for migration in pending:
        if any(
            component == migration.component and version > migration.version
            for component, version in done
        ):
            raise MigrationError(f"{migration} was left out although later ones were applied")
    return pending


async def _apply(connection: AsyncConnection[Any], migration: _Migration) -> None:
    try:
        # Without parameters the simple protocol is used: many statements, and % is just a letter.
        await connection.execute(migration.statements)
    except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
        raise
    except psycopg.Error as error:
        if connection.closed:
            raise
        raise MigrationError(f"{migration}: {str(error).strip()}") from error
    if connection.info.transaction_status is not TransactionStatus.INTRANS:
        raise MigrationError(f"{migration} must not end the transaction it runs in")
    await connection.execute(
        "insert into schema_version (component, version, name, sha256) values (%s, %s, %s, %s)",
        [migration.component, migration.version, migration.name, migration.sha256],
    )
