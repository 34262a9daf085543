"""Every worker due at once, with a hundred thousand subscriptions and fifteen connections.

A whole installation of its own: `atlas run` with a real database, node agent and Xray. Every subscription has a key on
the node. Then, in one transaction, a hundredth of them ends, a hundredth is to be renewed from the balance, a hundredth
to be reminded and a hundredth bought anew; every periodic worker is woken with its commit, so that all of them want
connections in the same instant, while the health check goes on every few seconds. Until nothing is due any more, the
beats are read again and again; at the end every lease's wait is in the pools' own histograms.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import attrs
import httpx
import trio

from benchmarks.filling import execute_script
from benchmarks.result import Result, figure
from db.billing.purchases import record_manual_topup
from db.driver.session import open_session
from db.embedded import EmbeddedSettings, embedded_dsn
from db.money import Money
from db.tx import Tx
from runtime.http import new_client
from tests.e2e.stack import REPOSITORY, Stack, stack

CONNECTIONS = 15
WAIT = 0.05
"""The wait that 99 of 100 leases must not exceed, in seconds; a bound of the pools' histogram."""
LATE = {"event_loop": 2.0, "worker": 1.0, "healthcheck": 8.0}
"""A beat that is older than this, in seconds, is late: the loop is to prove itself every second, a due worker to begin at once,
and the health check to end a round (2 s at most) every 5 s. Stale, as the watchdog means it, is far beyond."""
_PATIENCE = 600.0
_LOOK = 0.25

FILL = """
SET LOCAL statement_timeout = 0;
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, {count}) n;
INSERT INTO accounts (kind, customer_id, currency, balance)
SELECT kind, id, 'RUB', 0 FROM customers CROSS JOIN unnest(ARRAY['paid', 'credit', 'earned', 'debt']) AS kind;
SET LOCAL session_replication_role = replica;  -- bulk rows: no triggers, no events
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at, plan_tariff, period_days,
                           price_amount, price_currency)
SELECT id, 'basic', now() + interval '20 days', 'payment', 'active', now() + interval '20 days',
       'basic', 30, 14900, 'RUB' FROM customers;
INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, new_end, actor, created_at)
SELECT id, 1, 'grant', source, tariff, interval '30 days', expires_at, 'benchmark', expires_at - interval '30 days'
FROM subscriptions;
INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
SELECT id, subscription_id, tariff, period, '0', '0', created_at, new_end FROM entitlement_events;
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at)
SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'active', now()
FROM subscriptions WHERE id % 100 <> 4;
INSERT INTO reminder_schedule (subscription_id, plan, began_at, ends_at, due_at)
SELECT id, 'paid', now(), expires_at, expires_at - interval '72 hours' FROM subscriptions;
ANALYZE;
"""
DUE = """
SET LOCAL session_replication_role = replica;
UPDATE subscriptions SET expires_at = now() - interval '1 minute' WHERE id % 100 = 1;
UPDATE subscriptions SET auto_renew = true, expires_at = now() + interval '5 hours' WHERE id % 100 = 2;
INSERT INTO renewal_schedule (subscription_id, period_start, state, due_at)
SELECT id, expires_at, 'due', now() FROM subscriptions WHERE id % 100 = 2;
UPDATE reminder_schedule SET due_at = now(), ends_at = now() + interval '60 hours' WHERE subscription_id % 100 = 3;
UPDATE subscriptions s SET expires_at = r.ends_at FROM reminder_schedule r
WHERE r.subscription_id = s.id AND s.id % 100 = 3;
UPDATE entitlement_events SET new_end = s.expires_at, created_at = s.expires_at - interval '30 days'
FROM subscriptions s WHERE s.id = subscription_id AND s.id % 100 IN (1, 2, 3);
UPDATE entitlement_intervals i SET starts_at = e.created_at, ends_at = e.new_end
FROM entitlement_events e WHERE e.id = i.event_id AND e.subscription_id % 100 IN (1, 2, 3);
UPDATE subscriptions SET tariff_until = expires_at WHERE id % 100 IN (1, 2, 3);
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'pending'
FROM subscriptions WHERE id % 100 = 4;
"""
LEFT = """
SELECT (SELECT count(*) FROM subscriptions WHERE state = 'active' AND expires_at <= now())
     + (SELECT count(*) FROM renewal_schedule WHERE due_at <= now())
     + (SELECT count(*) FROM reminder_schedule WHERE due_at <= now())
     + (SELECT count(*) FROM vpn_keys WHERE activation_status IN ('pending', 'removing'))
"""


@attrs.frozen
class Sizes:
    """How many subscriptions; a hundredth of them is due in each of four ways."""

    subscriptions: int = 100_000


QUICK = Sizes(subscriptions=1_000)


