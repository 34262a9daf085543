"""Those who hold: whatever becomes of them, the connection comes back and nothing half-done is committed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable

import attrs
import pytest
import trio
import trio.testing

from actors.pool.client import Pool, pool_of
from actors.pool.events import TAKEN_AWAY, IdleHeld, LeaseOverrun, LeaseReclaimed
from actors.pool.settings import PoolSettings
from db.errors import LeaseExpired, LeaseMisused, LeaseRevoked
from db.lease.lease import OpenLease
from db.tx import Tx
from runtime import Actor, Message, handler
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import pool_harness
from tests.run_queue import PATIENCE, Stopwatch

SMALL = PoolSettings(size=2, reserved=0)


async def _sleep(tx: Tx) -> None:
    await tx.execute("SELECT pg_sleep(20)")


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


async def _sessions_in_transaction(tx: Tx) -> int:
    found: int = await tx.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'atlas/main' AND pid <> pg_backend_pid() "
        "AND state <> 'idle' AND datname = current_database()"
    )
    return found


async def test_a_holder_beyond_its_limit_is_stopped_in_the_statement(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        began, took = trio.current_time(), Stopwatch()
        with pytest.raises(LeaseExpired) as caught:
            await harness.pool.run("too long", _sleep, hold=0.2)
        assert trio.current_time() - began >= 0.2
        assert took.seconds() < 0.45, f"before anybody had to use force: {took}"
        text = str(caught.value)
        for fact in ('"too long"', "its limit is 0.2 s", "test_holders.py", "_sleep"):
            assert fact in text
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


async def test_an_open_lease_beyond_its_limit_is_stopped_wherever_it_waits(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        with trio.fail_after(PATIENCE), pytest.raises(LeaseExpired, match="idler"):
            async with harness.pool.lease("idler", hold=0.2) as lease:
                await lease.execute("BEGIN")
                await trio.sleep(20)  # rule-ok: holding the connection idle is what is tested
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


async def test_a_shielded_holder_loses_its_connection_by_force(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        done = trio.Event()
        with trio.fail_after(10), pytest.raises(LeaseRevoked, match="did not react") as caught:
            async with harness.pool.lease("stubborn", hold=0.2) as lease:
                (record,) = harness.state.leases.values()
                with trio.CancelScope(shield=True):
                    overrun = await harness.until_event(LeaseOverrun)
                    assert not record.is_open
                    assert len(harness.state.leases) == 0, "taken away while the holder goes on"
                    done.set()
                    with pytest.raises(LeaseRevoked):
                        await lease.fetchval("SELECT 1")
        assert done.is_set()
        assert '"stubborn"' in str(caught.value)
        assert overrun.label == "stubborn"
        assert overrun.held > overrun.limit
        assert "test_holders.py" in overrun.stack
        await harness.until_full()


async def test_a_shielded_holder_in_a_statement_is_woken_by_force(empty_database_dsn: str) -> None:
    async def shielded(tx: Tx) -> None:
        with trio.CancelScope(shield=True):
            await tx.execute("SELECT pg_sleep(20)")

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        with trio.fail_after(PATIENCE), pytest.raises(LeaseRevoked, match="did not react"):
            await harness.pool.run("stubborn", shielded, hold=0.2)
        await harness.until_full()


async def test_a_holder_that_blocks_the_loop_is_reported_and_does_not_commit(empty_database_dsn: str) -> None:
    async def block(tx: Tx) -> None:
        await tx.execute("CREATE TABLE blocked ()")
        time.sleep(0.8)  # noqa: ASYNC251  it is the point
        await tx.execute("SELECT 1")

    async def exists(tx: Tx) -> bool:
        found: bool = await tx.fetchval("SELECT to_regclass('blocked') IS NOT NULL")
        return found

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        taken = [TAKEN_AWAY.labels("pool.main", why) for why in ("expired", "overrun")]
        before = sum(series.value for series in taken)
        with pytest.raises((LeaseExpired, LeaseRevoked)) as caught:
            await harness.pool.run("blocker", block, hold=0.1)
        for fact in ('"blocker"', "test_holders.py", "its limit is 0.1 s"):
            assert fact in str(caught.value)
        assert sum(series.value for series in taken) == before + 1
        await harness.until_full()
        assert not await harness.pool.run("exists", exists)


async def test_a_killed_holder_gives_back_within_a_turn_of_the_loop(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        ref, pool = await harness.holder("doomed")
        await harness.pool.run("warm", _one)

        async def work() -> None:
            await pool.run("doomed work", _sleep, hold=20)

        # Its own task, so that killing the actor cancels it.
        harness.system.address(ref)._run.start_task(work, (), "work", inherit_deadline=False)  # type: ignore[union-attr]
        with trio.fail_after(PATIENCE):
            while not harness.state.leases:
                await trio.testing.wait_all_tasks_blocked()
        await harness.system.kill(ref)
        assert not harness.state.leases, "gone by the time its exit is known"
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


@attrs.frozen
class _Crash(Message):
    """Raise in the handler."""


@attrs.define(eq=False)
class _CrashingHolder(Actor):
    """Role: holds a connection in a task of its own and crashes when told to. Owns nothing. On crash: gives it back."""

    holding: Callable[[], None]

    async def on_start(self) -> None:
        if self.context.incarnation == 1:
            self.context.start_task(self._hold)

    async def _hold(self) -> None:
        async with pool_of(self.context, "pool.main").lease("crasher", hold=60) as lease:
            await lease.execute("BEGIN")
            self.holding()
            await lease.execute("SELECT pg_sleep(60)")

    @handler
    async def crash(self, _message: _Crash) -> None:
        raise ZeroDivisionError


async def test_a_holder_that_crashes_gives_back_before_it_runs_again(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        holding = trio.Event()
        ref = await harness.system.start(_CrashingHolder(holding.set), name="crasher", on_crash=OnCrash.RESTART)
        with trio.fail_after(PATIENCE):
            await holding.wait()
            ref.tell(_Crash())
            while ref.incarnation == 1:
                await trio.testing.wait_all_tasks_blocked()
        assert harness.state.leases == {}
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


async def test_a_lease_that_outlives_its_holders_incarnation_is_taken_back(empty_database_dsn: str) -> None:
    """Work that a holder's actor started outside its own tasks does not keep the connection when the actor is gone."""
    async with pool_harness(empty_database_dsn, SMALL) as harness, trio.open_nursery() as nursery:
        ref, pool = await harness.holder("doomed")
        outcome: list[BaseException] = []

        async def stray() -> None:
            try:
                await pool.run("stray work", _sleep, hold=20)
            except LeaseRevoked as error:
                outcome.append(error)

        nursery.start_soon(stray)
        with trio.fail_after(PATIENCE):
            while not harness.state.leases:
                await trio.testing.wait_all_tasks_blocked()
            await harness.system.kill(ref)
            reclaimed = await harness.until_event(LeaseReclaimed)
        assert reclaimed.owner == "doomed"
        await harness.until_full()
    assert "doomed ended" in str(outcome[0])


