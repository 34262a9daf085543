"""The same jobs with our pool actor."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

from actors.pool.client import Pool
from benchmarks.leasing.harness import pool_on
from benchmarks.leasing.workload import CONNECTIONS, INSERT, READ, SELECT, SINGLE, UPDATE, Job
from db.tx import Tx

_WARMING = 200
_BURSTS = 5


async def _lease(pool: Pool, _: int) -> None:
    async with pool.lease("lease"):
        pass


async def _select(pool: Pool, _: int) -> None:
    async with pool.lease("select") as lease:
        await lease.fetchval(SELECT)


async def _key(pool: Pool, account: int) -> None:
    async with pool.lease("key") as lease:
        await lease.fetchval(READ, account)


async def _single(pool: Pool, account: int) -> None:
    async with pool.lease("single") as lease:
        await lease.fetchval(SINGLE, account, 1)


async def _read(tx: Tx, account: int) -> int:
    balance: int = await tx.fetchval(READ, account)
    return balance


async def _one(pool: Pool, account: int) -> None:
    await pool.run("one", _read, account)


async def _three(tx: Tx, account: int) -> int:
    await tx.execute(UPDATE, account, 1)
    await tx.execute(INSERT, account, 1)
    balance: int = await tx.fetchval(READ, account)
    return balance


async def _transaction(pool: Pool, account: int) -> None:
    await pool.run("transaction", _three, account)


_JOBS: dict[Job, Callable[[Pool, int], Awaitable[None]]] = {
    Job.LEASE: _lease,
    Job.SELECT: _select,
    Job.KEY: _key,
    Job.ONE: _one,
    Job.TRANSACTION: _transaction,
    Job.SINGLE: _single,
}


def run(dsn: str, job: Job, tasks: int, count: int, bridge: str = "inline", monitor: bool = True) -> float:
    """Seconds for one job, with so many tasks at it at once; opening the pool is not counted."""
    return trio.run(_run, dsn, job, tasks, count, bridge, monitor)


def run_plain(dsn: str, job: Job, tasks: int, count: int) -> float:
    """The same over the plain bridge."""
    return run(dsn, job, tasks, count, "plain")


def run_unmonitored(dsn: str, job: Job, tasks: int, count: int) -> float:
    """The same with `pool.monitor` off."""
    return run(dsn, job, tasks, count, monitor=False)


def processor_time(dsn: str, count: int, monitor: bool) -> float:
    """Seconds of this process's processor for taking a connection and giving it back: the least of several bursts."""
    return trio.run(_processor_time, dsn, count, monitor)


async def _processor_time(dsn: str, count: int, monitor: bool) -> float:
    async with pool_on(dsn, monitor=monitor) as pool:

        async def burst(rounds: int) -> float:
            began = time.process_time()
            for _ in range(rounds):
                await _lease(pool, 1)
            return (time.process_time() - began) / rounds

        await burst(_WARMING)
        return min([await burst(count // _BURSTS) for _ in range(_BURSTS)])


async def _run(dsn: str, job: Job, tasks: int, count: int, bridge: str, monitor: bool) -> float:
    work = _JOBS[job]
    async with pool_on(dsn, bridge, monitor=monitor) as pool:

        async def client(number: int, rounds: int) -> None:
            for _ in range(rounds):
                await work(pool, number + 1)

        async def all_clients(rounds: int) -> float:
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(tasks):
                    nursery.start_soon(client, number, rounds)
            return time.perf_counter() - began

        await all_clients(max(CONNECTIONS // tasks, 1) * 3)
        return await all_clients(count // tasks) / (count // tasks * tasks)