@attrs.define
class Outcome:
    """What one run saw."""

    seconds: float = 0.0
    """From the waking until nothing was due any more."""
    waits: dict[float | None, int] = attrs.field(factory=dict)
    """How many leases waited at most so many seconds; None: longer than the last bound."""
    refused: int = 0
    """Requests that got no connection."""
    oldest: dict[str, float] = attrs.field(factory=dict)
    """The greatest age of each beat, in seconds."""
    repairs: int = 0
    """Restarts that the watchdog ordered."""

    @property
    def in_time(self) -> float:
        """The share of the leases that waited at most `WAIT` seconds, 0 to 1."""
        return sum(count for bound, count in self.waits.items() if bound is not None and bound <= WAIT) / max(
            self.leases, 1
        )

    @property
    def leases(self) -> int:
        """How many were granted."""
        return sum(self.waits.values())


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    found = trio.run(run, sizes)
    what = f"{len(periodic_workers())} workers due at once, {sizes.subscriptions:,} subscriptions, {CONNECTIONS} connections"
    return [
        figure(f"{what}: leases that waited at most {WAIT * 1e3:g} ms", 100 * found.in_time, "%", at_least=99.0),
        figure("… leases", found.leases, ""),
        figure("… requests that got no connection", found.refused, "", at_most=0),
        figure("… until nothing was due", found.seconds, "s"),
        *(figure(f"… oldest {beat} beat", found.oldest[beat], "s", at_most=limit) for beat, limit in LATE.items()),
        figure("… restarts by the watchdog", found.repairs, "", at_most=0),
    ]


def periodic_workers(file: Path = REPOSITORY / "supervisor.toml") -> list[str]:
    """The names of all actors of the tree that have an interval."""
    actors: Mapping[str, Mapping[str, object]] = tomllib.loads(file.read_text(encoding="utf-8"))["actor"]
    return [name for name, table in actors.items() if "interval" in dict(table.get("args", {}))]  # type: ignore[call-overload]


async def run(sizes: Sizes) -> Outcome:
    """Fill, let the node converge, make everything due, and watch."""
    workers = periodic_workers()
    extra = {"ATLAS__POOL__SIZE": str(CONNECTIONS), "ATLAS__ACTOR__POOL_MAIN__ARGS__WAKES": json.dumps(workers)}
    async with stack(extra) as here, here.running():
        dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
        async with open_session(dsn, "atlas/benchmark") as session, new_client() as browser:
            metrics = here.screen.partition("metrics ")[2].split()[0]
            await session.run("fill", execute_script, FILL.format(count=sizes.subscriptions), within=_PATIENCE)
            for telegram_id in range(2, sizes.subscriptions, 100):
                await session.run("fund", _fund, telegram_id)
            filled_at = await session.run("wake", wake_workers, ["reconcile"])
            with trio.fail_after(_PATIENCE):
                while not await session.run("look", _is_converged, filled_at):  # noqa: ASYNC110  rows of another process
                    await trio.sleep(1.0)
            found = Outcome()
            before = await _leases(here)
            began = trio.current_time()
            await session.run("due", _make_due, workers, within=60.0)
            while left := await session.run("left", _left):
                if trio.current_time() - began > _PATIENCE:
                    raise TimeoutError(f"{left} rows are still due after {_PATIENCE:g} s")
                await _look_at_beats(browser, metrics, found)
                await trio.sleep(_LOOK)
            found.seconds = trio.current_time() - began
            while not found.oldest.keys() >= LATE.keys():  # a short run is over before the first beats are measured
                await _look_at_beats(browser, metrics, found)
                await trio.sleep(_LOOK)
            found.waits, found.refused = _difference(before, await _leases(here))
    return found


async def _fund(tx: Tx, telegram_id: int) -> None:
    await record_manual_topup(tx, telegram_id, "manual", f"b{telegram_id}", Money(20_000), actor="benchmark")


async def wake_workers(tx: Tx, workers: list[str]) -> datetime:
    """Wake the workers with the commit; returns the database's time."""
    await tx.execute("SELECT pg_notify('atlas_wake', name) FROM unnest($1::text[]) name", workers)
    now: datetime = await tx.fetchval("SELECT now()")
    return now


async def _make_due(tx: Tx, workers: list[str]) -> None:
    await execute_script(tx, DUE)
    await wake_workers(tx, workers)


async def _is_converged(tx: Tx, since: datetime) -> bool:
    """Whether a look that began after `since` found the node equal. Wakes the worker, which else looks every ten minutes."""
    verdict: object = await tx.fetchval("SELECT verdict FROM reconcile_passes WHERE finished_at > $1", since)
    await wake_workers(tx, ["reconcile"])
    return verdict == "equal"


async def _left(tx: Tx) -> int:
    left: int = await tx.fetchval(LEFT)
    return left


async def _look_at_beats(browser: httpx.AsyncClient, metrics: str, found: Outcome) -> None:
    """Keep the greatest age of each beat, and the count of repairs."""
    repairs = 0.0
    for line in (await browser.get(metrics)).raise_for_status().text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("atlas_beat_age_seconds{"):
            beat = name.partition('beat="')[2].partition('"')[0]
            found.oldest[beat] = max(found.oldest.get(beat, 0.0), float(value))
        elif name.startswith("atlas_watchdog_repairs_total{"):
            repairs += float(value)
    found.repairs = int(repairs)


async def _leases(here: Stack) -> Outcome:
    """All waits and refusals of all pools so far."""
    found = Outcome()
    pools = (await here.ok("leases", "--json")).json["pools"]
    assert isinstance(pools, list)
    for pool in pools:
        found.refused += sum(pool["refused"].values())
        for label in pool["waits"]:
            for bucket in label["buckets"]:
                found.waits[bucket["le"]] = found.waits.get(bucket["le"], 0) + bucket["count"]
    return found


def _difference(before: Outcome, after: Outcome) -> tuple[dict[float | None, int], int]:
    waits = {bound: count - before.waits.get(bound, 0) for bound, count in after.waits.items()}
    return waits, after.refused - before.refused
