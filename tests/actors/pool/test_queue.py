"""Those who wait: in order, not for longer than they said, leaving no trace when they go, and never unheard."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from actors.pool.client import Pool
from actors.pool.events import LEASE_WAIT_SECONDS, SPIKES, RequestsShed, SevereWaitSpike, WaitResolved, WaitSpike
from actors.pool.settings import PoolSettings
from db.errors import LeaseShed, LeaseTimeout
from db.lease.queue import Lane
from db.tx import Tx
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.cancel_at_step import cancel_at_step
from tests.run_queue import PATIENCE, Stopwatch, at_most

ONE = PoolSettings(size=1, reserved=0)


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


async def _hold(pool: Pool, until: trio.Event, *, task_status: trio.TaskStatus[None], hold: float = 30.0) -> None:
    async with pool.lease("holder", hold=hold):
        task_status.started()
        await until.wait()


async def _waiting(harness: PoolHarness, count: int) -> None:
    """Until so many requests are in the queue."""
    with trio.fail_after(PATIENCE):
        while len(harness.state.queue) < count:
            await trio.testing.wait_all_tasks_blocked()


async def test_waiters_are_served_in_the_order_in_which_they_came(empty_database_dsn: str) -> None:
    order: list[int] = []

    async def wait(pool: Pool, number: int) -> None:
        await pool.run(f"waiter {number}", _one)
        order.append(number)

    async with pool_harness(empty_database_dsn, ONE) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        for number in range(10):
            nursery.start_soon(wait, harness.pool, number)
            await _waiting(harness, number + 1)
        release.set()
    assert order == list(range(10))


async def test_a_waiter_gets_a_timeout_that_names_the_holder_and_the_numbers(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, ONE) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        began, took = trio.current_time(), Stopwatch()
        with pytest.raises(LeaseTimeout) as caught:
            await harness.pool.run("impatient", _one, within=0.2)
        assert trio.current_time() - began >= 0.2
        assert took.seconds() < 1.0, str(took)
        text = str(caught.value)
        for fact in ('"impatient"', "within=0.2", '"holder"', "test_queue.py", "1 of 1 leased", "pool.size"):
            assert fact in text
        assert harness.system.services.beats.last_pool_wait_spike is not None
        release.set()
        await harness.until_full()


async def test_a_cancelled_waiter_leaves_the_queue_at_once(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, ONE) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiters:
                for _ in range(20):
                    waiters.start_soon(harness.pool.run, "waiter", _one)
                await _waiting(harness, 20)
                scope.cancel()
        assert len(harness.state.queue) == 0
        release.set()
        await harness.until_full()


async def test_a_connection_granted_at_the_moment_of_giving_up_is_not_lost(empty_database_dsn: str) -> None:
    """The release and the cancellation fall into the same turn of the loop, in both orders."""
    for release_first in (True, False):
        async with pool_harness(empty_database_dsn, ONE) as harness, trio.open_nursery() as nursery:
            release = trio.Event()
            await nursery.start(_hold, harness.pool, release)
            scope = trio.CancelScope()

            async def wait(harness: PoolHarness = harness, scope: trio.CancelScope = scope) -> None:
                with scope:
                    await harness.pool.run("waiter", _one)

            nursery.start_soon(wait)
            await _waiting(harness, 1)
            (lease,) = harness.state.leases.values()
            if release_first:
                harness.state.give_back(lease)
                scope.cancel()
            else:
                scope.cancel()
                harness.state.give_back(lease)
            release.set()
            await harness.until_full()


async def test_a_waiter_cancelled_at_any_step_costs_nothing(empty_database_dsn: str) -> None:
    """From asking through waiting, being granted while somebody gives back, using, to giving back."""
    steps = cancelled = finished_first = 0

    async def give_back_soon(lease_open: trio.Event) -> None:
        async with harness.pool.lease("holder"):
            lease_open.set()
            for _ in range(3):
                await trio.lowlevel.checkpoint()

    async with pool_harness(empty_database_dsn, ONE) as harness:
        while finished_first < 3:
            steps += 1
            async with trio.open_nursery() as nursery:
                lease_open = trio.Event()
                nursery.start_soon(give_back_soon, lease_open)
                await lease_open.wait()
                with trio.CancelScope() as scope, cancel_at_step(steps, scope) as instrument:
                    assert await harness.pool.run("waiter", _one) == 1
                cancelled += scope.cancelled_caught
                finished_first = finished_first + 1 if instrument.left > 0 else 0
            await harness.until_full()
            assert len(harness.state.queue) == 0
            assert harness.state.leases == {}
            assert harness.pool._gate.in_mailbox == 0
    assert cancelled >= 5


async def test_waiters_cancelled_at_random_points_cost_nothing(empty_database_dsn: str) -> None:
    chance = random.Random(3)
    served = cancelled = 0
    longest = 0.01  # seconds

    async def client(pool: Pool) -> None:
        nonlocal served, cancelled, longest
        for _ in range(60):
            with trio.move_on_after(chance.uniform(0, longest)) as scope:
                assert await pool.run("client", _one) == 1
                served += 1
            cancelled += scope.cancelled_caught
            # About half of them are cancelled, however busy the machine.
            longest *= 1.02 if scope.cancelled_caught else 1 / 1.02

    settings = PoolSettings(size=2, reserved=0, slow_target=60.0)  # nobody is shed, however slow the machine
    async with pool_harness(empty_database_dsn, settings) as harness:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(client, harness.pool)
        await harness.until_full()
        assert len(harness.state.queue) == 0
        assert harness.pool._gate.in_mailbox == 0
    assert served > 0
    assert cancelled > 0


async def test_the_system_lane_has_a_connection_kept_free(empty_database_dsn: str) -> None:
    settings = PoolSettings(size=2, reserved=1)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        with pytest.raises(LeaseTimeout):
            await harness.pool.run("user", _one, within=0.1)
        assert await harness.pool.run("health", _one, within=0.5, lane=Lane.SYSTEM) == 1
        release.set()
        await harness.until_full()


async def test_the_system_lane_does_not_keep_a_second_one_free(empty_database_dsn: str) -> None:
    settings = PoolSettings(size=2, reserved=1)
    async with pool_harness(empty_database_dsn, settings) as harness:
        async with trio.open_nursery() as nursery:
            held = trio.Event()
            release = trio.Event()

            async def health() -> None:
                async with harness.pool.lease("health", lane=Lane.SYSTEM):
                    held.set()
                    await release.wait()

            nursery.start_soon(health)
            await held.wait()
            assert await harness.pool.run("user", _one, within=0.5) == 1
            release.set()
        await harness.until_full()


async def test_a_full_queue_refuses_the_next_at_once(empty_database_dsn: str) -> None:
    settings = attrs.evolve(ONE, max_waiting=3)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        for number in range(3):
            nursery.start_soon(harness.pool.run, "waiter", _one)
            await _waiting(harness, number + 1)
        with at_most(1), pytest.raises(LeaseShed, match=r"pool\.max_waiting = 3"):
            await harness.pool.run("one too many", _one)
        release.set()


async def test_a_spike_is_told_while_the_waiter_still_waits_and_again_when_it_ends(empty_database_dsn: str) -> None:
    settings = attrs.evolve(ONE, wait_warning=0.15, wait_critical=0.4, slow_target=60.0)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        took = Stopwatch()
        nursery.start_soon(harness.pool.run, "starving", _one)
        warning = await harness.until_event(WaitSpike)
        assert len(harness.state.queue) == 1, "it still waits"
        assert warning.label == "starving"
        assert 0.15 < warning.waited < 1.0 + took.late()
        assert '"holder" at pool/test_queue.py' in warning.holders
        assert "in _hold" in warning.holders.partition("standing at")[2]
        assert harness.system.services.beats.last_pool_wait_spike is not None
        await harness.until_event(SevereWaitSpike)
        assert len(harness.state.queue) == 1
        assert SPIKES.labels("pool.main", "interactive", "critical").value > 0
        release.set()
        resolved = await harness.until_event(WaitResolved)
        assert resolved.how == "served"
        assert resolved.waited > 0.4
        spikes = [event for event in harness.events if isinstance(event, WaitSpike)]
        assert [type(event) for event in spikes] == [WaitSpike, SevereWaitSpike], "each is told once"


async def test_switching_the_monitor_off_keeps_deadlines_and_the_watchdogs_slot(empty_database_dsn: str) -> None:
    settings = attrs.evolve(ONE, wait_warning=0.1, monitor=False)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        with pytest.raises(LeaseTimeout):
            await harness.pool.run("not monitored at all", _one, within=0.4)
        assert harness.system.services.beats.last_pool_wait_spike is not None
        assert not any(isinstance(event, WaitSpike) for event in harness.events)
        assert not any("not monitored at all" in line for line in LEASE_WAIT_SECONDS.lines())
        release.set()


async def test_an_overload_is_shed_early_after_being_told(empty_database_dsn: str) -> None:
    settings = attrs.evolve(ONE, slow_target=0.05, slow_interval=0.2)
    async with pool_harness(empty_database_dsn, settings) as harness, trio.open_nursery() as nursery:
        release = trio.Event()
        await nursery.start(_hold, harness.pool, release)
        with at_most(5), pytest.raises(LeaseShed, match=r"pool\.slow_target") as caught:
            await harness.pool.run("hopeless", _one, within=PATIENCE)
        assert '"holder"' in str(caught.value)
        assert any(isinstance(event, RequestsShed) for event in harness.events)
        release.set()
        await harness.until_full()


async def test_waits_are_counted_by_label_and_lane(empty_database_dsn: str) -> None:
    series = LEASE_WAIT_SECONDS.labels("pool.main", "counted here", "batch")
    before = series.count
    async with pool_harness(empty_database_dsn, ONE) as harness:
        for _ in range(3):
            await harness.pool.run("counted here", _one, lane=Lane.BATCH)
    assert series.count == before + 3
    (shown,) = (line for line in LEASE_WAIT_SECONDS.lines() if "counted here" in line and "_count" in line)
    assert shown.endswith(f'label="counted here",lane="batch"}} {series.count}')
