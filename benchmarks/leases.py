"""What a lease and a transaction cost, as ratios to asyncpg's own pool in the same run.

Three sides take turns on one server, each in a process of its own, with ten connections: the pool actor with all its deadlines,
measurements and guards; asyncpg.Pool on plain asyncio; asyncpg.Pool through trio-asyncio's `aio_as_trio`. The server shares the
machine with them, so that the ratios are smaller than those of the clients alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from benchmarks.leasing import native, ours, textbook
from benchmarks.leasing.workload import CONNECTIONS, Job
from benchmarks.processes import OwnProcess
from benchmarks.result import Result, faster, share
from benchmarks.rounds import Measurement, medians
from tests.postgres_cluster import Cluster

MICROSECONDS = 1e6


@attrs.frozen
class Sizes:
    """How much of everything."""

    rounds: int = 9
    leases: int = 3_000
    transactions: int = 1_500


QUICK = Sizes(rounds=1, leases=100, transactions=50)


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    with server() as dsn, ExitStack() as stack:
        sides = {
            "ours": (stack.enter_context(OwnProcess()), ours.run, ()),
            "plain": (stack.enter_context(OwnProcess()), ours.run, ("plain",)),
            "native": (stack.enter_context(OwnProcess()), native.run, ()),
            "textbook": (stack.enter_context(OwnProcess()), textbook.run, ()),
        }
        sides["native"][0].call(native.prepare, dsn)
        measurements: dict[str, Measurement] = {}
        for name, (process, run, extra) in sides.items():
            for job, tasks in ((Job.LEASE, 1), (Job.SELECT, 1), (Job.SELECT, 10), (Job.TRANSACTION, 10)):
                count = sizes.transactions if job is Job.TRANSACTION else sizes.leases
                if name == "textbook":
                    count //= 3
                measurements[f"{name} {job.name} {tasks}"] = partial(process.call, run, dsn, job, tasks, count, *extra)
        took = {name: seconds * MICROSECONDS for name, seconds in medians(measurements, sizes.rounds).items()}
    return _results(took)


def _results(us: dict[str, float]) -> list[Result]:
    native_pool, bridged = "asyncpg.Pool on asyncio", "asyncpg.Pool through aio_as_trio"
    lines = [
        share("lease + release", us["ours LEASE 1"], "us", native_pool, us["native LEASE 1"], at_most=0.5),
        share("lease + SELECT 1 + release", us["ours SELECT 1"], "us", native_pool, us["native SELECT 1"]),
    ]
    at_once = f"lease + SELECT 1 + release, {CONNECTIONS} at once"
    lines += [
        share(at_once, us["ours SELECT 10"], "us", native_pool, us["native SELECT 10"], at_most=0.5),
        faster(at_once, us["ours SELECT 10"], "us", bridged, us["textbook SELECT 10"]),
        faster(f"{at_once}, plain bridge", us["plain SELECT 10"], "us", native_pool, us["native SELECT 10"]),
    ]
    name = f"transaction of 3 statements, {CONNECTIONS} at once"
    mine = us["ours TRANSACTION 10"]
    lines += [
        faster(name, mine, "us", native_pool, us["native TRANSACTION 10"], at_least=1.2),
        faster(name, mine, "us", bridged, us["textbook TRANSACTION 10"], at_least=5),
        faster(f"{name}, plain bridge", us["plain TRANSACTION 10"], "us", native_pool, us["native TRANSACTION 10"]),
    ]
    return lines


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a PostgreSQL server of this run's own."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="atlas-pg-", dir="/tmp")))
    try:
        cluster.initialise()
        cluster.start()
        yield cluster.dsn()
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root, ignore_errors=True)
