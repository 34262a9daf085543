"""Work of one process at a time."""

from __future__ import annotations

import pytest

from actors.singleton import Tenure, tenure_of
from db.epochs import Epoch, acquire_epoch
from db.reconcile import LostEpoch, check_epoch
from db.tx import Tx
from tests.actors.pool_house import PoolHouse, pool_house


async def seize(house: PoolHouse, holder: str) -> Epoch:
    """Another process takes the singleton, as soon as its time is up."""

    async def take(tx: Tx) -> Epoch:
        await tx.execute("UPDATE epochs SET held_until = atlas_now()")
        return await acquire_epoch(tx, "work", holder, 30.0)

    return await house.pool.run("test", take)


async def test_somebody_else_is_named_and_nothing_is_done(database_dsn: str) -> None:
    async with pool_house(database_dsn) as house:
        await seize(house, "another process")
        async with tenure_of(house.pool, "work", 30.0) as found:
            assert isinstance(found, Epoch)
            assert found.holder == "another process"


async def crash_in_tenure(house: PoolHouse) -> int:
    """Hold the singleton and crash without giving it up; returns the epoch."""
    epoch = 0
    with pytest.raises(ZeroDivisionError):
        async with tenure_of(house.pool, "work", 30.0) as found:
            assert isinstance(found, Tenure)
            epoch = found.epoch.epoch
            epoch / 0
    return epoch


async def test_a_crashed_predecessor_in_this_process_is_followed_at_once(database_dsn: str) -> None:
    async with pool_house(database_dsn) as house:
        assert [await crash_in_tenure(house), await crash_in_tenure(house)] == [1, 2]


async def test_an_ordinary_end_leaves_it_free(database_dsn: str) -> None:
    async with pool_house(database_dsn) as house:
        async with tenure_of(house.pool, "work", 30.0) as found:
            assert isinstance(found, Tenure)

        async def take(tx: Tx) -> Epoch:
            return await acquire_epoch(tx, "work", "another process", 30.0)

        assert (await house.pool.run("test", take)).is_mine


async def test_whoever_lost_it_learns_so_before_the_next_step_and_writes_nothing(database_dsn: str) -> None:
    async with pool_house(database_dsn) as house, tenure_of(house.pool, "work", 30.0) as found:
        assert isinstance(found, Tenure)
        await found.hold_on()  # trusted for half of its time, without asking
        await seize(house, "another process")
        with pytest.raises(LostEpoch):
            await house.pool.run("test", check_epoch, found.epoch)
        found.trusted_until = 0.0
        with pytest.raises(LostEpoch):
            await found.hold_on()
