"""Both bridges keep the same promises; everything here runs against a real server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import trio

from db.driver import bridge_choice
from db.driver.bridge import Bridge, DriverConnection, open_loop
from db.driver.bridge_choice import BridgeUnfit, self_test
from db.driver.bridge_plain import PlainBridge
from db.driver.stepping import InlineBridge, step
from db.errors import ForeignAwait
from tests.postgres_cluster import Cluster
from tests.run_queue import PATIENCE
from tests.stopping import stop

BRIDGES = [InlineBridge, PlainBridge]


@pytest.fixture(params=BRIDGES, ids=["inline", "plain"])
def bridge_type(request: pytest.FixtureRequest) -> type[Bridge]:
    chosen: type[Bridge] = request.param
    return chosen


async def with_connection(
    bridge_type: type[Bridge],
    dsn: str,
    use: Callable[[DriverConnection], Awaitable[None]],
    *,
    within: float = 20.0,
) -> list[str]:
    """Run `use` with an open connection and return what the loop complained about; `within` seconds, or it hangs."""
    complaints: list[str] = []
    with trio.fail_after(within):
        async with open_loop(complaints.append) as loop:
            connection = await bridge_type(loop).connect(dsn, settings={"application_name": "atlas/test"})
            try:
                await use(connection)
            finally:
                connection.terminate()
    return complaints


async def test_statements_return_what_asyncpg_returns(bridge_type: type[Bridge], empty_database_dsn: str) -> None:
    async def use(connection: DriverConnection) -> None:
        raw = connection.raw
        assert await step(connection, raw.fetchval("SELECT $1::int + 1", 41)) == 42
        assert await step(connection, raw.execute("CREATE TABLE t (n int)")) == "CREATE TABLE"
        row = await step(connection, raw.fetchrow("INSERT INTO t VALUES (7) RETURNING n"))
        assert row["n"] == 7
        assert [r["n"] for r in await step(connection, raw.fetch("SELECT n FROM generate_series(1, 3) n"))] == [1, 2, 3]
        assert connection.is_idle()

    assert await with_connection(bridge_type, empty_database_dsn, use) == []


async def test_a_large_result_and_a_large_parameter_pass(bridge_type: type[Bridge], empty_database_dsn: str) -> None:
    async def use(connection: DriverConnection) -> None:
        text = "x" * 10_000_000
        assert await step(connection, connection.raw.fetchval("SELECT length($1::text)", text)) == len(text)
        assert await step(connection, connection.raw.fetchval("SELECT repeat('y', 10000000)")) == "y" * len(text)

    assert await with_connection(bridge_type, empty_database_dsn, use) == []


async def test_a_server_error_leaves_the_connection_usable(bridge_type: type[Bridge], empty_database_dsn: str) -> None:
    async def use(connection: DriverConnection) -> None:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await step(connection, connection.raw.fetchval("SELECT 1/0"))
        assert connection.is_idle()
        assert await step(connection, connection.raw.fetchval("SELECT 1")) == 1

    assert await with_connection(bridge_type, empty_database_dsn, use) == []


async def test_bulk_operations_go_over_the_loop(bridge_type: type[Bridge], empty_database_dsn: str) -> None:
    async def use(connection: DriverConnection) -> None:
        raw = connection.raw
        await step(connection, raw.execute("CREATE TABLE t (n int)"))
        await connection.run_on_loop(raw.executemany("INSERT INTO t VALUES ($1)", [(n,) for n in range(2000)]))
        await connection.run_on_loop(raw.copy_records_to_table("t", records=[(n,) for n in range(2000)]))
        assert await step(connection, raw.fetchval("SELECT count(*) FROM t")) == 4000

    assert await with_connection(bridge_type, empty_database_dsn, use) == []


async def test_a_cancelled_statement_returns_at_once_and_is_acknowledged_later(
    bridge_type: type[Bridge], empty_database_dsn: str
) -> None:
    async def use(connection: DriverConnection) -> None:
        with trio.move_on_after(0.05) as scope:
            await step(connection, connection.raw.fetch("SELECT pg_sleep(15)"))
        assert scope.cancelled_caught
        assert not connection.is_idle()
        await connection.run_on_loop(connection.raw.execute("ROLLBACK"))
        assert connection.is_idle()
        assert await step(connection, connection.raw.fetchval("SELECT 1")) == 1

    assert await with_connection(bridge_type, empty_database_dsn, use) == []


async def test_cancels_at_random_points_never_give_a_wrong_result(
    bridge_type: type[Bridge], empty_database_dsn: str
) -> None:
    chance = random.Random(7)
    cancelled = 0

    async def use(connection: DriverConnection) -> None:
        nonlocal cancelled
        longest = 0.002  # seconds
        for n in range(600):
            with trio.move_on_after(chance.uniform(0, longest)) as scope:
                # It lasts about as long as the patience: a statement of 70 us is over before a deadline is looked at.
                lasts = chance.uniform(0, 0.002)
                query = "SELECT $1::int FROM (SELECT pg_sleep($2)) AS slept"
                assert await step(connection, connection.raw.fetchval(query, n, lasts)) == n
            # About half of them are cancelled, at whatever point, however fast the bridge and busy the machine.
            longest *= 1.1 if scope.cancelled_caught else 1 / 1.1
            if scope.cancelled_caught:
                cancelled += 1
                await connection.run_on_loop(connection.raw.execute("ROLLBACK"))
            assert connection.is_idle()

    assert await with_connection(bridge_type, empty_database_dsn, use, within=120) == []
    assert 60 < cancelled < 540


async def test_a_terminated_backend_surfaces_as_an_error_with_the_servers_words(
    bridge_type: type[Bridge], cluster: Cluster, empty_database_dsn: str
) -> None:
    async def use(connection: DriverConnection) -> None:
        async with trio.open_nursery() as nursery:

            async def terminate() -> None:
                await trio.to_thread.run_sync(cluster.sql, f"SELECT pg_terminate_backend({connection.backend_pid})")

            nursery.start_soon(terminate)
            with pytest.raises(asyncpg.PostgresError, match="administrator command"):
                await step(connection, connection.raw.fetch("SELECT pg_sleep(15)"))
        assert connection.is_closed()
        assert not connection.is_idle()
        assert not connection.probe()

    await with_connection(bridge_type, empty_database_dsn, use)


async def test_cutting_a_connection_wakes_the_task_that_waits_on_it(
    bridge_type: type[Bridge], empty_database_dsn: str
) -> None:
    async def use(connection: DriverConnection) -> None:
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                await trio.testing.wait_all_tasks_blocked(0.05)
                connection.terminate()

            nursery.start_soon(cut)
            with pytest.raises(asyncpg.PostgresError):
                await step(connection, connection.raw.fetch("SELECT pg_sleep(15)"))

    await with_connection(bridge_type, empty_database_dsn, use)


async def test_a_stopped_backend_holds_nobody(bridge_type: type[Bridge], empty_database_dsn: str) -> None:
    async def use(connection: DriverConnection) -> None:
        stop(connection.backend_pid)
        try:
            with trio.fail_after(PATIENCE):
                with trio.move_on_after(0.05) as scope:
                    await step(connection, connection.raw.fetchval("SELECT 1"))
                assert scope.cancelled_caught
                with trio.move_on_after(0.05) as scope:
                    await connection.run_on_loop(connection.raw.execute("ROLLBACK"))
                assert scope.cancelled_caught
            assert not connection.is_idle(), "nothing proved it clean"
        finally:
            os.kill(connection.backend_pid, signal.SIGCONT)

    await with_connection(bridge_type, empty_database_dsn, use)


async def _sleep() -> None:
    await trio.sleep(10)


async def _checkpoint() -> None:
    await trio.lowlevel.checkpoint()


async def _asyncio_sleep() -> None:
    await asyncio.sleep(10)


async def _channel() -> None:
    _, receive = trio.open_memory_channel[None](0)
    await receive.receive()


async def _request() -> None:
    import httpx

    async with httpx.AsyncClient() as client:
        await client.get("http://127.0.0.1:9/")


async def _child() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 10)


async def _thread() -> None:
    await trio.to_thread.run_sync(lambda: None)


@pytest.mark.parametrize("cheat", [_sleep, _checkpoint, _asyncio_sleep, _channel, _request, _child, _thread])
async def test_a_foreign_await_is_refused_at_its_line(
    bridge_type: type[Bridge], empty_database_dsn: str, cheat: Callable[[], Awaitable[None]]
) -> None:
    reached = []

    async def body(connection: DriverConnection) -> None:
        await connection.raw.fetchval("SELECT 1")
        await cheat()
        reached.append("the line after it")

    async def use(connection: DriverConnection) -> None:
        with trio.fail_after(PATIENCE), pytest.raises(Exception):  # noqa: B017  httpx and nurseries wrap it
            await step(connection, body(connection))
        assert connection.foreign_await is not None
        assert cheat.__name__ in str(connection.foreign_await)
        # Nothing of the refused wait comes back later to disturb this task.
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert await step(connection, connection.raw.fetchval("SELECT 1")) == 1

    await with_connection(bridge_type, empty_database_dsn, use)
    assert reached == []


async def test_another_connections_statement_is_a_foreign_await(
    bridge_type: type[Bridge], empty_database_dsn: str
) -> None:
    async with open_loop(lambda _: None) as loop:
        one = await bridge_type(loop).connect(empty_database_dsn, settings={})
        two = await bridge_type(loop).connect(empty_database_dsn, settings={})
        with pytest.raises(ForeignAwait):
            await step(one, two.raw.fetchval("SELECT 1"))
        one.terminate()
        two.terminate()


async def test_a_foreign_await_that_was_swallowed_is_remembered(
    bridge_type: type[Bridge], empty_database_dsn: str
) -> None:
    async def swallow() -> str:
        try:
            await trio.sleep(1)
        except Exception:  # noqa: BLE001  it is the point
            return "as if nothing had happened"
        return "slept"

    async def use(connection: DriverConnection) -> None:
        assert await step(connection, swallow()) == "as if nothing had happened"
        assert isinstance(connection.foreign_await, ForeignAwait)

    await with_connection(bridge_type, empty_database_dsn, use)


async def test_the_self_test_passes_with_what_is_installed() -> None:
    async with open_loop(lambda _: None) as loop:
        await self_test(loop)


async def test_the_self_test_refuses_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bridge_choice.VERSIONS, "asyncpg", "0.1.0")
    async with open_loop(lambda _: None) as loop:
        with pytest.raises(BridgeUnfit, match=r"asyncpg is .*measured was 0\.1\.0"):
            await self_test(loop)


async def test_the_self_test_notices_a_transport_without_the_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = asyncio.selector_events
    transport = module._SelectorSocketTransport
    owner = next(base for base in transport.__mro__ if "pause_reading" in vars(base) and base in vars(module).values())
    monkeypatch.delattr(owner, "pause_reading")
    async with open_loop(lambda _: None) as loop:
        with pytest.raises(BridgeUnfit, match=r"pause_reading|NotImplementedError"):
            await self_test(loop)
