"""Work of one process at a time."""

from __future__ import annotations

import pytest

from actors.leadership.leader_lease import LeaderLease, hold_leader_lease
from db.tx import Tx
from db.work.leader_leases import Epoch, LostEpoch, acquire_epoch, check_epoch
from tests.actors.pool_fixtures import PoolHarness, pool_harness


async def seize(harness: PoolHarness, holder: str) -> Epoch:
    """Another process takes the leader lease, as soon as its time is up."""

    async def take(tx: Tx) -> Epoch:
        await tx.execute("UPDATE epochs SET held_until = atlas_now()")
        return await acquire_epoch(tx, "work", holder, 30.0)

    return await harness.pool.run("test", take)


async def test_somebody_else_is_named_and_nothing_is_done(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        await seize(harness, "another process")
        async with hold_leader_lease(harness.pool, "work", 30.0) as found:
            assert isinstance(found, Epoch)
            assert found.holder == "another process"


async def crash_in_tenure(harness: PoolHarness) -> int:
    """Hold the leader lease and crash without giving it up; returns the epoch."""
    epoch = 0
    with pytest.raises(ZeroDivisionError):
        async with hold_leader_lease(harness.pool, "work", 30.0) as found:
            assert isinstance(found, LeaderLease)
            epoch = found.epoch.epoch
            epoch / 0
    return epoch


async def test_a_crashed_predecessor_in_this_process_is_followed_at_once(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        assert [await crash_in_tenure(harness), await crash_in_tenure(harness)] == [1, 2]


async def test_an_ordinary_end_leaves_it_free(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        async with hold_leader_lease(harness.pool, "work", 30.0) as found:
            assert isinstance(found, LeaderLease)

        async def take(tx: Tx) -> Epoch:
            return await acquire_epoch(tx, "work", "another process", 30.0)

        assert (await harness.pool.run("test", take)).is_mine


async def test_whoever_lost_it_learns_so_before_the_next_step_and_writes_nothing(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness, hold_leader_lease(harness.pool, "work", 30.0) as found:
        assert isinstance(found, LeaderLease)
        await found.ensure_held()  # trusted for half of its time, without asking
        await seize(harness, "another process")
        with pytest.raises(LostEpoch):
            await harness.pool.run("test", check_epoch, found.epoch)
        found.trusted_until = 0.0
        with pytest.raises(LostEpoch):
            await found.ensure_held()
