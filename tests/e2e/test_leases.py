"""`atlas leases` and `atlas pool` against a real `atlas run`: every pool is seen, and what they change takes effect."""

from __future__ import annotations

import re
from typing import Any

import trio

from tests.e2e.changes import Watch, watch
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import dsn_of

POOL = "pool.main"
BACKGROUND = (
    "fast_expiry",
    "housekeeping",
    "reconcile",
    "reminders",
    "notifications",
    "auto_renewal",
    "canary",
    "usage",
)
"""Nobody awaits their answers."""


async def _pools(here: Stack) -> dict[str, dict[str, Any]]:
    found: Any = (await here.ok("leases", "--json")).json["pools"]
    return {pool["pool"]: pool for pool in found}


async def _lanes(here: Stack) -> dict[str, set[str]]:
    """In which lanes each actor's requests queued, once those that always ask have asked."""
    with trio.fail_after(90):
        while True:
            lanes: dict[str, set[str]] = {}
            for row in (await _pools(here))[POOL]["waits"]:
                lanes.setdefault(row["label"].partition(".")[0], set()).add(row["lane"])
            if {"healthcheck", "activation", "fast_expiry", "housekeeping"} <= set(lanes):
                return lanes


async def _until(here: Stack, column: str) -> dict[str, Any]:
    """Ask until somebody is in that list of the pool, and return the first."""
    with trio.fail_after(90):
        while True:
            if listed := (await _pools(here))[POOL][column]:
                first: dict[str, Any] = listed[0]
                return first


async def _wake(seen: Watch) -> None:
    await seen.value("SELECT pg_notify('atlas_wake', 'activation')")


async def test_leases_shows_every_pool_holders_waiters_and_waits() -> None:
    async with stack(migrated=True) as here, here.running(), watch(dsn_of(here)) as seen:
        pools = await _pools(here)
        assert {POOL, "pool.gateway"} <= set(pools)
        assert all(pool["state"] == "up" and pool["bridge"] == "inline" for pool in pools.values())
        lanes = await _lanes(here)
        assert lanes["healthcheck"] == {"system"}
        assert lanes["activation"] == {"interactive"}, "a customer waits for the key"
        assert {"batch"} == set().union(*(lanes.get(name, {"batch"}) for name in BACKGROUND))
        assert lanes["fast_expiry"] == lanes["housekeeping"] == {"batch"}

        await seen.value("BEGIN")
        await seen.value("LOCK TABLE vpn_keys IN ACCESS EXCLUSIVE MODE")
        await here.ok("restart", "activation")  # its first round reads that table
        held = await _until(here, "holders")
        assert held["label"]
        assert held["site"].startswith("actors/")
        assert 0 < held["held_seconds"] < held["limit_seconds"] + 1
        session = "SELECT application_name FROM pg_stat_activity WHERE pid = $1"
        assert await seen.value(session, held["backend_pid"]) == "atlas/main"
        await _revoke(here, held["owner"].partition("#")[0])
        await seen.value("ROLLBACK")
        shown = (await here.ok("leases")).stdout
        assert "pool.main up for" in shown
        assert "pool.gateway up for" in shown
        assert "waited for" in shown


async def _revoke(here: Stack, owner: str) -> None:
    for wrong, hint in ((), "--all"), (("activatoin",), 'did you mean "activation"?'):
        refused = await here.atlas("pool", "revoke", POOL, *wrong)
        assert refused.status == 64
        assert hint in refused.stderr
    with trio.fail_after(90):
        # The server ends its wait for the lock by itself after a while: then there is nothing to take away for a moment.
        while not re.search(r"took [1-9]\d* leases? away", (await here.ok("pool", "revoke", POOL, owner)).stdout):
            await here.ok("restart", owner)


async def test_a_paused_pool_shows_who_waits_and_goes_on_when_it_is_resumed() -> None:
    async with stack(migrated=True) as here, here.running(), watch(dsn_of(here)) as seen:
        assert "serves only the system lane" in (await here.ok("pool", "pause", POOL)).stdout
        await _wake(seen)
        waiter = await _until(here, "waiting")
        assert waiter["owner"].startswith("activation#")
        assert waiter["left_seconds"] > 0
        shown = (await here.ok("leases", POOL, "--stacks")).stdout
        assert f"paused: only the system lane is served (`atlas pool resume {POOL}`)" in shown
        assert waiter["label"] in shown
        assert "pool.gateway" not in shown
        await here.ok("pool", "resume", POOL)
        with trio.fail_after(90):
            while (await _pools(here))[POOL]["waiting"]:
                pass


async def test_a_pool_is_resized_and_renewed_while_it_serves_and_wrong_names_are_corrected() -> None:
    async with stack(migrated=True) as here:
        assert (await here.atlas("leases")).status == 69
        async with here.running(), watch(dsn_of(here)) as seen:
            await _resize_and_renew(here, seen)


async def _resize_and_renew(here: Stack, seen: Watch) -> None:
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'atlas/main'"
    before = {row["pid"] for row in await seen.rows(sessions)}
    assert "keeps 3 connections" in (await here.ok("pool", "resize", POOL, "3")).stdout
    await here.ok("pool", "expire", POOL, "--spread", "0")
    with trio.fail_after(90):
        while True:
            now = {row["pid"] for row in await seen.rows(sessions)}
            if len(now) == 3 and not now & before:
                break
    assert (await _pools(here))[POOL]["size"] == 3
    assert "operator" in here.log, "who changed it is in the log"
    for command in (("leases", "pool.mian"), ("pool", "pause", "pool.mian")):
        refused = await here.atlas(*command)
        assert refused.status == 64
        assert 'did you mean "pool.main"?' in refused.stderr


async def test_waits_are_not_monitored_where_the_environment_says_so() -> None:
    async with stack({"POOL_MONITOR_ENABLED": "false"}, migrated=True) as here, here.running():
        pools = (await _pools(here)).values()
        assert pools
        assert not any(pool["monitored"] or pool["waits"] or pool["holds"] for pool in pools)
        assert "waits are not monitored (pool.monitor is off)" in (await here.ok("leases", POOL)).stdout
