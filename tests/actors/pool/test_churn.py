"""Storms: thousands of leases, cancelled, crashed and killed at random points. Afterwards the state must balance exactly.

ATLAS_TEST_STORM=5 makes the two storms of cancels five times as long. In the first most are cancelled while they wait for a
connection, in the second nobody waits and they are cancelled amid a statement: by default 10 000 leases and 2 000 cancels there
on the inline bridge.

Each unit of work inserts its own number and reads it back. What `run` said about it is compared with what is in the table:
returned means committed, raised means not, and only AmbiguousCommit may mean either.
"""

from __future__ import annotations

import math
import os
import random

import attrs
import pytest
import trio
import trio.testing

from actors.pool.client import Pool, gate_of
from actors.pool.settings import PoolSettings
from db.errors import AmbiguousCommit, ConnectionLost, LeaseError, LeaseRevoked, PoolCrashed
from db.tx import Tx
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.postgres_cluster import Cluster
from tests.run_queue import Stopwatch

STORM = PoolSettings(size=5, reserved=1, slow_target=60.0)
"""Nobody is shed, however slow the machine."""
STORMS = int(os.environ.get("ATLAS_TEST_STORM", "1"))
"""How many times as long as by default."""


WIDE = PoolSettings(size=10, reserved=0, slow_target=60.0)
"""More connections than `CLIENTS`, so that nobody has to wait for long."""
CLIENTS = 8
ROUNDS = {"inline": 1350, "plain": 135}
"""Leases of each client; the plain bridge is several times slower."""


@attrs.define
class Ledger:
    """What callers were told."""

    chance: random.Random
    done: set[int] = attrs.field(factory=set)
    unknown: set[int] = attrs.field(factory=set)
    cancelled: int = 0
    cancelled_amid: int = 0
    """Of these, while a statement was under way."""
    errors: dict[str, int] = attrs.field(factory=dict)
    _number: int = 0
    _more: trio.Event = attrs.field(factory=trio.Event)

    def next(self) -> int:
        self._number += 1
        return self._number

    def committed(self, number: int) -> None:
        self.done.add(number)
        self._more.set()

    async def progress(self, by: int) -> None:
        """Wait until so many more are committed."""
        target = len(self.done) + by
        with trio.fail_after(60):
            while len(self.done) < target:
                self._more = trio.Event()
                await self._more.wait()

    def failed(self, number: int, error: LeaseError) -> None:
        self.errors[type(error).__name__] = self.errors.get(type(error).__name__, 0) + 1
        if isinstance(error, AmbiguousCommit):
            self.unknown.add(number)


async def _create(tx: Tx) -> None:
    await tx.execute("CREATE TABLE work (n int PRIMARY KEY)")


async def _work(tx: Tx, number: int, pause: float) -> int:
    await tx.execute("INSERT INTO work VALUES ($1)", number)
    if pause:
        await tx.execute("SELECT pg_sleep($1)", pause)
    found: int = await tx.fetchval("SELECT n FROM work WHERE n = $1", number)
    return found


async def _numbers(tx: Tx) -> set[int]:
    return {row["n"] for row in await tx.fetch("SELECT n FROM work")}


async def _busy_sessions(tx: Tx) -> list[str]:
    rows = await tx.fetch(
        "SELECT state || ': ' || query AS busy FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'atlas/%' AND pid <> pg_backend_pid() AND state <> 'idle'"
    )
    return [row["busy"] for row in rows]


async def _sessions(tx: Tx) -> int:
    found: int = await tx.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'atlas/main'"
    )
    return found


async def _client(pool: Pool, ledger: Ledger, rounds: int, patience: float) -> None:
    for _ in range(rounds):
        number = ledger.next()
        pause = ledger.chance.choice((0, 0, 0, 0.002))
        limit = ledger.chance.choice((math.inf, patience * ledger.chance.random() if patience < math.inf else math.inf))
        with trio.move_on_after(limit) as scope:
            try:
                assert await pool.run("work", _work, number, pause) == number
                ledger.committed(number)
            except LeaseError as error:
                ledger.failed(number, error)
                await trio.lowlevel.checkpoint()
        ledger.cancelled += scope.cancelled_caught


