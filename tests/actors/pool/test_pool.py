"""What an actor gets from a pool when nothing goes wrong, and when its own function does."""

from __future__ import annotations

import contextlib

import asyncpg
import pytest
import trio

from actors.pool.client import pool_of
from db.errors import LeaseMisused, NestedLease, TransactionLost
from db.lease.queue import Lane
from db.tx import Tx
from runtime import LeaseHeldAcrossCall, refuse_if_leased
from tests.actors.pool_fixtures import pool_harness, second_pool


async def _table(tx: Tx) -> None:
    await tx.execute("CREATE TABLE t (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")


async def _insert(tx: Tx, n: int) -> str:
    return await tx.execute("INSERT INTO t VALUES ($1)", n)


async def _count(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT count(*) FROM t")
    return found


async def test_run_commits_what_the_function_did(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        assert await harness.pool.run("insert", _insert, 7) == "INSERT 0 1"
        assert await harness.pool.run("count", _count) == 1
        await harness.until_full()


async def test_run_rolls_back_what_the_function_did_when_it_raises(empty_database_dsn: str) -> None:
    async def fail(tx: Tx) -> None:
        await _insert(tx, 1)
        raise KeyError("mine")

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        with pytest.raises(KeyError, match="mine"):
            await harness.pool.run("fail", fail)
        assert await harness.pool.run("count", _count) == 0
        assert len(harness.state.idle) == harness.state.size, "a plain error costs no quarantine"


async def test_run_is_read_committed_whatever_the_role_says(empty_database_dsn: str) -> None:
    async def level(tx: Tx) -> str:
        found: str = await tx.fetchval("SHOW transaction_isolation")
        return found

    async with pool_harness(empty_database_dsn) as harness:
        assert await harness.pool.run("level", level) == "read committed"


async def test_a_violation_found_at_commit_is_raised_and_nothing_is_kept(empty_database_dsn: str) -> None:
    async def twice(tx: Tx) -> None:
        await _insert(tx, 1)
        await _insert(tx, 1)

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        with pytest.raises(asyncpg.UniqueViolationError):
            await harness.pool.run("twice", twice)
        assert await harness.pool.run("count", _count) == 0


async def test_a_swallowed_server_error_does_not_pass_for_a_commit(empty_database_dsn: str) -> None:
    async def swallow(tx: Tx) -> str:
        await _insert(tx, 1)
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            await tx.execute("SELECT 1/0")
        return "all is well"

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        with pytest.raises(TransactionLost, match="swallow"):
            await harness.pool.run("swallow", swallow)
        assert await harness.pool.run("count", _count) == 0


async def test_a_function_cannot_end_its_transaction_itself(empty_database_dsn: str) -> None:
    async def commit(tx: Tx) -> None:
        await tx.execute("COMMIT")

    async with pool_harness(empty_database_dsn) as harness:
        with pytest.raises(LeaseMisused, match="ended its transaction by itself"):
            await harness.pool.run("commit", commit)
        await harness.until_full()


async def test_a_transaction_is_dead_after_its_function(empty_database_dsn: str) -> None:
    kept: list[Tx] = []

    async def keep(tx: Tx) -> None:
        await tx.execute("SELECT 1")
        kept.append(tx)

    async def use_the_other(_: Tx) -> None:
        await kept[0].execute("SELECT 1")

    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("keep", keep)
        with pytest.raises(LeaseMisused, match="ended"):
            await kept[0].execute("SELECT 1")
        with pytest.raises(LeaseMisused, match="ended"):
            await harness.pool.run("use the other", use_the_other)


async def test_every_session_carries_our_settings(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness, harness.pool.lease("settings") as lease:
        rows = await lease.fetch("SELECT name, setting FROM pg_settings")
        settings = {row["name"]: row["setting"] for row in rows}
    assert settings["application_name"] == "atlas/main"
    assert settings["statement_timeout"] == "10000"
    assert settings["lock_timeout"] == "3000"
    assert settings["idle_in_transaction_session_timeout"] == "15000"
    assert settings["client_connection_check_interval"] == "1000"


async def test_an_open_lease_runs_statements_transactions_and_bulk_loads(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        async with harness.pool.lease("load") as lease:
            await lease.run(_table)
            await lease.executemany("INSERT INTO t VALUES ($1)", [(n,) for n in range(10)])
            assert await lease.copy_records("t", [(n,) for n in range(10, 20)], ["n"]) == "COPY 10"
            assert await lease.fetchval("SELECT count(*) FROM t") == 20
            row = await lease.fetchrow("SELECT max(n) AS top FROM t")
            assert row is not None
            assert row["top"] == 19
        with pytest.raises(LeaseMisused, match="given back"):
            await lease.fetchval("SELECT 1")
        await harness.until_full()


async def test_a_transaction_left_open_in_a_lease_is_rolled_back(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        await harness.pool.run("create", _table)
        async with harness.pool.lease("forgetful") as lease:
            await lease.execute("BEGIN")
            await lease.execute("INSERT INTO t VALUES (1)")
        await harness.until_full()
        assert await harness.pool.run("count", _count) == 0


async def test_a_lease_inside_a_lease_is_refused_by_any_pool(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:

        async def nested(_: Tx) -> None:
            await harness.pool.run("inner", _count)

        with pytest.raises(NestedLease, match=r"outer.*is held"):
            await harness.pool.run("outer", nested)
        async with harness.pool.lease("outer"):
            with pytest.raises(NestedLease):
                await harness.pool.run("inner", _count, lane=Lane.SYSTEM)
        await second_pool(harness, empty_database_dsn)
        other = pool_of(harness.context, "pool.other")
        async with harness.pool.lease("outer"):
            with pytest.raises(NestedLease, match=r"a connection of pool\.other .*outer"):
                await other.run("inner", _one)
        assert await other.run("alone", _one) == 1


async def test_a_child_task_of_a_holder_can_neither_lease_nor_call_nor_use_the_lease(empty_database_dsn: str) -> None:
    refused: list[type[BaseException]] = []
    async with pool_harness(empty_database_dsn) as harness, harness.pool.lease("parent") as lease:

        async def child() -> None:
            for attempt in (lambda: harness.pool.run("inner", _count), lambda: lease.fetchval("SELECT 1")):
                try:
                    await attempt()
                except (NestedLease, LeaseMisused) as error:
                    refused.append(type(error))
            try:
                refuse_if_leased("GET http://node/")
            except LeaseHeldAcrossCall as error:
                refused.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    assert refused == [NestedLease, LeaseMisused, LeaseHeldAcrossCall]


async def test_a_task_started_under_a_lease_is_free_once_the_lease_is_closed(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness, trio.open_nursery() as nursery:
        go = trio.Event()
        counted: list[int] = []

        async def later() -> None:
            await go.wait()
            counted.append(await harness.pool.run("count", _one))

        async with harness.pool.lease("parent"):
            nursery.start_soon(later)
        go.set()
    assert counted == [1]


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


async def test_fencing_tokens_only_grow(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness:
        tokens = []
        for _ in range(5):
            async with harness.pool.lease("token"):
                tokens += list(harness.state.leases)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 5


async def test_inspect_names_holders_with_label_line_and_backend(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn) as harness, harness.pool.lease("looked at") as lease:
        pid = await lease.fetchval("SELECT pg_backend_pid()")
        state = harness.system.address(harness.ref)._actor.inspect()  # type: ignore[union-attr]  # it runs
        (held,) = state["holders"]  # type: ignore[misc]  # JSON
    assert held["label"] == "looked at"
    assert held["backend_pid"] == pid
    assert held["owner"] == "holder#1"
    assert "test_pool.py" in held["site"]
    assert state["state"] == "up"
