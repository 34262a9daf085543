"""Two supervisors on one database: the second one refuses, waits, or helps, as it was told."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from runtime.child_process import ChildProcess, lines
from tests.e2e.changes import watch
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import BUY, assert_bought_once, assert_money_holds
from tests.e2e.test_own_parts import agent_of_ones_own
from tests.run_queue import PATIENCE, Stopwatch, at_most
from tests.stopping import stop

TAKEOVER_SECONDS = 3.0
ANNOUNCE_EPOCHS = (
    """
    CREATE FUNCTION announce_epoch() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_notify('test_keys', NEW.name); RETURN NULL; END$$
    """,
    "CREATE TRIGGER announce_epoch AFTER UPDATE ON epochs FOR EACH ROW EXECUTE FUNCTION announce_epoch()",
)


@asynccontextmanager
async def two(dsn: str, mode: str) -> AsyncIterator[tuple[Stack, Stack]]:
    """Two installations with a database in common, and one node; the second one runs in `mode`."""
    token = {"ATLAS__DATABASE__DSN": dsn, "ATLAS__NODES__LOCAL__TOKEN": "a-token-of-this-test-only-0123456789"}
    async with stack(token) as first, stack(token) as second, agent_of_ones_own(first) as url:
        first.env["ATLAS__NODES__LOCAL__URL"] = second.env["ATLAS__NODES__LOCAL__URL"] = url
        second.env["ATLAS__ACTOR__INSTANCE__ARGS__MODE"] = mode
        yield first, second


@asynccontextmanager
async def standing_by(here: Stack) -> AsyncIterator[ChildProcess]:
    """`atlas run` from the moment it says that it waits, which is long before its start screen."""
    process = here.spawn("run")
    assert process.stdout is not None
    assert process.stderr is not None
    waits = trio.Event()

    async def listen(stream: trio.lowlevel.FdStream) -> None:
        async for line in lines(stream):
            here.log += f"{line}\n"
            if "this process waits" in line:
                waits.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, process.stdout)
        nursery.start_soon(listen, process.stderr)
        try:
            with trio.move_on_after(60):
                await waits.wait()
            assert waits.is_set(), f"it does not wait:\n{here.log}"
            yield process
        finally:
            with trio.CancelScope(shield=True):
                await process.stop(signal.SIGINT, grace=30)
                await process.close()
            nursery.cancel_scope.cancel()


async def test_a_second_run_refuses_to_start_and_names_the_first(empty_database_dsn: str) -> None:
    async with two(empty_database_dsn, "exclusive") as (first, second), first.running() as supervisor:
        refused = await second.atlas("run", within=120)
        assert refused.status == 69
        assert f"pid {supervisor.pid} on host" in refused.stderr
        assert "since 20" in refused.stderr
        assert "standby" in refused.stderr
        assert second.processes() == []
        await first.ok("customer", "add", "42")


async def test_a_standby_works_within_three_seconds_after_a_sigkill(
    empty_database_dsn: str, tell: Callable[[str], None]
) -> None:
    async with (
        two(empty_database_dsn, "standby") as (first, second),
        first.running() as supervisor,
        watch(empty_database_dsn) as seen,
        standing_by(second) as standby,
    ):
        shown = await second.atlas("status")
        assert "paused" in shown.stdout
        assert f"pid {supervisor.pid}" in shown.stdout
        await first.ok("customer", "add", "42")
        await first.ok("stop", "activation")
        await first.ok(*BUY, "--amount", "14900")
        assert await seen.status_of(42) == "pending"
        supervisor.send_signal(signal.SIGKILL)
        took = Stopwatch(standby.pid)
        await seen.until_status(42, "active", within=PATIENCE)
        seconds = took.seconds()
        tell(f"SIGKILL → a waiting purchase is live on the standby: {seconds:.2f} s ({took})")
        assert seconds <= TAKEOVER_SECONDS
        await assert_bought_once(seen, 42)
        await assert_money_holds(seen)


async def test_two_that_share_both_work_and_do_everything_once(empty_database_dsn: str) -> None:
    async with two(empty_database_dsn, "shared") as (first, second):
        first.env["ATLAS__ACTOR__INSTANCE__ARGS__MODE"] = "shared"
        async with first.running(), watch(empty_database_dsn) as seen, second.running():
            for number in (1, 2):
                await first.ok("customer", "add", str(number))
                await second.ok(
                    *("buy", "--customer", str(number), "--tariff", "basic", "--days", "30", "--provider", "manual"),
                    *("--charge", f"c-{number}", "--amount", "14900"),
                )
            for number in (1, 2):
                await seen.until_status(number, "active")
                await assert_bought_once(seen, number)
            await assert_money_holds(seen)


async def test_a_frozen_holder_finds_that_it_was_followed_and_stops(empty_database_dsn: str) -> None:
    async with (
        two(empty_database_dsn, "standby") as (first, second),
        first.running() as supervisor,
        watch(empty_database_dsn) as seen,
        standing_by(second),
    ):
        for statement in ANNOUNCE_EPOCHS:
            await seen.value(statement)
        stop(supervisor.pid)

        async def is_followed() -> bool:
            return await seen.value("SELECT epoch FROM epochs WHERE name = 'supervisor'") == 2

        # Nobody can prove that it has ended, so the standby waits until its time is up.
        with at_most(TAKEOVER_SECONDS + 2):
            await seen.until(is_followed, within=PATIENCE)
        supervisor.send_signal(signal.SIGCONT)
        with trio.fail_after(90):
            assert await supervisor.wait() == 69
        assert "took over" in first.log
