"""A server that has no room for all connections of a pool, and pools that do not share their troubles."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from actors.pool.client import pool_of
from actors.pool.events import OPEN_FAILED, PoolStatus
from actors.pool.settings import PoolSettings
from db.errors import PoolCrashed, PoolDown
from db.tx import Tx
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import pool_harness, second_pool, until_full
from tests.postgres_cluster import Cluster
from tests.run_queue import PATIENCE

ROLE = "atlas_limited"
FOUR = PoolSettings(size=4, reserved=0)


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


@pytest.fixture
def limited_dsn(cluster: Cluster, empty_database_dsn: str) -> Iterator[str]:
    """A fresh database by way of a role that may have two connections."""
    name = urlsplit(empty_database_dsn).path.removeprefix("/")
    cluster.sql(f'CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 2; GRANT ALL ON DATABASE "{name}" TO {ROLE}')
    yield empty_database_dsn.replace("atlas@", f"{ROLE}@")
    cluster.sql(f'REVOKE ALL ON DATABASE "{name}" FROM {ROLE}; DROP ROLE {ROLE}')


async def _limit(cluster: Cluster, limit: int) -> None:
    await trio.to_thread.run_sync(cluster.sql, f"ALTER ROLE {ROLE} CONNECTION LIMIT {limit}")


async def test_a_connection_limit_leaves_the_pool_degraded_and_serving_until_there_is_room(
    cluster: Cluster, limited_dsn: str
) -> None:
    failed = OPEN_FAILED.labels("pool.main")
    before = failed.value
    async with pool_harness(limited_dsn, FOUR, wait=False) as harness:
        await harness.until(PoolStatus.DEGRADED)
        assert "CONNECTION LIMIT" in harness.state.cause
        assert "pool.size" in harness.state.cause
        assert harness.state.open_count == 2
        ready, _ = harness.system.address(harness.ref).readiness
        assert ready, "it serves"
        for _ in range(20):
            assert await harness.pool.run("served", _one) == 1
        assert failed.value - before < 20, "a storm of connects"
        await _limit(cluster, 10)
        await harness.until_full()
        assert harness.state.status is PoolStatus.UP
        assert harness.state.cause == ""


async def test_a_pool_that_is_lowered_to_the_room_there_is_is_up_again(cluster: Cluster, limited_dsn: str) -> None:
    async with pool_harness(limited_dsn, FOUR, wait=False) as harness:
        await harness.until(PoolStatus.DEGRADED)
        harness.state.resize(2)
        assert (harness.state.status, harness.state.cause) == (PoolStatus.UP, "")
        await harness.until_full()


async def test_a_restart_of_the_pool_while_its_role_is_refused_is_an_outage_and_no_end(
    cluster: Cluster, limited_dsn: str
) -> None:
    """Wrong credentials end the process before it ever served, and only then: they may be changed under way."""
    async with pool_harness(limited_dsn, attrs.evolve(FOUR, size=1), on_crash=OnCrash.RESTART) as harness:
        await trio.to_thread.run_sync(cluster.sql, f"ALTER ROLE {ROLE} NOLOGIN")
        await harness.system.kill(harness.ref)
        await harness.until(PoolStatus.DOWN)
        with pytest.raises(PoolDown, match="refused our credentials"):
            await harness.pool.run("refused", _one)
        await trio.to_thread.run_sync(cluster.sql, f"ALTER ROLE {ROLE} LOGIN")
        await harness.until_full()
        assert harness.ref.incarnation == 2


async def test_a_limit_that_leaves_no_room_at_all_refuses_at_once_and_says_why(
    cluster: Cluster, limited_dsn: str
) -> None:
    await _limit(cluster, 0)
    async with pool_harness(limited_dsn, FOUR, wait=False) as harness:
        await harness.until(PoolStatus.DOWN)
        with pytest.raises(PoolDown, match="no room for another connection"):
            await harness.pool.run("refused", _one)
        await _limit(cluster, 10)
        await harness.until_full()
        assert await harness.pool.run("served", _one) == 1
        assert harness.ref.incarnation == 1


async def test_a_pool_that_dies_is_not_noticed_by_the_other(empty_database_dsn: str) -> None:
    async def through_the_other(*, task_status: trio.TaskStatus[None]) -> None:
        async with other.lease("long") as lease:
            task_status.started()
            await killed.wait()
            assert await lease.fetchval("SELECT 1") == 1
        for _ in range(50):
            assert await other.run("short", _one) == 1

    killed = trio.Event()
    async with pool_harness(empty_database_dsn, FOUR, on_crash=OnCrash.RESTART) as harness:
        state = await second_pool(harness, empty_database_dsn)
        other = pool_of(harness.context, "pool.other")
        pids = {connection.pid for connection in state.idle}
        async with trio.open_nursery() as nursery:
            await nursery.start(through_the_other)
            for _ in range(3):
                await harness.system.kill(harness.ref)
                await harness.until_full()
            killed.set()
        with trio.fail_after(PATIENCE):
            assert await until_full(state)
        assert {connection.pid for connection in state.idle} == pids, "not one of its connections was replaced"
        assert state.status is PoolStatus.UP
        assert harness.ref.incarnation == 4


async def test_a_pool_whose_server_is_away_does_not_hold_up_the_other(
    empty_database_dsn: str, tmp_path: object
) -> None:
    nobody = f"postgresql://atlas@/postgres?host={tmp_path}"
    async with pool_harness(nobody, FOUR, wait=False) as harness:
        await harness.until(PoolStatus.DOWN)
        await second_pool(harness, empty_database_dsn)
        assert await pool_of(harness.context, "pool.other").run("served", _one) == 1
        with pytest.raises((PoolDown, PoolCrashed)):
            await harness.pool.run("refused", _one)
