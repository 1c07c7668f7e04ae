"""What happens to databases and keys before a recovery: dumped, set back, lost, moved elsewhere."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.flow.world import World


def dsn_of(world: World) -> str:
    """The daemon's database."""
    return str(tomllib.loads(world.network.config.read_text())["database"]["dsn"])


class Snapshot:
    """All rows of a database as they were at one moment: an old dump."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        with psycopg.connect(dsn) as connection:
            connection.execute("set transaction isolation level repeatable read")
            names = connection.execute(
                "select tablename from pg_tables where schemaname = 'public'"
                " and tablename not in ('schema_version', 'lease')"
            ).fetchall()
            self._tables: dict[str, bytes] = {}
            for (name,) in names:
                with connection.cursor() as cursor:
                    statement = sql.SQL("copy {} to stdout").format(sql.Identifier(name))
                    with cursor.copy(statement) as copied:
                        self._tables[name] = b"".join(copied)

    def restore(self) -> None:
        """Set every table back, as loading the dump into an empty database would."""
        with psycopg.connect(self._dsn) as connection:
            connection.execute("set session_replication_role = replica")
            for name in self._tables:
                connection.execute(sql.SQL("delete from {}").format(sql.Identifier(name)))
            for name, rows in self._tables.items():
                with connection.cursor() as cursor:
                    statement = sql.SQL("copy {} from stdin").format(sql.Identifier(name))
                    with cursor.copy(statement) as copied:
                        copied.write(rows)


class SignerCopy:
    """A copy of the signer's record, which should never be in a backup."""

    def __init__(self, world: World) -> None:
        self._store = world.network.signer_directory / "signer.sqlite"
        self._copy = world.network.directory / "signer-copy.sqlite"
        with sqlite3.connect(self._store) as source, sqlite3.connect(self._copy) as target:
            source.backup(target)

    def restore(self) -> None:
        """Set the signer back; it must not be running."""
        for rest in self._store.parent.glob(f"{self._store.name}-*"):
            rest.unlink()
        shutil.copyfile(self._copy, self._store)


def set_back(world: World, snapshot: Snapshot, signer: SignerCopy | None = None) -> None:
    """Stop the customer's programs, go back in time, and start them again."""
    world.network.daemon.kill()
    if signer is not None:
        world.network.signer.kill()
        signer.restore()
    snapshot.restore()
    world.network.daemon.start()
    if signer is not None:
        world.network.signer.start()
    world.network.wait_mode("ready")


def rows(world: World, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the daemon's database."""
    with psycopg.connect(dsn_of(world)) as connection:
        return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]


def run(command: list[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(command, capture_output=True, text=True, check=False, input=given)


def recovered(world: World, label: str) -> Any:
    """Return a channel once it pays again."""
    return world.network.wait_channel(label, lambda channel: channel["status"] == "idle")


def merchant_dsn(world: World, name: str = "coffee") -> str:
    """A merchant's database."""
    config = Path(world.network.merchants[name].config)
    return str(tomllib.loads(config.read_text())["database"])
