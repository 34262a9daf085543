"""What operators change of a running pool: its size, who is served, and which connections it keeps."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from actors.pool.client import Pool
from actors.pool.report import pool_report
from actors.pool.settings import PoolSettings
from db.errors import LeaseTimeout, PoolCrashed
from db.lease.queue import Lane
from db.tx import Tx
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.run_queue import PATIENCE

SMALL = PoolSettings(size=3, reserved=0)


async def _pid(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT pg_backend_pid()")
    return found


async def _sessions(tx: Tx) -> set[int]:
    return {
        row["pid"]
        for row in await tx.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'atlas/main'"
        )
    }


async def _until_sessions(harness: PoolHarness, count: int) -> set[int]:
    """A backend that was cut takes a moment to go."""
    with trio.fail_after(10):
        while len(found := await harness.pool.run("sessions", _sessions)) != count:
            pass
    return found


async def test_a_pool_grows_at_once(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        harness.state.resize(6)
        await harness.until_full()
        assert len(harness.state.idle) == 6
        await _until_sessions(harness, 6)


async def test_a_pool_shrinks_at_once_where_idle_and_later_where_held(empty_database_dsn: str) -> None:
    async def hold(*, task_status: trio.TaskStatus[None]) -> None:
        async with harness.pool.lease("held") as lease:
            task_status.started()
            await release.wait()
            assert await lease.fetchval("SELECT 1") == 1, "nobody is interrupted"

    release = trio.Event()
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold)
            await nursery.start(hold)
            harness.state.resize(1)
            assert harness.state.open_count == 2, "the idle one went"
            release.set()
        await harness.until_full()
        assert harness.state.open_count == 1
        assert harness.state.missing == 0
        await _until_sessions(harness, 1)


async def test_a_connection_that_was_being_opened_when_the_pool_shrank_is_not_kept(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        for size in (6, 1, 5, 2, 6, 1):
            harness.state.resize(size)
            await trio.lowlevel.checkpoint()
        await harness.until_full()
        await _until_sessions(harness, 1)


async def test_a_paused_pool_serves_the_system_lane_only_and_sheds_nobody(empty_database_dsn: str) -> None:
    settings = attrs.evolve(SMALL, slow_target=0.01, slow_interval=0.05, wait_warning=0.05)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        harness.state.pause()
        served: list[int] = []

        async def ask(pool: Pool) -> None:
            served.append(await pool.run("patient", _pid))

        nursery.start_soon(ask, harness.pool)
        with pytest.raises(LeaseTimeout, match="and paused"):
            await harness.pool.run("impatient", _pid, within=0.3)
        assert await harness.pool.run("health", _pid, lane=Lane.SYSTEM)
        assert served == []
        assert pool_report(harness.state)["paused"] is True
        harness.state.resume()
        with trio.fail_after(PATIENCE):
            while not served:
                await trio.testing.wait_all_tasks_blocked()


async def test_all_connections_are_renewed_and_a_held_one_when_it_comes_back(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        before = await _until_sessions(harness, 3)
        async with harness.pool.lease("held") as lease:
            held = await lease.fetchval("SELECT pg_backend_pid()")
            harness.state.expire_all(trio.current_time)
            assert await lease.fetchval("SELECT pg_backend_pid()") == held, "nobody is interrupted"
        await harness.until_full()
        assert not before & await _until_sessions(harness, 3)


async def test_a_renewal_may_be_spread_over_time(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        due = iter((0.0, 100.0, 200.0))
        now = trio.current_time()
        harness.state.expire_all(lambda: now + next(due))
        assert len(harness.state.idle) == 2, "only the first is due"
        await harness.until_full()
        left = sorted(connection.retire_at - now for connection in harness.state.idle)
        assert left[:2] == [100.0, 200.0]


async def test_connections_that_were_opened_together_do_not_end_together(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, PoolSettings(size=8, max_lifetime=1000.0)) as harness:
        lifetimes = [connection.retire_at - connection.opened_at for connection in harness.state.idle]
        assert all(899 < lifetime <= 1000 for lifetime in lifetimes)
        assert len({round(lifetime, 3) for lifetime in lifetimes}) == 8


async def test_an_idle_connection_is_renewed_when_its_time_is_over(empty_database_dsn: str) -> None:
    settings = attrs.evolve(SMALL, max_lifetime=0.3, idle_check=0.1)
    async with pool_harness(empty_database_dsn, settings) as harness:
        before = {connection.pid for connection in harness.state.idle}
        with trio.fail_after(10):
            while before & {connection.pid for connection in harness.state.idle}:
                await harness.until_full()
                await trio.testing.wait_all_tasks_blocked(0.05)


async def test_a_pool_that_stops_lets_holders_finish_and_gives_nobody_else_a_connection(
    empty_database_dsn: str,
) -> None:
    async def slow(tx: Tx) -> str:
        running.set()
        await tx.execute("SELECT pg_sleep(0.3)")
        return "finished"

    running = trio.Event()
    results: list[str] = []
    async with pool_harness(empty_database_dsn, SMALL) as harness:

        async def hold() -> None:
            results.append(await harness.pool.run("slow", slow))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await running.wait()
            nursery.start_soon(harness.system.stop, harness.ref)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(PoolCrashed):
                await harness.pool.run("too late", _pid, within=5)
        assert results == ["finished"]
