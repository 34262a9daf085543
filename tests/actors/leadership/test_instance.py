"""Who may work on a database: one process, which is sure of it, or else its workers rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio

from actors.leadership.instance import (
    INSTANCE_EPOCH,
    Instance,
    InstanceDoubted,
    InstanceHeld,
    InstanceLost,
    InstanceWaits,
)
from actors.leadership.process_identity import ProcessIdentity
from actors.pool.settings import PoolSettings
from db.errors import AmbiguousCommit
from db.tx import Tx
from db.work.leader_leases import Epoch, acquire_epoch, find_epoch, release_epoch, renew_epoch
from runtime import Budget, Event, Fatal, Inspect, Iteration, PeriodicWorker, Ref, StartRefused, unwrap_group
from runtime.config import load
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.postgres_cluster import Cluster
from tests.run_queue import PATIENCE, Stopwatch, at_most

SMALL = PoolSettings(size=3, reserved=1)
ELSEWHERE = str(attrs.evolve(ProcessIdentity.own(), boot_id="another-machine"))
TTL = 2.0


@attrs.define(eq=False)
class Worker(PeriodicWorker):
    """Role: a worker that does nothing. Owns nothing. On crash: loses nothing."""

    async def iterate(self, budget: Budget) -> Iteration:
        return Iteration()


@attrs.define(eq=False)
class InstanceOfOneWorker(Instance):
    """Role: an instance whose tree is known without a configuration. Owns nothing. On crash: as Instance."""

    def _dependents(self) -> Iterator[str]:
        yield from (name for name in ("worker",) if name in self.context.services.registry)


async def with_worker(harness: PoolHarness) -> Ref:
    """A worker that needs the instance."""
    return await harness.system.start(Worker(interval=600.0), name="worker")


async def is_suspended(worker: Ref) -> bool:
    """Asked in the control lane, so behind every Suspend and Resume that was sent before."""
    return bool((await worker.ask(Inspect(), within=PATIENCE))["suspended"])


async def start(harness: PoolHarness, mode: str = "exclusive", **arguments: float) -> Ref:
    actor = InstanceOfOneWorker(mode, **arguments)  # type: ignore[arg-type]  # the tests give every mode as text
    return await harness.system.start(actor, name="instance", on_crash=OnCrash.RESTART)


async def row(harness: PoolHarness) -> Epoch:
    found = await harness.pool.run("look", find_epoch, INSTANCE_EPOCH)
    assert found is not None
    return found


async def database_name(tx: Tx) -> str:
    return str(await tx.fetchval("SELECT current_database()"))


async def held_by(harness: PoolHarness, holder: str, ttl: float = TTL) -> Epoch:
    """Let somebody else hold the row."""

    async def take(tx: Tx) -> Epoch:
        return await acquire_epoch(tx, INSTANCE_EPOCH, holder, ttl)

    return await harness.pool.run("take", take)


async def test_a_stopped_instance_leaves_the_row_free_and_its_workers_at_rest(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        instance = await start(harness)
        assert not await is_suspended(worker)
        assert (await row(harness)).seconds_left > 1
        await harness.system.stop(instance)
        assert (await row(harness)).seconds_left == 0
        assert await is_suspended(worker)


async def test_a_killed_instance_knows_its_own_row_again_and_its_workers_go_on(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        instance = await start(harness)
        before = await row(harness)
        await harness.system.kill(instance)
        await harness.system.up(instance, 2)
        assert not await is_suspended(worker)
        after = await row(harness)
        assert (after.holder, after.epoch) == (before.holder, before.epoch + 1)


async def test_the_row_of_a_process_that_provably_ended_here_is_taken_at_once(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        own = ProcessIdentity.own()
        await held_by(harness, str(attrs.evolve(own, started=own.started - 1)), ttl=3600)
        with at_most(2):
            await start(harness)


async def test_a_silent_process_elsewhere_is_followed_when_its_time_is_up(
    database_dsn: str,
) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        await held_by(harness, ELSEWHERE)
        began, took = trio.current_time(), Stopwatch()
        await start(harness, "standby")
        assert await is_suspended(worker)
        assert (await harness.until_event(InstanceWaits)).level
        await harness.until_event(InstanceHeld)
        assert trio.current_time() - began > TTL - 0.5
        assert took.seconds() < 3.0, str(took)
        assert not await is_suspended(worker)


async def test_a_process_elsewhere_that_renews_is_alive_and_named(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness, trio.open_nursery() as nursery:
        held = await held_by(harness, ELSEWHERE)

        async def renew_when_waited_for() -> None:
            await harness.until_event(InstanceWaits)
            await harness.pool.run("renew", renew_epoch, held, TTL)

        nursery.start_soon(renew_when_waited_for)
        with pytest.raises(
            StartRefused, match=r"pid \d+ on host .*, since 20.* last heard of .* ago.*standby"
        ) as refused:
            await start(harness)
        assert refused.value.exit_code == 69


async def test_a_standby_starts_waits_and_takes_over_when_the_row_is_released(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        held = await held_by(harness, ELSEWHERE, ttl=3600)
        await start(harness, "standby")
        await harness.until_event(InstanceWaits)
        assert await is_suspended(worker)
        assert await harness.pool.run("release", release_epoch, held)
        await harness.until_event(InstanceHeld)
        assert not await is_suspended(worker)


async def test_a_row_that_is_somebody_elses_now_suspends_the_workers_and_ends_the_process(database_dsn: str) -> None:
    lost: list[Event] = []
    with pytest.RaisesGroup(Fatal, flatten_subgroups=True, allow_unwrapped=True) as ended, trio.fail_after(PATIENCE):
        async with pool_harness(database_dsn, SMALL) as harness:
            worker = await with_worker(harness)
            harness.system.services.events.subscribe(lost.append, InstanceLost)
            await start(harness)

            async def take_over(tx: Tx) -> Epoch:
                return await acquire_epoch(tx, INSTANCE_EPOCH, ELSEWHERE, 3600, lambda _: True)

            with suppress(AmbiguousCommit):  # the end of the tree may come before the answer
                assert (await harness.pool.run("take over", take_over)).is_mine
            await trio.sleep_forever()
    fatal = unwrap_group(ended.value)
    assert isinstance(fatal, Fatal)
    assert fatal.exit_code == 69
    assert "took over" in str(fatal)
    assert worker.address.look()["suspended"]
    assert lost


async def test_a_database_that_is_away_suspends_the_workers_in_time_and_ends_nothing(
    database_dsn: str, cluster: Cluster
) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        instance = await start(harness)
        name = await harness.pool.run("name", database_name)
        cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with trio.fail_after(PATIENCE):
            await harness.until_event(InstanceDoubted)
        assert await is_suspended(worker)
        seen = len(harness.events)
        cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        with trio.fail_after(15):
            while not any(isinstance(event, InstanceHeld) for event in harness.events[seen:]):
                await harness._next_event()
        assert not await is_suspended(worker)
        assert instance.incarnation == 1


async def test_a_start_without_a_database_goes_on_with_workers_at_rest() -> None:
    nowhere = "postgresql://atlas@127.0.0.1:1/atlas"
    async with pool_harness(nowhere, SMALL, wait=False) as harness:
        worker = await with_worker(harness)
        with at_most(3):
            await start(harness, patience=0.3)
        assert await is_suspended(worker)


async def test_shared_declines_to_run_and_leaves_the_workers_alone(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        worker = await with_worker(harness)
        with pytest.raises(Exception, match="shared"):
            await harness.system.start(InstanceOfOneWorker("shared"), name="instance")
        assert not await is_suspended(worker)


def test_trust_ends_before_the_row_does() -> None:
    with pytest.raises(ValueError, match="renew_every < trust < ttl"):
        Instance(trust=2.5)


def test_every_periodic_worker_of_the_shipped_tree_needs_the_instance() -> None:
    config = load(Path(__file__).parents[3] / "supervisor.toml", {})
    workers = [plan for plan in config.children if issubclass(plan.actor, PeriodicWorker)]
    assert workers
    assert [plan.name for plan in workers if "instance" not in plan.needs] == []
