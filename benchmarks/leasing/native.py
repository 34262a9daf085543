"""asyncpg's own pool as it comes, on plain asyncio. Called in a process of its own only, in which nothing patches asyncio."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import uvloop

from benchmarks.leasing.workload import CONNECTIONS, INSERT, READ, SELECT, SINGLE, TABLES, UPDATE, Job


async def lease(pool: Any, _: int) -> None:
    """Take a connection and give it back."""
    async with pool.acquire():
        pass


async def select(pool: Any, _: int) -> None:
    """One statement."""
    async with pool.acquire() as connection:
        await connection.fetchval(SELECT)


async def key(pool: Any, account: int) -> None:
    """A row by its primary key."""
    async with pool.acquire() as connection:
        await connection.fetchval(READ, account)


async def single(pool: Any, account: int) -> None:
    """The transaction as one statement."""
    async with pool.acquire() as connection:
        await connection.fetchval(SINGLE, account, 1)


async def one(pool: Any, account: int) -> None:
    """One statement in a transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.fetchval(READ, account)


async def transaction(pool: Any, account: int) -> None:
    """Three statements in a transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(UPDATE, account, 1)
        await connection.execute(INSERT, account, 1)
        await connection.fetchval(READ, account)


JOBS: dict[Job, Callable[[Any, int], Awaitable[None]]] = {
    Job.LEASE: lease,
    Job.SELECT: select,
    Job.KEY: key,
    Job.ONE: one,
    Job.TRANSACTION: transaction,
    Job.SINGLE: single,
}


def prepare(dsn: str) -> None:
    """Make the tables."""

    async def make() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(TABLES)
        await connection.close()

    asyncio.run(make())


def run(dsn: str, job: Job, tasks: int, count: int, loop: str = "asyncio") -> float:
    """Seconds for one job, with so many tasks at it at once, on this event loop; opening the pool is not counted."""
    if "trio_asyncio" in sys.modules:
        raise RuntimeError("trio-asyncio patches asyncio: the yardstick needs a process without it")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(_run(dsn, job, tasks, count))


def run_on_uvloop(dsn: str, job: Job, tasks: int, count: int) -> float:
    """The same on uvloop."""
    return run(dsn, job, tasks, count, "uvloop")


async def _run(dsn: str, job: Job, tasks: int, count: int) -> float:
    work = JOBS[job]
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:

        async def client(number: int, rounds: int) -> None:
            for _ in range(rounds):
                await work(pool, number + 1)

        async def all_clients(rounds: int) -> float:
            began = time.perf_counter()
            await asyncio.gather(*(client(number, rounds) for number in range(tasks)))
            return time.perf_counter() - began

        await all_clients(max(CONNECTIONS // tasks, 1) * 3)
        return await all_clients(count // tasks) / (count // tasks * tasks)
