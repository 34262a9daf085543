"""The database goes away, comes back, stops answering, or was never usable: a state of the pool, not its crash."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from actors import pool as pool_package
from actors.pool.client import Pool
from actors.pool.events import BridgeFallback, PoolStatus, PoolWentDown, WaitResolved
from actors.pool.pool import PoolActor
from actors.pool.settings import PoolSettings
from db.driver import bridge_choice, connection
from db.embedded import EmbeddedSettings
from db.errors import AmbiguousCommit, ConnectionLost, PoolDown
from db.lease.queue import Lane
from db.settings import DatabaseSettings
from db.tx import Tx
from runtime import AtlasError, Fatal
from runtime.config import Secret
from runtime.testing import actor_system
from tests.actors.pool_fixtures import POOL, pool_harness
from tests.postgres_cluster import Cluster, temporary_root
from tests.run_queue import PATIENCE, Stopwatch, at_most
from tests.stopping import stop

SMALL = PoolSettings(size=3, reserved=0)


@pytest.fixture(scope="module")
def own_data() -> Iterator[Cluster]:
    """Where the server of these tests keeps its data."""
    server = Cluster(temporary_root())
    try:
        server.initialise()
        yield server
    finally:
        shutil.rmtree(server.root, ignore_errors=True)


@pytest.fixture
def own_cluster(own_data: Cluster) -> Iterator[Cluster]:
    """A server of this test alone, just started, which may be stopped and killed."""
    own_data.start()
    try:
        yield own_data
    finally:
        own_data.stop()


async def _one(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 1")
    return found


async def _pid(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT pg_backend_pid()")
    return found


async def _terminate_all(tx: Tx) -> int:
    found: int = await tx.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'atlas/main' AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    return found


def _server_signal(cluster: Cluster, number: int) -> None:
    """Stop the server: SIGINT is a fast stop, SIGQUIT an immediate one."""
    assert cluster.process is not None
    cluster.process.send_signal(number)
    cluster.process.wait(20)


async def test_idle_connections_that_were_terminated_cost_no_caller_an_error(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        assert await harness.pool.run("terminate", _terminate_all) == 2
        for _ in range(6):
            assert await harness.pool.run("after", _one) == 1
        await harness.until_full()


async def test_a_connection_is_looked_at_also_right_after_its_last_use(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    async with pool_harness(empty_database_dsn, attrs.evolve(SMALL, size=1)) as harness:
        pid = await harness.pool.run("pid", _pid)
        await trio.to_thread.run_sync(cluster.sql, f"SELECT pg_terminate_backend({pid}, 3000)")
        assert await harness.pool.run("after", _pid) != pid


async def test_a_pool_without_a_connection_yet_is_not_ready_whatever_waiters_do() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        dsn = f"postgresql://atlas@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable"
        settings = attrs.evolve(SMALL, wait_warning=0.05, bridge="plain")
        async with pool_harness(dsn, settings, wait=False) as harness:
            address = harness.system.address(harness.ref)
            with pytest.raises(PoolDown, match=r"the database is away.*is connecting"):
                await harness.pool.run("early", _one, within=0.4)
            await harness.until_event(WaitResolved)
            assert harness.state.status is PoolStatus.CONNECTING
            assert address.readiness == (False, "connecting")


async def test_a_terminated_holder_gets_connection_lost_and_the_place_is_filled_again(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    async def wait_for_the_end(tx: Tx) -> None:
        pids.append(await _pid(tx))
        running.set()
        await tx.execute("SELECT pg_sleep(20)")

    pids: list[int] = []
    running = trio.Event()
    async with pool_harness(empty_database_dsn, SMALL) as harness, trio.open_nursery() as nursery:

        async def kill() -> None:
            await running.wait()
            await trio.to_thread.run_sync(cluster.sql, f"SELECT pg_terminate_backend({pids[0]})")

        nursery.start_soon(kill)
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLost, match="administrator command"):
            await harness.pool.run("victim", wait_for_the_end, hold=20)
        await harness.until_full()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_restarted_server_is_used_again_without_a_restart_of_the_pool(
    own_cluster: Cluster, how: signal.Signals
) -> None:
    async with pool_harness(own_cluster.dsn(), SMALL) as harness:
        errors: list[Exception] = []
        done = trio.Semaphore(0)
        stop = trio.Event()

        async def progress(times: int) -> None:
            for _ in range(times):
                await done.acquire()

        async def client(pool: Pool) -> None:
            while not stop.is_set():
                try:
                    assert await pool.run("client", _one) == 1
                    done.release()
                except AtlasError as error:
                    errors.append(error)
                    await trio.sleep(0.01)  # rule-ok: a client that tries again

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client, harness.pool)
            await progress(20)
            await trio.to_thread.run_sync(_server_signal, own_cluster, how)
            await harness.until(PoolStatus.DOWN)
            await trio.to_thread.run_sync(own_cluster.start)
            await harness.until(PoolStatus.UP)
            await progress(20)
            stop.set()
        # a server that goes away amid COMMIT leaves its outcome open, and the pool says so
        assert {type(error) for error in errors} <= {PoolDown, ConnectionLost, AmbiguousCommit}
        assert any(isinstance(error, PoolDown) for error in errors)
        await harness.until_full()
        assert harness.ref.incarnation == 1


async def test_while_it_is_down_requests_are_refused_at_once_with_the_cause(own_cluster: Cluster) -> None:
    async with pool_harness(own_cluster.dsn(), SMALL) as harness:
        await trio.to_thread.run_sync(_server_signal, own_cluster, signal.SIGQUIT)
        with pytest.raises((PoolDown, ConnectionLost)):
            await harness.pool.run("first to notice", _one)
        down = await harness.until_event(PoolWentDown)
        took = Stopwatch()
        with pytest.raises(PoolDown) as caught:
            await harness.pool.run("second", _one)
        assert took.seconds() < 0.2, str(took)
        assert str(own_cluster.root) in str(caught.value)
        assert "database.dsn" in str(caught.value)
        assert down.cause in str(caught.value)
        ready, why = harness.system.address(harness.ref).readiness
        assert not ready
        assert why == harness.state.cause


async def test_the_system_lane_waits_out_an_outage(own_cluster: Cluster) -> None:
    async with pool_harness(own_cluster.dsn(), SMALL) as harness:
        await trio.to_thread.run_sync(_server_signal, own_cluster, signal.SIGQUIT)
        harness.state.sweep(trio.current_time())
        await harness.until(PoolStatus.DOWN)
        async with trio.open_nursery() as nursery:
            found: list[int] = []

            async def probe() -> None:
                found.append(await harness.pool.run("health", _one, within=20, lane=Lane.SYSTEM))

            nursery.start_soon(probe)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert found == []
            await trio.to_thread.run_sync(own_cluster.start)
        assert found == [1]


async def test_a_pool_starts_without_a_server_and_finds_it_later(own_cluster: Cluster) -> None:
    own_cluster.stop()
    async with pool_harness(own_cluster.dsn(), SMALL, wait=False) as harness:
        await harness.until(PoolStatus.DOWN)
        with pytest.raises(PoolDown):
            await harness.pool.run("too early", _one)
        await trio.to_thread.run_sync(own_cluster.start)
        await harness.until_full()
        assert await harness.pool.run("in time", _one) == 1


async def test_a_killed_backend_takes_all_sessions_down_and_the_pool_recovers(own_cluster: Cluster) -> None:
    async with pool_harness(own_cluster.dsn(), SMALL) as harness:
        pid = await harness.pool.run("pid", _pid)
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(15):
            while True:
                try:
                    await harness.pool.run("retry", _one, lane=Lane.SYSTEM)
                    break
                except (PoolDown, ConnectionLost, AmbiguousCommit):
                    pass  # the system lane waits out an outage: the next try is not at once
        await harness.until_full()


async def test_a_stopped_backend_costs_no_place(empty_database_dsn: str) -> None:
    settings = attrs.evolve(SMALL, quarantine=0.3)
    async with pool_harness(empty_database_dsn, settings) as harness:
        stopped: list[int] = []

        async def stop_oneself(tx: Tx) -> None:
            stopped.append(await _pid(tx))
            stop(stopped[0])
            await tx.execute("SELECT 1")

        try:
            with trio.move_on_after(0.1) as scope:
                await harness.pool.run("stopped", stop_oneself, hold=20)
            assert scope.cancelled_caught
            with at_most(3):
                await harness.until_full()
            for _ in range(6):
                assert await harness.pool.run("after", _pid) != stopped[0]
        finally:
            os.kill(stopped[0], signal.SIGCONT)


async def test_a_stopped_server_does_not_hold_a_caller_beyond_its_deadline(own_cluster: Cluster) -> None:
    """Nobody answers, nobody refuses: neither queries nor connects end by themselves."""
    database = DatabaseSettings(purpose="test", connect_timeout=0.3)
    async with pool_harness(own_cluster.dsn(), attrs.evolve(SMALL, quarantine=0.3), database=database) as harness:
        group = [own_cluster.pid, *_children(own_cluster.pid)]
        stop(*group)
        try:
            with at_most(2), trio.move_on_after(0.2) as scope:
                await harness.pool.run("unanswered", _one, hold=20)
            assert scope.cancelled_caught
        finally:
            for pid in group:
                os.kill(pid, signal.SIGCONT)
        await harness.until_full()
        assert await harness.pool.run("after", _one) == 1


async def test_a_server_that_takes_no_new_connection_degrades_the_pool_and_then_downs_it(
    own_cluster: Cluster,
) -> None:
    """The postmaster alone stands still: what is open works, but a cancelled statement cannot even be told to the server."""

    async def give_up(pool: Pool) -> None:
        with trio.move_on_after(0.1) as scope:
            await pool.run("slow", _sleep, hold=20)
        assert scope.cancelled_caught

    database = DatabaseSettings(purpose="test", connect_timeout=0.3)
    async with pool_harness(own_cluster.dsn(), attrs.evolve(SMALL, quarantine=0.3), database=database) as harness:
        stop(own_cluster.pid)
        try:
            await give_up(harness.pool)
            await harness.until(PoolStatus.DEGRADED)
            for _ in range(5):
                assert await harness.pool.run("served", _one) == 1
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(give_up, harness.pool)
            await harness.until(PoolStatus.DOWN)
            with at_most(0.2), pytest.raises(PoolDown, match=r"did not answer within 0\.3 s"):
                await harness.pool.run("refused", _one)
        finally:
            os.kill(own_cluster.pid, signal.SIGCONT)
        await harness.until_full()
        assert await harness.pool.run("after", _one) == 1
        assert harness.ref.incarnation == 1


async def _sleep(tx: Tx) -> None:
    await tx.execute("SELECT pg_sleep(20)")


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return [int(line) for line in found.stdout.split()]


async def _first_failure(dsn: str, *, migrate: bool = False) -> BaseException:
    """How a pool on this address ends at boot."""
    database = DatabaseSettings(dsn=Secret(dsn), purpose="test")
    with trio.fail_after(15), pytest.raises(BaseException) as caught:
        async with actor_system() as system:
            actor = PoolActor(database, SMALL, EmbeddedSettings(), migrate=migrate)
            ref = await system.start(actor, name=POOL)
            await system.exited(ref)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        assert len(error.exceptions) == 1
        error = error.exceptions[0]
    return error


async def test_a_server_that_is_too_old_ends_the_process_with_78(
    empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OLDEST_SERVER", 99)
    error = await _first_failure(empty_database_dsn)
    assert isinstance(error, Fatal)
    assert error.exit_code == 78
    assert "too old" in str(error)


async def test_refused_credentials_at_boot_end_the_process_with_78(cluster: Cluster) -> None:
    error = await _first_failure(cluster.dsn().replace("atlas@", "nobody_like_that:hunter2@"))
    assert isinstance(error, Fatal)
    assert error.exit_code == 78
    assert "hunter2" not in str(error)


async def test_a_schema_newer_than_the_program_ends_the_process_with_78(cluster: Cluster, database_dsn: str) -> None:
    name = urlsplit(database_dsn).path.removeprefix("/")
    cluster.sql("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'from_the_future', 'x')", name)
    error = await _first_failure(database_dsn, migrate=True)
    assert isinstance(error, Fatal)
    assert error.exit_code == 78
    assert "newer than this program" in str(error)


async def test_the_first_pool_brings_the_schema_up_to_date_before_it_serves(empty_database_dsn: str) -> None:
    async def migrated(tx: Tx) -> bool:
        found: bool = await tx.fetchval("SELECT count(*) > 0 FROM schema_migrations")
        return found

    database = DatabaseSettings(purpose="test")
    async with pool_harness(empty_database_dsn, SMALL, database=database, migrate=True) as harness:
        assert await harness.pool.run("migrated", migrated)


async def test_a_bridge_that_is_not_recognised_is_replaced_with_a_warning(
    empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bridge_choice.VERSIONS, "asyncpg", "0.1.0")
    async with pool_harness(empty_database_dsn, SMALL, may_fall_back=True) as harness:
        told = await harness.until_event(BridgeFallback)
        assert "asyncpg is" in told.reason
        assert await harness.pool.run("works", _one) == 1


async def test_the_plain_bridge_can_be_asked_for(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, attrs.evolve(SMALL, bridge="plain")) as harness:
        assert await harness.pool.run("works", _one) == 1
        assert not any(isinstance(event, BridgeFallback) for event in harness.events)
        assert harness.system.address(harness.ref).facts["bridge"] == "plain"


async def test_an_old_connection_is_replaced_when_it_comes_back(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, attrs.evolve(SMALL, size=1, max_lifetime=0.1)) as harness:
        first = await harness.pool.run("pid", _pid)
        with trio.fail_after(PATIENCE):
            while await harness.pool.run("pid", _pid) == first:
                pass
        await harness.until_full()


@pytest.mark.parametrize(
    "entry_point",
    [
        "client.pool_of",
        "pool.PoolActor",
        "embedded_postgres.EmbeddedPostgres",
        "database_worker.DatabaseWorker",
        "database_worker.ClaimingWorker",
    ],
)
def test_the_package_offers_what_its_description_names(entry_point: str) -> None:
    module, _, name = entry_point.partition(".")
    assert entry_point in (pool_package.__doc__ or "")
    assert hasattr(importlib.import_module(f"actors.pool.{module}"), name)
