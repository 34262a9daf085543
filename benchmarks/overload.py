"""What the pool still serves when it is asked for half as much again as it can give, and how soon the other requests
are refused.

A request that is shed is refused early; one that is neither served nor shed waits until its patience is over: the two
are counted apart.

Capacity is measured first, with enough clients to keep every connection busy. Then requests arrive on their own (a
seeded Poisson process) at 1.5 × that rate, each willing to wait a second, and what is served in the window is compared
with capacity. The work is 10 ms of the server's time without its processor, so that the connections are what is short,
not this machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from actors.pool.client import Pool
from benchmarks.leases import server
from benchmarks.leasing.harness import pool_on
from benchmarks.leasing.workload import CONNECTIONS
from benchmarks.processes import OwnProcess
from benchmarks.result import Result, figure, share
from benchmarks.rounds import percentile
from db.errors import LeaseShed, LeaseTimeout
from db.tx import Tx

WORK_SECONDS = 0.01
PATIENCE = 1.0
LOAD = 1.5
TOLD_WITHIN = 0.5
"""A request that is shed is refused within this part of its patience."""
MILLISECONDS = 1e3


@attrs.frozen
class Sizes:
    """How long everything lasts, in seconds."""

    warming: float = 2.0
    window: float = 15.0


QUICK = Sizes(warming=0.2, window=0.5)


@attrs.frozen
class Outcome:
    """What one run measured."""

    capacity: float
    """Requests a second with every connection busy."""
    goodput: float
    """Requests a second served within their patience, at 1.5 × capacity."""
    served: list[float]
    """Seconds from request to result, of those served within their patience."""
    late: int
    """Served, but later than that."""
    shed: list[float]
    """Seconds from request to its early refusal, of those shed."""
    timed_out: int
    """Refused only when their patience was over."""


@attrs.define
class _Answers:
    """Of those who asked within the window."""

    served: list[float] = attrs.field(factory=list)
    shed: list[float] = attrs.field(factory=list)
    timed_out: int = 0


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    with server() as cluster, OwnProcess() as process:
        found = process.call(run, cluster.dsn(), QUICK if quick else Sizes())
    in_time = len(found.served) + len(found.shed)
    asked = in_time + found.late + found.timed_out
    lines = [
        share(
            f"served in time at {LOAD:g} × capacity",
            found.goodput,
            "1/s",
            "capacity, every connection busy",
            found.capacity,
            at_least=0.95,
        ),
        figure("of those served: p99 of wait and work", percentile(found.served, 0.99) * MILLISECONDS, "ms"),
        figure("served, or told early: in time for the asker", 100 * in_time / asked, "%", at_least=99.0),
    ]
    if found.shed:
        told, limit = "told early that it will not be served: ", TOLD_WITHIN * PATIENCE * MILLISECONDS
        lines += [
            figure(told + "of all", 100 * len(found.shed) / asked, "%"),
            figure(told + "p50", percentile(found.shed, 0.5) * MILLISECONDS, "ms"),
            figure(told + "p99", percentile(found.shed, 0.99) * MILLISECONDS, "ms", at_most=limit),
        ]
    return lines


def run(dsn: str, sizes: Sizes) -> Outcome:
    """Capacity, then overload, on a pool of this process."""
    return trio.run(_run, dsn, sizes)


async def _run(dsn: str, sizes: Sizes) -> Outcome:
    async with pool_on(dsn) as pool:
        await _closed(pool, sizes.warming)
        capacity = await _closed(pool, sizes.window) / sizes.window
        answers = _Answers()
        async with _arrivals(pool, capacity * LOAD, answers) as begin:
            await trio.sleep(sizes.warming)  # the queue fills and the pool learns that it is slow
            began = begin()
            await trio.sleep(sizes.window)
            took = trio.current_time() - began
            in_time = [seconds for seconds in answers.served if seconds <= PATIENCE]
            late = len(answers.served) - len(in_time)
            return Outcome(capacity, len(in_time) / took, in_time, late, answers.shed, answers.timed_out)


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
async def _arrivals(pool: Pool, rate: float, answers: _Answers) -> AsyncIterator[Callable[[], float]]:
    """Requests at that rate while the block lasts. What is yielded begins the window: earlier requests do not count."""
    chance = random.Random(1)  # noqa: S311  # seeded on purpose: every run sees the same arrivals
    window = math.inf

    async def request() -> None:
        asked = trio.current_time()
        found: list[float] | None = None
        try:
            await pool.run("overload", _work, within=PATIENCE)
            found = answers.served
        except LeaseShed:
            found = answers.shed
        except LeaseTimeout:
            answers.timed_out += asked >= window
        if found is not None and asked >= window:
            found.append(trio.current_time() - asked)

    async def arrive(nursery: trio.Nursery) -> None:
        due = trio.current_time()
        while True:
            due += chance.expovariate(rate)
            await trio.sleep_until(due)
            nursery.start_soon(request)

    def begin() -> float:
        nonlocal window
        window = trio.current_time()
        return window

    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrive, nursery)
        yield begin
        nursery.cancel_scope.cancel()
