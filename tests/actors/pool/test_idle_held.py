"""An open lease that leaves its connection idle is told of, wherever and however its holder idles; one that works is not."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from actors.pool.events import IdleHeld
from actors.pool.settings import PoolSettings
from db.errors import LeaseExpired, LeaseRevoked
from db.lease.lease import OpenLease
from db.tx import Tx
from tests.actors.pool_fixtures import pool_harness

SETTINGS = PoolSettings(size=2, reserved=0, idle_held_warning=0.1)
IDLE = 0.2


async def _in_its_task(lease: OpenLease) -> None:
    await lease.fetchval("SELECT 1")
    await trio.sleep(IDLE)


async def _in_a_child_task(lease: OpenLease) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, IDLE)


async def _in_a_thread(lease: OpenLease) -> None:
    await trio.to_thread.run_sync(time.sleep, IDLE)


async def _between_transactions(lease: OpenLease) -> None:
    for _ in range(4):
        await lease.run(_one)
        await trio.sleep(IDLE / 4)


async def _until_it_expires(lease: OpenLease) -> None:
    with pytest.raises(trio.Cancelled):
        await trio.sleep(10)
    await trio.lowlevel.checkpoint()


async def _shielded_until_it_is_revoked(lease: OpenLease) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(1.0)


async def _one(tx: Tx) -> None:
    await tx.execute("SELECT 1")


@pytest.mark.parametrize("idle", [_in_its_task, _in_a_child_task, _in_a_thread, _between_transactions])
async def test_an_idle_holder_is_told_of_wherever_it_idles(
    empty_database_dsn: str, idle: Callable[[OpenLease], Awaitable[None]]
) -> None:
    async with pool_harness(empty_database_dsn, SETTINGS) as harness:
        async with harness.pool.lease("dreamer") as lease:
            await idle(lease)
        told = await harness.until_event(IdleHeld)
    assert told.label == "dreamer"
    assert "test_idle_held.py" in told.site
    assert IDLE * 0.9 < told.idle <= told.held


@pytest.mark.parametrize(
    ("idle", "ends"), [(_until_it_expires, LeaseExpired), (_shielded_until_it_is_revoked, LeaseRevoked)]
)
async def test_a_lease_that_was_taken_away_for_idling_is_told_of_as_well(
    empty_database_dsn: str, idle: Callable[[OpenLease], Awaitable[None]], ends: type[Exception]
) -> None:
    async with pool_harness(empty_database_dsn, SETTINGS) as harness:
        with pytest.raises(ends):
            async with harness.pool.lease("dreamer", hold=0.3) as lease:
                await idle(lease)
        told = await harness.until_event(IdleHeld)
    assert told.idle > 0.25


async def test_a_holder_that_waits_for_its_statements_is_not_idle(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, PoolSettings(size=2, reserved=0, idle_held_warning=0.3)) as harness:
        async with harness.pool.lease("worker") as lease:
            await lease.execute("SELECT pg_sleep(0.4)")
            await lease.run(_slow)
        await harness.pool.run("slow", _slow)
        assert not any(isinstance(event, IdleHeld) for event in harness.events)


async def _slow(tx: Tx) -> None:
    await tx.execute("SELECT pg_sleep(0.4)")