async def test_a_holder_that_raises_gives_back_a_clean_connection(empty_database_dsn: str) -> None:
    async def fail(tx: Tx) -> None:
        await tx.execute("SELECT pg_advisory_xact_lock(1, 1)")
        raise ZeroDivisionError

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await harness.pool.run("fail", fail)
        assert len(harness.state.idle) == 2
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


async def test_a_cancelled_holder_goes_on_at_once_and_its_statement_is_stopped(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        took = Stopwatch()
        with trio.move_on_after(0.1) as scope:
            await harness.pool.run("cancelled", _sleep, hold=20)
        assert scope.cancelled_caught
        assert took.seconds() < 0.1 + 0.25, str(took)
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0


async def test_a_cancellation_that_the_function_swallows_is_not_committed(empty_database_dsn: str) -> None:
    async def swallow(tx: Tx) -> str:
        with trio.move_on_after(0.1):
            await tx.execute("CREATE TABLE t (); SELECT pg_sleep(20)")
        return "fine"

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        with pytest.raises(Exception, match="cancelled"):
            await harness.pool.run("swallow", swallow)
        await harness.until_full()


async def _slow_commits(tx: Tx) -> None:
    """A table `t` whose every transaction takes 0.4 s to commit."""
    await tx.execute(
        "CREATE TABLE t (n int); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )


async def _insert(tx: Tx) -> None:
    await tx.execute("INSERT INTO t VALUES (1)")


async def _count(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT count(*) FROM t")
    return found


async def test_a_commit_under_way_is_not_cut_off_by_a_cancellation(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        await harness.pool.run("setup", _slow_commits)
        finished = False
        with trio.move_on_after(0.15):
            await harness.pool.run("slow commit", _insert)
            finished = True
        assert finished, "a decided commit is reported, not thrown away"
        assert await harness.pool.run("count", _count) == 1


async def test_a_commit_under_way_is_not_cut_off_by_the_hold_deadline(empty_database_dsn: str) -> None:
    settings = attrs.evolve(SMALL, revoke_grace=0.02)
    async with pool_harness(empty_database_dsn, settings) as harness:
        await harness.pool.run("setup", _slow_commits)
        await harness.pool.run("slow commit", _insert, hold=0.15)
        async with harness.pool.lease("open", hold=0.5) as lease:
            with trio.CancelScope(shield=True):  # else the block, which is not the commit, ends at its deadline
                await lease.execute("SELECT pg_sleep(0.3)")
                await lease.run(_insert)
        assert await harness.pool.run("count", _count) == 2
        assert not any(isinstance(event, LeaseOverrun) for event in harness.events)


async def _bulk(tx: Tx) -> None:
    await tx.execute("CREATE TABLE bulk (n int); CREATE TABLE slow (n int CHECK (n > 0 OR pg_sleep(0.05) IS NOT NULL))")


@pytest.mark.parametrize("how", ["executemany", "copy"])
async def test_a_cancelled_bulk_load_is_stopped_and_its_lease_is_of_no_more_use(
    empty_database_dsn: str, how: str
) -> None:
    rows = [(0,)] * 400

    async def load(lease: OpenLease) -> None:
        if how == "executemany":
            await lease.executemany("INSERT INTO slow VALUES ($1)", rows)
        else:
            await lease.copy_records("slow", rows, ["n"])

    async def loaded(tx: Tx) -> int:
        found: int = await tx.fetchval("SELECT count(*) FROM slow")
        return found

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        await harness.pool.run("create", _bulk)
        async with harness.pool.lease("bulk", hold=20) as lease:
            with trio.move_on_after(0.1) as scope:
                await load(lease)
            assert scope.cancelled_caught
            with pytest.raises(LeaseMisused, match="was cancelled before the server answered"):
                await lease.fetchval("SELECT 1")
        assert len(harness.state.idle) < 2, "not handed on as it is"
        await harness.until_full()
        assert await harness.pool.run("check", _sessions_in_transaction) == 0
        assert await harness.pool.run("loaded", loaded) == 0


async def test_a_lease_of_a_generator_that_another_task_closes_is_given_back(empty_database_dsn: str) -> None:
    async def rows(pool: Pool) -> AsyncGenerator[int, None]:
        async with pool.lease("generator"):
            yield 1

    async def begin() -> None:
        assert await anext(kept) == 1

    async with pool_harness(empty_database_dsn, SMALL) as harness:
        kept = rows(harness.pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
        assert len(harness.state.leases) == 1
        with pytest.raises((RuntimeError, ValueError)):
            await kept.aclose()
        assert harness.state.leases == {}
        await harness.until_full()


async def test_idle_time_of_an_open_lease_is_measured_and_told(empty_database_dsn: str) -> None:
    settings = PoolSettings(size=2, idle_held_warning=0.05)
    async with pool_harness(empty_database_dsn, settings) as harness:
        async with harness.pool.lease("dreamer") as lease:
            await lease.fetchval("SELECT pg_sleep(0.1)")
            await trio.sleep(0.2)  # rule-ok: holding the connection idle is what is tested
        told = await harness.until_event(IdleHeld)
        assert told.label == "dreamer"
        assert 0.15 < told.idle < told.held - 0.05


async def test_an_expired_holder_never_disturbs_the_next_one(empty_database_dsn: str) -> None:
    async def hog(pool: Pool) -> None:
        for _ in range(5):
            with pytest.raises(LeaseExpired):
                await pool.run("hog", _sleep, hold=0.03)

    async def worker(pool: Pool) -> None:
        for _ in range(100):
            assert await pool.run("worker", _one) == 1

    async with pool_harness(empty_database_dsn, PoolSettings(size=3, reserved=0)) as harness:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hog, harness.pool)
            for _ in range(3):
                nursery.start_soon(worker, harness.pool)
        await harness.until_full()