async def _settle(harness: PoolHarness, ledger: Ledger) -> None:
    """The state balance: nothing lost, nothing invented, nobody left behind."""
    harness.state.sweep(trio.current_time())
    await harness.until_full()
    assert len(harness.state.queue) == 0
    assert harness.state.leases == {}
    assert gate_of(harness.ref).in_mailbox == 0
    found = await harness.pool.run("numbers", _numbers)
    assert ledger.done - found == set(), "reported as committed, but not there"
    assert found - ledger.done - ledger.unknown == set(), "there, although its caller was told otherwise"
    assert await harness.pool.run("busy", _busy_sessions) == []
    with trio.fail_after(60):
        # A backend that was told to go may still be on its way: then its connection is found dead only now.
        while await harness.pool.run("sessions", _sessions) != harness.state.size:
            harness.state.sweep(trio.current_time())
            await harness.until_full()


async def test_cancels_at_random_points_lose_nothing(empty_database_dsn: str) -> None:
    ledger = Ledger(random.Random(11))
    async with pool_harness(empty_database_dsn, STORM) as harness:
        await harness.pool.run("create", _create)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(_client, harness.pool, ledger, 120 * STORMS, 0.012)
        await _settle(harness, ledger)
    assert ledger.cancelled > 400 * STORMS
    assert len(ledger.done) > 100 * STORMS
    assert ledger.errors == {}, "a cancelled caller is cancelled, and nobody else notices"


async def _impatient_client(pool: Pool, ledger: Ledger, rounds: int) -> None:
    """A fifth of its transactions is cancelled in a statement, at a random point of it."""
    scope = trio.CancelScope()
    is_amid = False

    async def work(tx: Tx, number: int, patience: float) -> int:
        nonlocal is_amid
        found: int = await tx.fetchval("INSERT INTO work VALUES ($1) RETURNING n", number)
        if patience < math.inf:
            scope.deadline = trio.current_time() + patience
            is_amid = True
            await tx.execute("SELECT pg_sleep(0.05)")
            is_amid = False
        return found

    for turn in range(rounds):
        number = ledger.next()
        patience = ledger.chance.uniform(0.0, 0.008) if turn % 5 == 0 else math.inf
        scope, is_amid = trio.CancelScope(), False
        with scope:
            assert await pool.run("work", work, number, patience) == number
            ledger.committed(number)
        ledger.cancelled += scope.cancelled_caught
        ledger.cancelled_amid += scope.cancelled_caught and is_amid


async def test_thousands_of_cancels_amid_statements_lose_nothing(empty_database_dsn: str, pool_bridge: str) -> None:
    ledger = Ledger(random.Random(15))
    rounds = ROUNDS[pool_bridge] * STORMS
    async with pool_harness(empty_database_dsn, WIDE) as harness:
        await harness.pool.run("create", _create)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(_impatient_client, harness.pool, ledger, rounds)
        leases = harness.state.token
        await _settle(harness, ledger)
    wanted, amid = (10_000, 2_000) if pool_bridge == "inline" else (1_000, 180)
    assert leases >= wanted * STORMS
    assert ledger.cancelled_amid >= amid * STORMS
    assert ledger.errors == {}


async def test_terminated_backends_lose_nothing(cluster: Cluster, empty_database_dsn: str) -> None:
    ledger = Ledger(random.Random(12))
    async with pool_harness(empty_database_dsn, STORM) as harness:
        await harness.pool.run("create", _create)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(_client, harness.pool, ledger, 100, math.inf)
            for _ in range(3):
                await trio.to_thread.run_sync(
                    cluster.sql,
                    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'atlas/main'",
                )
        await _settle(harness, ledger)
    assert set(ledger.errors) <= {"ConnectionLost", "AmbiguousCommit", "PoolDown"}
    assert len(ledger.done) > 500


