"""The schema comes from numbered files, applied once, in order, by one process at a time."""

from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import trio

from db.errors import ClockRefused
from db.schema.demo_clock import set_clock_offset
from db.schema.describe import EXPECTED, describe_schema
from db.schema.migrate import Migration, MigrationError, check_schema, load_migrations, migrate
from db.tx import LockSpace
from tests.db.database import Connection, Database


async def run(database: Database, **options: object) -> tuple[str, ...]:
    async with database.connect() as connection:
        return await migrate(connection, **options)  # type: ignore[arg-type]  # each test passes options of the right type


async def test_an_empty_database_gets_every_migration_and_a_second_run_none(empty_database: Database) -> None:
    assert await run(empty_database) == tuple(str(migration) for migration in load_migrations())
    assert await run(empty_database) == ()
    async with empty_database.connect() as connection:
        await check_schema(connection)


async def test_the_migrated_schema_is_the_committed_one(empty_database: Database) -> None:
    await run(empty_database)
    async with empty_database.connect() as connection:
        actual = await describe_schema(connection)
    # After a deliberate change: `python -m tests.db.schema.write_schema`.
    assert actual.splitlines() == EXPECTED.read_text(encoding="utf-8").splitlines()


async def test_two_migrators_at_once_apply_each_file_once(empty_database: Database) -> None:
    applied: list[str] = []

    async def work() -> None:
        applied.extend(await run(empty_database))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work)
    assert sorted(applied) == [str(migration) for migration in load_migrations()]


async def test_waiting_for_another_migrator_is_bounded_and_names_it(empty_database: Database) -> None:
    async with empty_database.connect() as other:
        await other.execute("SET application_name = 'the other one'")
        await other.execute("BEGIN")
        await other.fetchval("SELECT pg_advisory_xact_lock($1, 0)", int(LockSpace.MIGRATION))
        with pytest.raises(MigrationError, match=r"the other one.*migration_wait \(now 0.3 s\)"):
            await run(empty_database, wait=0.3)
        await other.execute("ROLLBACK")
    assert len(await run(empty_database)) == len(load_migrations())


async def test_a_schema_newer_than_the_program_is_refused(empty_database: Database) -> None:
    await run(empty_database)
    async with empty_database.connect() as connection:
        await connection.execute("INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'x')")
        for attempt in (migrate, check_schema):
            with pytest.raises(MigrationError, match="newer than this program: it has 9999_from_the_future"):
                await attempt(connection)


async def test_an_outdated_or_empty_schema_is_named(empty_database: Database) -> None:
    async with empty_database.connect() as connection:
        with pytest.raises(MigrationError, match="no ATLAS schema"):
            await check_schema(connection)
        await migrate(connection, migrations=load_migrations()[:2])
        with pytest.raises(MigrationError, match="the first is 0003_ledger"):
            await check_schema(connection)


async def test_a_file_changed_after_its_release_is_refused(empty_database: Database) -> None:
    await run(empty_database)
    changed = [
        attrs.evolve(migration, checksum="other") if migration.version == 2 else migration
        for migration in load_migrations()
    ]
    with pytest.raises(MigrationError, match="0002_customers_and_prices was changed after it was applied"):
        await run(empty_database, migrations=changed)


async def test_a_failing_migration_leaves_no_trace_and_the_earlier_ones_stay(empty_database: Database) -> None:
    broken = Migration(3, "broken", "CREATE TABLE half (id int); SELECT 1 / 0", "x")
    with pytest.raises(MigrationError, match="0003_broken failed and was rolled back: division by zero"):
        await run(empty_database, migrations=[*load_migrations()[:2], broken])
    async with empty_database.connect() as connection:
        assert await connection.fetchval("SELECT to_regclass('half')") is None
        assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == 2
    assert (await run(empty_database))[0] == "0003_ledger"


async def test_an_old_server_is_refused() -> None:
    class Old(Connection):
        async def fetchval(self, query: str, /, *args: object) -> object:
            return "140011"

        async def execute(self, query: str, /, *args: object) -> str:
            return ""

    with pytest.raises(MigrationError, match=r"PostgreSQL 14\.11, the oldest supported is 15"):
        await migrate(Old(None))


def test_misnamed_files_and_gaps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("SELECT 1")
    (tmp_path / "0003_three.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="without gaps"):
        load_migrations(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "1-one.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"1-one\.sql"):
        load_migrations(other)


async def test_the_purpose_is_decided_once_and_production_keeps_its_clock(empty_database: Database) -> None:
    await run(empty_database)
    with pytest.raises(MigrationError, match="created for production, the configuration says demo"):
        await run(empty_database, purpose="demo")
    with pytest.raises(ClockRefused):
        await empty_database.run(set_clock_offset, timedelta(days=1))
    async with empty_database.connect() as connection:
        with pytest.raises(Exception, match="clock_offset_needs_demo_or_test"):
            await connection.execute("UPDATE database_identity SET clock_offset = '1 day'")
        with pytest.raises(Exception, match="decided when it is created"):
            await connection.execute("UPDATE database_identity SET purpose = 'test'")


async def test_a_demo_database_moves_its_clock(empty_database: Database) -> None:
    await run(empty_database, purpose="demo")
    await empty_database.run(set_clock_offset, timedelta(days=2))
    assert await empty_database.fetchval("SELECT atlas_now() - now()") == timedelta(days=2)
