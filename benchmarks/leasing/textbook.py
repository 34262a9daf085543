"""asyncpg's own pool through trio-asyncio's `aio_as_trio`, as the documentation of both suggests."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from benchmarks.leasing.workload import CONNECTIONS, INSERT, READ, SELECT, SINGLE, UPDATE, Job


async def _work(pool: Any, job: Job, account: int) -> None:
    async with aio_as_trio(pool.acquire()) as connection:
        if job is Job.SELECT:
            await aio_as_trio(connection.fetchval)(SELECT)
        elif job is Job.KEY:
            await aio_as_trio(connection.fetchval)(READ, account)
        elif job is Job.SINGLE:
            await aio_as_trio(connection.fetchval)(SINGLE, account, 1)
        elif job is Job.ONE:
            async with aio_as_trio(connection.transaction()):
                await aio_as_trio(connection.fetchval)(READ, account)
        elif job is Job.TRANSACTION:
            async with aio_as_trio(connection.transaction()):
                await aio_as_trio(connection.execute)(UPDATE, account, 1)
                await aio_as_trio(connection.execute)(INSERT, account, 1)
                await aio_as_trio(connection.fetchval)(READ, account)


def run(dsn: str, job: Job, tasks: int, count: int) -> float:
    """Seconds for one job, with so many tasks at it at once; opening the pool is not counted."""
    return trio.run(_run, dsn, job, tasks, count)


async def _run(dsn: str, job: Job, tasks: int, count: int) -> float:
    async with trio_asyncio.open_loop():
        pool = await aio_as_trio(_open)(dsn)

        async def client(number: int, rounds: int) -> None:
            for _ in range(rounds):
                await _work(pool, job, number + 1)

        async def all_clients(rounds: int) -> float:
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(tasks):
                    nursery.start_soon(client, number, rounds)
            return time.perf_counter() - began

        await all_clients(max(CONNECTIONS // tasks, 1) * 3)
        seconds = await all_clients(count // tasks) / (count // tasks * tasks)
        await aio_as_trio(pool.close)()
        return seconds


async def _open(dsn: str) -> Any:
    return await asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)
