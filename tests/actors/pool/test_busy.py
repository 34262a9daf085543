"""A server that is there and cannot do it now: the holder is told to wait, in words, and nothing is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest
import trio

from db.driver.classify import Fault, classify
from db.errors import DatabaseBusy, DatabaseUnable, LeaseError
from db.tx import Tx
from tests.actors.pool_fixtures import pool_harness


async def _table(tx: Tx) -> None:
    await tx.execute("CREATE TABLE things (id integer PRIMARY KEY); INSERT INTO things VALUES (1)")


async def _count(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT count(*) FROM things")
    return found


def _after_a_write(*statements: str) -> Callable[[Tx], Awaitable[None]]:
    async def function(tx: Tx) -> None:
        await tx.execute("INSERT INTO things VALUES (2)")
        for statement in statements:
            await tx.execute(statement)

    return function


def _server_says(code: str) -> str:
    return f"DO $$BEGIN RAISE EXCEPTION 'as the server says it' USING ERRCODE = '{code}'; END$$"


REFUSALS = [
    pytest.param(("SET LOCAL statement_timeout = '20ms'", "SELECT pg_sleep(5)"), DatabaseBusy, "57014", id="slow"),
    pytest.param((_server_says("40P01"),), DatabaseBusy, "40P01", id="deadlock"),
    pytest.param((_server_says("40001"),), DatabaseBusy, "40001", id="serialization"),
    pytest.param(
        ("SET LOCAL transaction_read_only = on", "DELETE FROM things"), DatabaseUnable, "25006", id="read only"
    ),
    pytest.param((_server_says("53100"),), DatabaseUnable, "53100", id="disk full"),
    pytest.param((_server_says("53200"),), DatabaseUnable, "53200", id="out of memory"),
    pytest.param((_server_says("53300"),), DatabaseUnable, "53300", id="too many clients"),
]


@pytest.mark.parametrize(("statements", "kind", "code"), REFUSALS)
async def test_what_passes_is_not_now_and_not_the_holders_error(
    empty_database_dsn: str, statements: tuple[str, ...], kind: type[LeaseError], code: str
) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        with pytest.raises(kind, match=f'does not do "buy" now: .*{code}.*nothing was changed') as caught:
            await harness.pool.run("buy", _after_a_write(*statements))
        _is_chained(caught.value, code)
        assert await harness.pool.run("count", _count) == 1
        await harness.until_full()
        assert len(harness.state.idle) == harness.state.size, "the connection is as good as before"


async def test_a_row_that_another_session_holds_is_not_now(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        _, other = await harness.holder("other")
        locked, done = trio.Event(), trio.Event()

        async def hold() -> None:
            async with other.lease("hold", hold=10.0) as lease:
                await lease.execute("BEGIN; SELECT FROM things WHERE id = 1 FOR UPDATE")
                locked.set()
                await done.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await locked.wait()
            lock = ("SET LOCAL lock_timeout = '20ms'", "DELETE FROM things WHERE id = 1")
            with pytest.raises(DatabaseBusy, match="pg_blocking_pids") as caught:
                await harness.pool.run("delete", _after_a_write(*lock))
            _is_chained(caught.value, "55P03")
            done.set()


async def test_a_serialization_failure_at_the_commit_is_not_now(empty_database_dsn: str) -> None:
    async def refuse_commits(tx: Tx) -> None:
        await _table(tx)
        await tx.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END$$"
        )
        await tx.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", refuse_commits)
        with pytest.raises(DatabaseBusy) as caught:
            await harness.pool.run("buy", _after_a_write())
        _is_chained(caught.value, "40001")
        assert await harness.pool.run("count", _count) == 1


async def test_a_statement_of_an_open_lease_is_told_the_same(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        async with harness.pool.lease("report") as lease:
            with pytest.raises(DatabaseBusy, match='does not do "report" now') as caught:
                await lease.execute(_server_says("40P01"))
        _is_chained(caught.value, "40P01")


async def test_a_broken_rule_stays_the_error_that_business_code_looks_at(empty_database_dsn: str) -> None:
    async def look(tx: Tx) -> str:
        try:
            await tx.execute("INSERT INTO things VALUES (1)")
        except asyncpg.UniqueViolationError as error:
            return str(error.constraint_name)
        return ""

    async def look_and_raise(tx: Tx) -> None:
        assert await look(tx) == "things_pkey"
        raise KeyError("mine")

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        with pytest.raises(KeyError, match="mine"):
            await harness.pool.run("look", look_and_raise)
        with pytest.raises(asyncpg.UniqueViolationError):
            await harness.pool.run("twice", _after_a_write("INSERT INTO things VALUES (2)"))


def _is_chained(error: BaseException, code: str) -> None:
    cause = error.__cause__
    assert isinstance(cause, asyncpg.PostgresError)
    assert cause.sqlstate == code
    assert classify(error) is classify(cause), "the same means the same, under either name"
    assert classify(error) in (Fault.TRANSIENT, Fault.DOWN)
    assert isinstance(error, DatabaseBusy | DatabaseUnable)
    assert error.exit_code == (75 if classify(error) is Fault.TRANSIENT else 69), (
        "of a command: try again, or put it right"
    )