async def test_holders_killed_at_random_points_lose_nothing(empty_database_dsn: str) -> None:
    ledger = Ledger(random.Random(13))
    async with pool_harness(empty_database_dsn, STORM) as harness:
        await harness.pool.run("create", _create)
        for life in range(12):
            ref, pool = await harness.holder(f"victim {life}")
            run = harness.system.address(ref)._run
            assert run is not None
            for _ in range(6):
                run.start_task(_client, (pool, ledger, 1000, math.inf), "client", inherit_deadline=False)
            await ledger.progress(15)
            await harness.system.kill(ref)
            assert not any(lease.owner.name == ref.name for lease in harness.state.leases.values())
        await _settle(harness, ledger)
    assert len(ledger.done) >= 12 * 15


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


async def test_a_pool_killed_under_load_tells_everybody_at_once_and_comes_back_whole(empty_database_dsn: str) -> None:
    ledger = Ledger(random.Random(14))
    async with pool_harness(empty_database_dsn, STORM, on_crash=OnCrash.RESTART) as harness:
        await harness.pool.run("create", _create)
        stop = False
        tokens = [gate_of(harness.ref).token]

        async def client() -> None:
            while not stop:
                await _client(harness.pool, ledger, 1, math.inf)

        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(client)
            for _ in range(6):
                await ledger.progress(30)
                state = harness.state
                await harness.system.kill(harness.ref)
                assert state.leases == {}
                assert len(state.queue) == 0
                assert state.open_count == 0
                tokens.append(gate_of(harness.ref).token)
                await harness.until()
            stop = True
        await _settle(harness, ledger)
        assert harness.ref.incarnation == 7
    assert tokens == sorted(tokens), "fencing tokens go on where the last incarnation ended"
    assert set(ledger.errors) <= {"LeaseRevoked", "PoolCrashed", "PoolDown", "AmbiguousCommit", "ConnectionLost"}
    assert ledger.errors["LeaseRevoked"] > 0
    assert ledger.errors["PoolCrashed"] > 0


async def test_an_old_lease_is_dead_in_the_new_incarnation(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, STORM, on_crash=OnCrash.RESTART) as harness:
        with pytest.raises(LeaseRevoked, match=r"pool\.main ended"):
            async with harness.pool.lease("old") as lease:
                with trio.CancelScope(shield=True):
                    await harness.system.kill(harness.ref)
                    await harness.until_full()
                    with pytest.raises(LeaseRevoked):
                        await lease.fetchval("SELECT 1")
        await harness.until_full()
        assert await harness.pool.run("new", _one) == 1


async def test_waiters_of_a_killed_pool_are_told_at_once(empty_database_dsn: str) -> None:
    settings = PoolSettings(size=1, reserved=0)
    async with pool_harness(empty_database_dsn, settings, on_crash=OnCrash.RESTART) as harness:
        told = 0

        async def wait() -> None:
            nonlocal told
            with pytest.raises(PoolCrashed, match="may be repeated"):
                await harness.pool.run("waiter", _one, within=30)
            told += 1

        async def hold() -> None:
            with pytest.raises((LeaseRevoked, ConnectionLost)):
                await harness.pool.run("holder", _work, 1, 20.0, hold=30)

        await harness.pool.run("create", _create)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            while not harness.state.leases:
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                nursery.start_soon(wait)
            while len(harness.state.queue) < 5:
                await trio.testing.wait_all_tasks_blocked()
            took = Stopwatch()
            await harness.system.kill(harness.ref)
            while told < 5:
                await trio.testing.wait_all_tasks_blocked()
            assert took.seconds() < 0.5, str(took)
