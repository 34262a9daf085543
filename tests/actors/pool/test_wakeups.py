"""NOTIFY wakes the worker that it names; what went unheard is made up for."""

from __future__ import annotations

import pytest
import trio

from actors.pool.events import WAKES, ListeningInterrupted
from actors.pool.settings import PoolSettings
from db.tx import Tx
from runtime import WakeUp
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.postgres_cluster import Cluster
from tests.run_queue import PATIENCE

SMALL = PoolSettings(size=2, reserved=0)


async def _notify(tx: Tx, name: str) -> None:
    await tx.execute("SELECT pg_notify('atlas_wake', $1)", name)


async def _notify_and_fail(tx: Tx, name: str) -> None:
    await _notify(tx, name)
    raise LookupError


def _listening(cluster: Cluster) -> str:
    return "SELECT pid FROM pg_stat_activity WHERE application_name = 'atlas/main/listen'"


async def test_the_named_worker_is_woken_when_the_transaction_has_committed(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL, wait=False, wakes=("activation",)) as harness:
        worker = await harness.system.probe("activation")
        with trio.fail_after(PATIENCE):
            await worker.receive(WakeUp)  # it has just begun to listen
            await harness.pool.run("buy", _notify, "activation")
            await worker.receive(WakeUp)


async def test_a_rolled_back_transaction_wakes_nobody(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL, wait=False, wakes=("activation",)) as harness:
        worker = await harness.system.probe("activation")
        other = await harness.system.probe("other")
        with trio.fail_after(PATIENCE):
            await worker.receive(WakeUp)
            with pytest.raises(LookupError):
                await harness.pool.run("fail", _notify_and_fail, "activation")
            await harness.pool.run("after", _notify, "other")
            await other.receive(WakeUp)
        assert len(worker.received) == 1


async def test_unknown_names_are_counted_and_otherwise_ignored(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL, wait=False, wakes=("activation",)) as harness:
        worker = await harness.system.probe("activation")
        before = WAKES.labels("pool.main", "unknown").value
        with trio.fail_after(PATIENCE):
            await worker.receive(WakeUp)
            await harness.pool.run("notify", _notify, "no such worker")
            await harness.pool.run("notify", _notify, "activation")
            await worker.receive(WakeUp)
        assert WAKES.labels("pool.main", "unknown").value == before + 1
        assert harness.ref.incarnation == 1


async def test_after_an_interruption_all_are_woken_since_something_may_have_gone_unheard(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    async with pool_harness(empty_database_dsn, SMALL, wait=False, wakes=("activation", "notifications")) as harness:
        one = await harness.system.probe("activation")
        two = await harness.system.probe("notifications")
        with trio.fail_after(10):
            await one.receive(WakeUp)
            await two.receive(WakeUp)
            await trio.to_thread.run_sync(
                cluster.sql, f"SELECT pg_terminate_backend(pid) FROM ({_listening(cluster)}) l"
            )
            await one.receive(WakeUp)
            await two.receive(WakeUp)
            interrupted = await harness.until_event(ListeningInterrupted)
            assert "closed the connection" in interrupted.cause
            await harness.pool.run("notify", _notify, "activation")
            await one.receive(WakeUp)


async def test_a_pool_that_wakes_nobody_does_not_listen(cluster: Cluster, empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        await _used(harness)
        assert await trio.to_thread.run_sync(cluster.sql, _listening(cluster)) == ""


async def _used(harness: PoolHarness) -> None:
    await harness.pool.run("notify", _notify, "nobody")
