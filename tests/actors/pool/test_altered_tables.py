"""Tables are altered while a pool serves: no caller hears of a statement that was prepared before."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import trio

from actors.pool.settings import PoolSettings
from db.customers import add_customer
from db.driver.classify import is_stale_statement
from db.schema.migrate import load_migrations
from db.tx import Tx
from tests.actors.pool_fixtures import pool_harness
from tests.postgres_cluster import Cluster

REPOSITORY = Path(__file__).parent.parent.parent.parent


async def _all(tx: Tx) -> int:
    return len(await tx.fetch("SELECT * FROM t"))


def _name(dsn: str) -> str:
    return dsn.rpartition("?")[0].rpartition("/")[2]


async def test_a_column_more_costs_no_caller_an_error(cluster: Cluster, empty_database_dsn: str) -> None:
    name = _name(empty_database_dsn)
    cluster.sql("CREATE TABLE t (id int)", name)
    async with pool_harness(empty_database_dsn, PoolSettings(size=3, reserved=0)) as harness:
        for number in range(3):
            async with trio.open_nursery() as nursery:  # each connection has prepared it
                for _ in range(3):
                    nursery.start_soon(harness.pool.run, "all", _all)
            cluster.sql(f"ALTER TABLE t ADD COLUMN c{number} int", name)
        for _ in range(6):
            assert await harness.pool.run("all", _all) == 0
        async with harness.pool.lease("open") as lease:
            cluster.sql("ALTER TABLE t ADD COLUMN more int", name)
            assert await lease.fetch("SELECT * FROM t") == []
            assert await lease.run(_all) == 0


async def test_what_was_done_before_is_rolled_back_and_done_once(cluster: Cluster, empty_database_dsn: str) -> None:
    name = _name(empty_database_dsn)
    cluster.sql("CREATE TABLE t (id int); CREATE TABLE done (id int)", name)
    calls = 0

    async def work(tx: Tx, number: int) -> None:
        nonlocal calls
        calls += 1
        await tx.execute("INSERT INTO done VALUES ($1)", number)
        await tx.fetch("SELECT * FROM t")

    async with pool_harness(empty_database_dsn, PoolSettings(size=1, reserved=0)) as harness:
        await harness.pool.run("work", work, 1)
        cluster.sql("ALTER TABLE t ADD COLUMN more int", name)
        await harness.pool.run("work", work, 2)
    assert calls == 3
    assert cluster.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM done", name) == "1,2"


async def test_a_table_that_never_rests_ends_in_the_error_itself(cluster: Cluster, empty_database_dsn: str) -> None:
    name = _name(empty_database_dsn)
    cluster.sql("CREATE TABLE t (id int)", name)
    calls = 0

    async def work(tx: Tx) -> None:
        nonlocal calls
        calls += 1
        await _all(tx)
        raise seen

    async with pool_harness(empty_database_dsn, PoolSettings(size=1, reserved=0)) as harness:
        await harness.pool.run("all", _all)
        cluster.sql("ALTER TABLE t ADD COLUMN more int", name)
        seen: Exception = LookupError()
        async with harness.pool.lease("prepare") as lease:
            try:
                await lease.run(lambda tx: tx.fetch("SELECT 1 WHERE false"))
                await lease.execute("BEGIN")
                await lease.fetch("SELECT * FROM t")
            except Exception as error:  # noqa: BLE001  which one is asserted below
                seen = error
        assert is_stale_statement(seen)
        with pytest.raises(type(seen)):
            await harness.pool.run("work", work)
    assert calls == 3


async def test_an_old_program_serves_on_while_a_newer_one_migrates(
    cluster: Cluster, database_dsn: str, tmp_path: Path
) -> None:
    newest = load_migrations()[-1].version + 1
    for room in ("db", "runtime"):
        shutil.copytree(REPOSITORY / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "db" / "schema" / "migrations" / f"{newest:04}_a_newer_release.sql").write_text(
        "ALTER TABLE customers ADD COLUMN newer_release text NOT NULL DEFAULT 'unknown';\n"
        "CREATE TABLE of_a_newer_release (id int PRIMARY KEY);\n"
    )
    program = (
        "import sys, trio\n"
        "from db.driver.session import open_session\n"
        "from db.schema.migrate import migrate\n"
        "async def main():\n"
        "    async with open_session(sys.argv[1], 'atlas/newer') as session:\n"
        "        print(*await migrate(session.statements))\n"
        "trio.run(main)\n"
    )
    added: list[int] = []
    migrated = trio.Event()

    async def serve(pool_number: int) -> None:
        after = 0
        while after < 10:
            after += migrated.is_set()
            telegram_id = 1_000_000 * (pool_number + 1) + len(added)
            await harness.pool.run("add", add_customer, telegram_id)
            added.append(telegram_id)
            await harness.pool.run("look", lambda tx: tx.fetch("SELECT * FROM customers LIMIT 1"))

    async with pool_harness(database_dsn, PoolSettings(size=3, reserved=0)) as harness, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(serve, number)
        done = await trio.run_process(
            [sys.executable, "-c", program, database_dsn],
            capture_stdout=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        migrated.set()
    assert b"a_newer_release" in done.stdout
    name = _name(database_dsn)
    assert cluster.sql("SELECT count(*) FROM customers WHERE newer_release = 'unknown'", name) == str(len(added))
