"""What happens to databases and keys before a recovery: dumped, set back, lost, moved elsewhere."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.flow.world import World
from tests.nursery import ForkedNetwork
from zkchannels.jsonrpc.client import BlockingClient


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
            self.tables: dict[str, bytes] = {}
            for (name,) in names:
                with connection.cursor() as cursor:
                    statement = sql.SQL("copy {} to stdout").format(sql.Identifier(name))
                    with cursor.copy(statement) as copied:
                        self.tables[name] = b"".join(copied)

    def restore(self, dsn: str | None = None) -> None:
        """Set every table back, or another database's: as loading into an empty one would."""
        with psycopg.connect(dsn or self._dsn) as connection:
            connection.execute("set session_replication_role = replica")
            for name in self.tables:
                connection.execute(sql.SQL("delete from {}").format(sql.Identifier(name)))
            for name, rows in self.tables.items():
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


class Machine:
    """Another machine: a database, a signer and a daemon of its own, the same chain and merchants.

    It works as part of a network that shares all but these with the one it takes over from.
    """

    def __init__(self, lost: World, directory: Path) -> None:
        self._lost = lost
        self.directory = directory
        self.network = Takeover(lost.network)
        self.world = World(self.network, prefix="new")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.network.close()

    def take_over(self, *, words: str | None = "", backup: Path | None = None) -> None:
        """Stop the lost machine, start this one with its words (None: with others)."""
        self._lost.network.daemon.kill()
        self._lost.network.signer.kill()
        if words == "":
            self.network.words = self._lost.network.words
        self.network.take_over(backup)

    def killed_at_state(self, label: str, index: int) -> None:
        """Kill the daemon once it knows a state, and start it again."""
        with BlockingClient(str(self.network.socket), timeout=30) as client:
            client.call("subscribe", {"topics": ["channel"], "after": 0})
            for _, event in client.notifications():
                if event["label"] == label and event["details"].get("index", -1) >= index:
                    break
        self.network.daemon.kill()
        self.network.daemon.start()
        self.network.wait_mode("ready")


class Takeover(ForkedNetwork):
    """The customer's half of a network, beside the chain and the merchants of another."""

    def __init__(self, other: ForkedNetwork) -> None:
        short = Path(tempfile.mkdtemp(prefix="takeover-", dir=other.directory))
        super().__init__(
            short,
            cluster=other.cluster,
            merchants=tuple(other.merchants),
            delay=other.delay,
            margin=other.margin,
        )
        self.cluster = other.cluster
        self.chain = other.chain
        self.merchants = other.merchants
        self.certificates = other.directory / "merchants.pem"

    def take_over(self, backup: Path | None) -> None:
        """Start daemon and signer on nothing but the words."""
        for name in self.merchants:
            (self.directory / name).mkdir(exist_ok=True)
            text = (self.certificates.parent / name / "certificate.pem").read_text()
            (self.directory / name / "certificate.pem").write_text(text)
        self.start_daemon()
        if backup is not None:
            self.daemon.stop()
            self.config.write_text(self.config.read_text() + f'[backup]\ndirectory = "{backup}"\n')
            self.daemon.start()
        self.start_signer()
        self.wait_mode("ready")

    def close(self) -> None:
        """End what was started here."""
        self._stack.close()
