"""Migrations: numbered files, applied once, refused when they do not fit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from zkchannels.store.database import Database
from zkchannels.store.migrate import Component, MigrationError, migrate

_NUMBERS = itertools.count()


class Package:
    """A Python package made for one test, with migrations in it."""

    def __init__(self, directory: Path) -> None:
        self.name = f"migrating_{next(_NUMBERS)}"
        self.folder = directory / self.name / "migrations"
        self.folder.mkdir(parents=True)
        (self.folder.parent / "__init__.py").touch()
        self.component = Component("part", self.name)

    def write(self, name: str, statements: str) -> None:
        """Add or replace a migration."""
        (self.folder / name).write_text(statements)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package with two migrations."""
    monkeypatch.syspath_prepend(tmp_path)
    package = Package(tmp_path)
    package.write(
        "0001_first.sql", "create table a (x int); -- 100 % literal\ninsert into a values (1);"
    )
    package.write("0002_second.sql", "create table b (x int);")
    return package


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """An empty database."""
    async with Database(database_dsn, application_name="test") as database:
        yield database


async def tables(database: Database) -> list[str]:
    """Return the tables there are."""
    return await database.fetch(
        "select tablename from pg_tables where schemaname = 'public' order by 1", row=str
    )


async def test_applies_once(database: Database, package: Package) -> None:
    """All files are applied in order by the first call and none by the second; a new one later."""
    assert await migrate(database, [package.component]) == [
        "part/0001_first.sql",
        "part/0002_second.sql",
    ]
    assert await tables(database) == ["a", "b", "schema_version"]
    assert await migrate(database, [package.component]) == []
    package.write("0003_third.sql", "drop table b;")
    assert await migrate(database, [package.component]) == ["part/0003_third.sql"]
    assert await tables(database) == ["a", "schema_version"]


async def test_components_are_apart(database: Database, package: Package, tmp_path: Path) -> None:
    """Each component counts its own files, in one database, also when called for separately."""
    other = Package(tmp_path)
    other.write("0001_other.sql", "create table other (x int references a2 (x));")
    second = Component("other", other.name)
    package.write("0002_second.sql", "create table a2 (x int primary key);")
    assert await migrate(database, [package.component, second]) == [
        "part/0001_first.sql",
        "part/0002_second.sql",
        "other/0001_other.sql",
    ]
    assert await migrate(database, [package.component]) == []
    assert await migrate(database, [second]) == []


async def test_racing_programs_apply_once(database_dsn: str, package: Package) -> None:
    """Several programs that start at once on an empty database: one applies, the others wait."""

    async def start() -> list[str]:
        async with Database(database_dsn, application_name="test") as database:
            return await migrate(database, [package.component])

    applied = await asyncio.gather(*(start() for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, 2]


async def test_failing_file_undoes_all(database: Database, package: Package) -> None:
    """When a file fails, nothing of the files before it stays, and the error names the file."""
    package.write("0003_third.sql", "create table c (x int);\nselect nothing_like_this();")
    with pytest.raises(MigrationError, match=r"part/0003_third\.sql: .*nothing_like_this"):
        await migrate(database, [package.component])
    assert await tables(database) == []


async def test_edited_file_is_refused(database: Database, package: Package) -> None:
    """A file that changed after it was applied is refused, but not for its line ends."""
    await migrate(database, [package.component])
    text = (package.folder / "0001_first.sql").read_text()
    (package.folder / "0001_first.sql").write_bytes(text.replace("\n", "\r\n").encode())
    assert await migrate(database, [package.component]) == []
    package.write("0001_first.sql", text + " ")
    with pytest.raises(MigrationError, match="not what was applied"):
        await migrate(database, [package.component])


async def test_newer_database_is_refused(database: Database, package: Package) -> None:
    """A database that a newer program migrated is refused by the older one."""
    await migrate(database, [package.component])
    (package.folder / "0002_second.sql").unlink()
    with pytest.raises(MigrationError, match="newer"):
        await migrate(database, [package.component])


async def test_gap_is_refused(database: Database, package: Package) -> None:
    """Numbers must be without gap, in the files as in the database."""
    package.write("0004_fourth.sql", "select 1;")
    with pytest.raises(MigrationError, match="0001, 0002"):
        await migrate(database, [package.component])
    package.write("0003_third.sql", "select 1;")
    await migrate(database, [package.component])
    await database.run(
        lambda connection: connection.execute("delete from schema_version where version = 2")
    )
    with pytest.raises(MigrationError, match="left out"):
        await migrate(database, [package.component])


async def test_wrong_name_is_refused(database: Database, package: Package) -> None:
    """A file whose name is not NNNN_name.sql is an error, not silently left out."""
    package.write("3_third.sql", "select 1;")
    with pytest.raises(MigrationError, match="NNNN_name"):
        await migrate(database, [package.component])


async def test_package_without_migrations_is_refused(database: Database) -> None:
    """A component whose package ships no migrations is a mistake in the packaging."""
    with pytest.raises(MigrationError, match="no folder"):
        await migrate(database, [Component("part", "zkchannels.service")])


async def test_file_must_not_commit(database: Database, package: Package) -> None:
    """A file that ends the transaction is refused: it would break all or nothing."""
    package.write("0003_third.sql", "create table c (x int); commit; create table d (x int);")
    with pytest.raises(MigrationError, match="must not end the transaction"):
        await migrate(database, [package.component])
