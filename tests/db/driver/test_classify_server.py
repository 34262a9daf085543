"""The table of `db.driver.classify` on errors of a real server: all its codes, and by their causes those that can be provoked."""

from __future__ import annotations

import asyncpg
import pytest
import trio

from db.driver import classify as table
from db.driver.classify import Fault, classify, sqlstate
from db.driver.connection import SessionLimits
from db.driver.session import Session, open_session
from tests.run_queue import PATIENCE

CODES = table._BY_CODE | {kind + "000": fault for kind, fault in table._BY_CLASS.items()}


async def _fails(session: Session, statement: str) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.statements.execute(statement)
    return caught.value


async def test_every_code_of_the_table_is_recognised_when_the_server_sends_it(empty_database_dsn: str) -> None:
    found: dict[str, Fault] = {}
    async with open_session(empty_database_dsn, "atlas/test") as session:
        for code in CODES:
            error = await _fails(session, f"DO $$BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{code}'; END$$")
            assert sqlstate(error) == code
            found[code] = classify(error)
    assert found == CODES


async def test_what_is_not_in_the_table_is_permanent(empty_database_dsn: str) -> None:
    statements = {
        "23505": "CREATE TEMP TABLE t (n int UNIQUE); INSERT INTO t VALUES (1), (1)",
        "23514": "CREATE TEMP TABLE c (n int CHECK (n > 0)); INSERT INTO c VALUES (0)",
        "22012": "SELECT 1/0",
        "42P01": "SELECT * FROM nothing_like_that",
        "42601": "SELEKT",
        "P0001": "DO $$BEGIN RAISE EXCEPTION 'our own'; END$$",
    }
    async with open_session(empty_database_dsn, "atlas/test") as session:
        for code, statement in statements.items():
            error = await _fails(session, statement)
            assert (sqlstate(error), classify(error)) == (code, Fault.PERMANENT)


async def test_a_server_that_takes_no_writes_is_down(empty_database_dsn: str) -> None:
    async with open_session(empty_database_dsn, "atlas/test") as session:
        await session.statements.execute("SET default_transaction_read_only = on")
        error = await _fails(session, "CREATE TABLE t ()")
    assert (sqlstate(error), classify(error)) == ("25006", Fault.DOWN)


async def test_the_servers_own_limits_are_transient(empty_database_dsn: str) -> None:
    limits = SessionLimits(statement=0.1, lock=0.05, idle_in_transaction=0.1)
    async with (
        open_session(empty_database_dsn, "atlas/test") as other,
        open_session(empty_database_dsn, "atlas/test", limits=limits) as session,
    ):
        error = await _fails(session, "SELECT pg_sleep(5)")
        assert (sqlstate(error), classify(error)) == ("57014", Fault.TRANSIENT)
        await other.statements.execute("CREATE TABLE t ()")
        await other.statements.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        error = await _fails(session, "SELECT * FROM t")
        assert (sqlstate(error), classify(error)) == ("55P03", Fault.TRANSIENT)
        await other.statements.execute("ROLLBACK")
        pid = await session.statements.fetchval("SELECT pg_backend_pid()")
        await session.statements.execute("BEGIN")
        with trio.fail_after(PATIENCE):
            while await other.statements.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
                pass
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
            await session.statements.execute("SELECT 1")
        assert classify(caught.value, connection_lost=True) is Fault.TRANSIENT


async def test_a_deadlock_and_a_serialization_failure_are_transient(empty_database_dsn: str) -> None:
    failed: list[asyncpg.PostgresError] = []

    async def cross(session: Session, first: int, second: int) -> None:
        await session.statements.execute(f"SET deadlock_timeout = '20ms'; BEGIN; UPDATE t SET n = n WHERE id = {first}")
        ready.append(first)
        while len(ready) < 2:
            await trio.lowlevel.checkpoint()
        try:
            await session.statements.execute(f"UPDATE t SET n = n WHERE id = {second}")
        except asyncpg.PostgresError as error:
            failed.append(error)
        await session.statements.execute("ROLLBACK")

    ready: list[int] = []
    async with (
        open_session(empty_database_dsn, "atlas/test") as one,
        open_session(empty_database_dsn, "atlas/test") as other,
    ):
        await one.statements.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0)")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cross, one, 1, 2)
                nursery.start_soon(cross, other, 2, 1)
        assert [(sqlstate(error), classify(error)) for error in failed] == [("40P01", Fault.TRANSIENT)]
        await one.statements.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM t")
        await other.statements.execute("UPDATE t SET n = 1")
        error = await _fails(one, "UPDATE t SET n = 2")
    assert (sqlstate(error), classify(error)) == ("40001", Fault.TRANSIENT)
