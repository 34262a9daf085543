"""What operators see and take away through the control socket's commands, on a real pool."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from actors.pool.client import Pool
from actors.pool.control import LeasesArguments, PoolArguments, leases, pool
from actors.pool.settings import PoolSettings
from db.errors import LeaseRevoked
from runtime.control import ControlCall, ControlError, Operator
from tests.actors.pool_fixtures import POOL, PoolHarness, pool_harness
from tests.run_queue import at_most

SMALL = PoolSettings(size=3, reserved=0)


def _call(harness: PoolHarness) -> ControlCall:
    """As from the control socket; a command about pools looks at the registry alone."""
    system = SimpleNamespace(registry=harness.system.services.registry)
    return ControlCall(cast("Any", system), Operator(1, 0), cast("Any", None))


async def _hold(
    pool: Pool, label: str, ended: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    try:
        async with pool.lease(label, hold=30):
            task_status.started()
            await trio.sleep_forever()
    except LeaseRevoked as error:
        assert "an operator took it away" in str(error)
        ended.append(label)


async def test_the_leases_of_one_actor_are_taken_away_and_nobody_elses(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness, trio.open_nursery() as nursery:
        _, other = await harness.holder("other")
        ended: list[str] = []
        await nursery.start(_hold, harness.pool, "first", ended)
        await nursery.start(_hold, harness.pool, "second", ended)
        await nursery.start(_hold, other, "third", ended)
        for wrong in (PoolArguments(POOL, "revoke"), PoolArguments(POOL, "revoke", owner="holder", everybody=True)):
            with pytest.raises(ControlError, match="--all"):
                await pool(_call(harness), wrong)
        with pytest.raises(ControlError, match='there is no actor "hodler"; did you mean "holder"'):
            await pool(_call(harness), PoolArguments(POOL, "revoke", owner="hodler"))
        assert len(harness.state.leases) == 3
        told: Any = await pool(_call(harness), PoolArguments(POOL, "revoke", owner="holder"))
        assert told["revoked"] == 2
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ended) == ["first", "second"]
        told = await pool(_call(harness), PoolArguments(POOL, "revoke", everybody=True))
        assert told["revoked"] == 1
        await harness.until_full()


async def test_a_pool_that_waits_for_its_holders_shows_them_and_can_take_from_them(
    empty_database_dsn: str,
) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness, trio.open_nursery() as nursery:
        ended: list[str] = []
        stopped = trio.Event()

        async def stop() -> None:
            await harness.system.stop(harness.ref)
            stopped.set()

        await nursery.start(_hold, harness.pool, "slow", ended)
        nursery.start_soon(stop)
        await trio.testing.wait_all_tasks_blocked()
        assert not stopped.is_set()
        shown: Any = await leases(_call(harness), LeasesArguments(POOL))
        assert [held["label"] for held in shown["pools"][0]["holders"]] == ["slow"]
        await pool(_call(harness), PoolArguments(POOL, "revoke", owner="holder"))
        with at_most(2):
            await stopped.wait()
        assert ended == ["slow"]
        shown = await leases(_call(harness), LeasesArguments(POOL))
        assert shown["pools"][0] == {"pool": POOL, "state": "not running"}
