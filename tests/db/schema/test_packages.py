"""Packages beside ours have migrations and tables of their own, in a schema of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.schema.migrate import MigrationError
from db.schema.packages import check_packages, migrate_packages, package_migrations
from tests.db.database import Database

BEGIN = "CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, telegram_id bigint NOT NULL);"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `my_shop` with one migration; returns its folder of migrations."""
    files = tmp_path / "my_shop" / "migrations"
    files.mkdir(parents=True)
    (files.parent / "__init__.py").touch()
    (files / "0001_begin.sql").write_text(BEGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield files
    package_migrations.__globals__["load_migrations"].cache_clear()


async def migrated(database: Database) -> tuple[str, ...]:
    package_migrations.__globals__["load_migrations"].cache_clear()
    async with database.connect() as connection:
        return await migrate_packages(connection, ["my_shop"])


async def test_a_packages_tables_are_its_own_even_under_a_name_of_ours(database: Database, package: Path) -> None:
    assert await migrated(database) == ("my_shop/0001_begin",)
    assert await migrated(database) == ()
    async with database.connect() as connection:
        await connection.execute("INSERT INTO my_shop.customers (telegram_id) VALUES (1)")
        assert await connection.fetchval("SELECT count(*) FROM public.customers") == 0
        assert await connection.fetchval("SHOW search_path") == '"$user", public'
        await check_packages(connection, ["my_shop"])
        (package / "0002_more.sql").write_text("ALTER TABLE customers ADD seen boolean; SELECT 1/0;")
        package_migrations.__globals__["load_migrations"].cache_clear()
        with pytest.raises(MigrationError, match="my_shop lack 1 migrations, the first is 0002_more"):
            await check_packages(connection, ["my_shop"])
    with pytest.raises(MigrationError, match="my_shop/0002_more failed and was rolled back: division by zero"):
        await migrated(database)
    (package / "0002_more.sql").write_text("ALTER TABLE customers ADD seen boolean;")
    assert await migrated(database) == ("my_shop/0002_more",)
    (package / "0001_begin.sql").write_text(BEGIN + " -- changed")
    with pytest.raises(MigrationError, match="my_shop/0001_begin was changed after it was applied"):
        await migrated(database)
    (package / "0001_begin.sql").write_text(BEGIN)
    (package / "0002_more.sql").unlink()
    with pytest.raises(MigrationError, match="newer than the package"):
        await migrated(database)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("public", "cannot be the name of a schema"),
        ("pg_catalog", "cannot be the name of a schema"),
        ("x; DROP TABLE customers", "cannot be the name of a schema"),
        ("no_such_package", "no package 'no_such_package'; install it"),
        ("json", "no folder `migrations`"),
    ],
)
def test_a_package_that_is_none_is_refused_with_what_would_do(name: str, what: str) -> None:
    with pytest.raises(MigrationError, match=what):
        package_migrations(name)
