"""Whatever one holder does to the session, the next one gets it as it was; what changes nothing costs nothing."""

from __future__ import annotations

import pytest
import trio

from actors.pool import events as metrics
from actors.pool.settings import PoolSettings
from db.driver.statements import Effect, effect_of
from db.errors import LeaseMisused
from db.tx import Tx
from tests.actors.pool_fixtures import POOL, pool_harness
from tests.postgres_cluster import Cluster

ONE = PoolSettings(size=1, reserved=0)
CHANGES = {
    "SET": "SET statement_timeout = '77s'",
    "set_config": "SELECT set_config('lock_timeout', '77s', false)",
    "read only": "SET default_transaction_read_only = on",
    "characteristics": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "role": "SET ROLE pg_monitor",
    "temporary table": "CREATE TEMP TABLE left_over (id int)",
    "into temporary": "SELECT 1 AS id INTO TEMPORARY left_over",
    "in pg_temp": "CREATE TABLE pg_temp.left_over (id int)",
    "LISTEN": "LISTEN left_over",
    "session lock": "SELECT pg_advisory_lock(7)",
    "shared lock": "SELECT pg_try_advisory_lock_shared(7, 7)",
    "PREPARE": "PREPARE left_over AS SELECT 1",
    "cursor": "DECLARE left_over CURSOR WITH HOLD FOR SELECT 1",
    "DO": "DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$",
    "among others": "SELECT 1; /* first */ SET work_mem = '77MB'",
}
LEFT = """
SELECT 'setting ' || name || ' ' || setting FROM pg_settings WHERE source = 'session'
UNION ALL SELECT 'role ' || current_user WHERE current_user <> session_user
UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'
UNION ALL SELECT 'channel ' || pg_listening_channels()
UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements WHERE name = 'left_over'
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name = 'left_over'
"""


async def _left(tx: Tx) -> list[str]:
    return [row["?column?"] for row in await tx.fetch(LEFT)]


async def _write(tx: Tx) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS written (id int)")


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
async def test_what_a_holder_leaves_in_the_session_reaches_no_other(empty_database_dsn: str, statement: str) -> None:
    async def change(tx: Tx) -> None:
        await tx.execute(statement)

    async with pool_harness(empty_database_dsn, ONE) as harness:
        with trio.fail_after(60):
            await harness.pool.run("change", change)
            assert await harness.pool.run("next", _left) == []
            await harness.pool.run("write", _write)
            async with harness.pool.lease("change") as lease:
                await lease.execute(statement)
            assert await harness.pool.run("next", _left) == []
            await harness.pool.run("write", _write)


async def test_a_session_that_was_reset_keeps_the_settings_of_ours(empty_database_dsn: str) -> None:
    async def change(tx: Tx) -> None:
        await tx.execute("SET statement_timeout = 0; SET timezone = 'Asia/Tokyo'")

    async def settings(tx: Tx) -> list[str]:
        names = ("statement_timeout", "lock_timeout", "timezone", "application_name")
        return [await tx.fetchval("SELECT current_setting($1)", name) for name in names]

    async with pool_harness(empty_database_dsn, ONE) as harness:
        before = await harness.pool.run("before", settings)
        await harness.pool.run("change", change)
        assert await harness.pool.run("after", settings) == before


async def test_usual_statements_cost_no_reset(empty_database_dsn: str) -> None:
    async def usual(tx: Tx) -> None:
        await tx.execute("SET LOCAL lock_timeout = '1s'")
        await tx.execute("SELECT set_config('lock_timeout', '1s', true)")
        await tx.execute("SELECT pg_advisory_xact_lock(1, 1)")
        await tx.execute("CREATE TABLE IF NOT EXISTS t (temperature int, note text)")
        await tx.execute("SAVEPOINT s; ROLLBACK TO SAVEPOINT s; RELEASE s")
        await tx.execute("UPDATE t SET note = 'SET x; LISTEN y; COMMIT'")
        await tx.fetch("SELECT temperature FROM t WHERE note = $1", "BEGIN")

    async with pool_harness(empty_database_dsn, ONE) as harness:
        cleaned = metrics.QUARANTINED.labels(POOL)
        before = cleaned.value
        for _ in range(3):
            await harness.pool.run("usual", usual)
        assert cleaned.value == before


@pytest.mark.parametrize(
    "statements",
    [
        ("COMMIT", "BEGIN"),
        ("COMMIT; BEGIN",),
        ("/* so */ end;", "start transaction"),
        ("ROLLBACK AND CHAIN",),
        ("abort",),
    ],
)
@pytest.mark.parametrize("swallow", [True, False])
async def test_a_function_cannot_end_its_transaction_and_begin_another(
    cluster: Cluster, empty_database_dsn: str, statements: tuple[str, ...], swallow: bool
) -> None:
    async def cheat(tx: Tx) -> None:
        await tx.execute("INSERT INTO t VALUES (1)")
        for statement in statements:
            try:
                await tx.execute(statement)
            except LeaseMisused:
                if not swallow:
                    raise

    name = empty_database_dsn.rpartition("?")[0].rpartition("/")[2]
    cluster.sql("CREATE TABLE t (id int)", name)
    async with pool_harness(empty_database_dsn, ONE) as harness:
        with pytest.raises(LeaseMisused, match="begun or ended its transaction by itself"):
            await harness.pool.run("cheat", cheat)
        assert await harness.pool.run("next", _left) == []
    assert cluster.sql("SELECT count(*) FROM t", name) == "0"


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("SELECT 1", Effect(0)),
        ("UPDATE t SET a = 1", Effect(0)),
        ("WITH x AS (SELECT 1) SELECT * FROM x", Effect(0)),
        ("SELECT 'it''s; COMMIT'", Effect(0)),
        (r"SELECT E'\'; COMMIT; --'", Effect(0)),
        ("SELECT $a$; COMMIT; $a$", Effect(0)),
        ("-- COMMIT\nSELECT 1", Effect(0)),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", Effect(0)),
        ("SET CONSTRAINTS ALL DEFERRED", Effect(0)),
        ("ROLLBACK TO s", Effect(0)),
        ("ROLLBACK WORK TO SAVEPOINT s", Effect(0)),
        ("rollback", Effect.TRANSACTION),
        ("SELECT 1;\n commit and chain", Effect.TRANSACTION),
        ("PREPARE TRANSACTION 'x'", Effect.TRANSACTION),
        ("/* a */ -- b\n SET x = 1", Effect.SESSION),
        ('SELECT "pg_advisory_lock"(1)', Effect.SESSION),
        ("SET LOCAL a = 1; SET b = 2", Effect.SESSION),
        ("DISCARD ALL", Effect.SESSION),
    ],
)
def test_the_effect_of_a_statement_is_read_from_its_text(text: str, effect: Effect) -> None:
    assert effect_of(text) == effect
