"""What the pool still serves when half as much again is asked of it as it can give, and how soon the rest hear of it.

Capacity is measured first, with enough clients to keep every connection busy. Then requests arrive on their own (a seeded
Poisson process) at 1.5 × that rate, each willing to wait a second, and what is served in the window is compared with capacity.
The work is 10 ms of the server's time without its processor, so that the connections are what is short, not this machine.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.pool import Pool
from benchmarks.leases import server
from benchmarks.leasing.house import pool_on
from benchmarks.leasing.workload import CONNECTIONS
from benchmarks.processes import OwnProcess
from benchmarks.result import Result, figure, share
from benchmarks.rounds import percentile
from db.lease_errors import LeaseTimeout
from db.tx import Tx

WORK_SECONDS = 0.01
PATIENCE = 1.0
LOAD = 1.5
MILLISECONDS = 1e3


@attrs.frozen
class Sizes:
    """How long everything lasts, in seconds."""

    warming: float = 2.0
    window: float = 15.0


QUICK = Sizes(warming=0.2, window=0.5)


@attrs.frozen
class Outcome:
    """What one run saw."""

    capacity: float
    """Requests a second with every connection busy."""
    goodput: float
    """Requests a second served within their patience, at 1.5 × capacity."""
    served: list[float]
    """Seconds from request to result."""
    refused: list[float]
    """Seconds from request to refusal."""


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    with server() as cluster, OwnProcess() as process:
        found = process.call(run, cluster.dsn(), QUICK if quick else Sizes())
    lines = [
        share(
            f"served at {LOAD:g} × capacity",
            found.goodput,
            "1/s",
            "capacity, every connection busy",
            found.capacity,
            at_least=0.95,
        ),
        figure("of those served: p99 of wait and work", percentile(found.served, 0.99) * MILLISECONDS, "ms"),
    ]
    if found.refused:
        told = "told that it will not be served after: "
        lines += [
            figure(told + "p50", percentile(found.refused, 0.5) * MILLISECONDS, "ms"),
            figure(told + "p99", percentile(found.refused, 0.99) * MILLISECONDS, "ms", at_most=PATIENCE * MILLISECONDS),
        ]
    return lines


def run(dsn: str, sizes: Sizes) -> Outcome:
    """Capacity, then overload, on a pool of this process."""
    return trio.run(_run, dsn, sizes)


async def _run(dsn: str, sizes: Sizes) -> Outcome:
    async with pool_on(dsn) as pool:
        await _closed(pool, sizes.warming)
        capacity = await _closed(pool, sizes.window) / sizes.window
        served: list[float] = []
        refused: list[float] = []
        async with _arrivals(pool, capacity * LOAD, served, refused):
            await trio.sleep(sizes.warming)  # the queue fills and the pool learns that it is slow
            before = len(served)
            began = trio.current_time()
            await trio.sleep(sizes.window)
            goodput = (len(served) - before) / (trio.current_time() - began)
    return Outcome(capacity, goodput, served, refused)


async def _work(tx: Tx) -> None:
    await tx.execute("SELECT pg_sleep($1)", WORK_SECONDS)


async def _closed(pool: Pool, seconds: float) -> int:
    done = 0

    async def client() -> None:
        nonlocal done
        while True:
            await pool.run("capacity", _work)
            done += 1

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS + 2):
                nursery.start_soon(client)
    return done


@asynccontextmanager
async def _arrivals(pool: Pool, rate: float, served: list[float], refused: list[float]) -> AsyncIterator[None]:
    chance = random.Random(1)  # noqa: S311  # seeded on purpose: every run sees the same arrivals

    async def request() -> None:
        asked = trio.current_time()
        try:
            await pool.run("overload", _work, within=PATIENCE)
        except LeaseTimeout:
            refused.append(trio.current_time() - asked)
        else:
            served.append(trio.current_time() - asked)

    async def arrive(nursery: trio.Nursery) -> None:
        due = trio.current_time()
        while True:
            due += chance.expovariate(rate)
            await trio.sleep_until(due)
            nursery.start_soon(request)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrive, nursery)
        yield
        nursery.cancel_scope.cancel()
