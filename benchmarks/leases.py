"""What a lease and a transaction cost, as ratios to asyncpg's own pool in the same run.

All sides take turns on one server, each in a process of its own, with ten connections: the pool actor with all its deadlines,
measurements and guards, on both bridges and with `pool.monitor` off; asyncpg.Pool on plain asyncio; the same on uvloop; the same
through trio-asyncio's `aio_as_trio`; and pgbench, PostgreSQL's own load generator. The server shares the machine with them, so
that the ratios are smaller than those of the clients alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from benchmarks.leasing import native, ours, pgbench, textbook
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


WORK = (
    *((Job.LEASE, 1), (Job.SELECT, 1), (Job.SELECT, CONNECTIONS), (Job.KEY, CONNECTIONS)),
    *(
        (Job.ONE, 1),
        (Job.ONE, CONNECTIONS),
        (Job.TRANSACTION, 1),
        (Job.TRANSACTION, CONNECTIONS),
        (Job.SINGLE, CONNECTIONS),
    ),
)
UNMONITORED = ((Job.ONE, CONNECTIONS),)
"""Where the cost of monitoring is measured, beside the processor time of a lease."""
NAMES = {
    Job.SELECT: "lease + SELECT 1 + release",
    Job.KEY: "lease + row by primary key + release",
    Job.ONE: "transaction of 1 statement",
    Job.TRANSACTION: "transaction of 3 statements",
    Job.SINGLE: "the same effect as one statement",
}
SIDES = ("ours", "unmonitored", "plain", "native", "uvloop", "textbook")
"""Those that need a process of their own."""
QUICK = Sizes(rounds=1, leases=100, transactions=50)


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    with server() as cluster, ExitStack() as stack:
        dsn = cluster.dsn()
        own = {name: stack.enter_context(OwnProcess()) for name in SIDES}
        own["native"].call(native.prepare, dsn)
        sides: dict[str, Callable[[Job, int, int], float]] = {
            "ours": partial(own["ours"].call, ours.run, dsn),
            "unmonitored": partial(own["unmonitored"].call, ours.run_unmonitored, dsn),
            "plain": partial(own["plain"].call, ours.run_plain, dsn),
            "native": partial(own["native"].call, native.run, dsn),
            "uvloop": partial(own["uvloop"].call, native.run_on_uvloop, dsn),
            "textbook": partial(own["textbook"].call, textbook.run, dsn),
            "pgbench": partial(pgbench.run, str(cluster.binaries), dsn),
        }
        measurements: dict[str, Measurement] = {}
        for name, run in sides.items():
            for job, tasks in UNMONITORED if name == "unmonitored" else WORK:
                if name == "pgbench" and job is Job.LEASE:
                    continue
                count = sizes.transactions if job is Job.TRANSACTION else sizes.leases
                if name == "textbook":
                    count //= 3
                measurements[f"{name} {job.name} {tasks}"] = partial(run, job, tasks, count)
        for name, monitor in (("ours", True), ("unmonitored", False)):
            # The difference is too small for a clock that others move as well.
            measurements[f"{name} processor"] = partial(own[name].call, ours.processor_time, dsn, sizes.leases, monitor)
        took = {name: seconds * MICROSECONDS for name, seconds in medians(measurements, sizes.rounds).items()}
    return _results(took)


def _results(us: dict[str, float]) -> list[Result]:
    others = {
        "native": "asyncpg.Pool on asyncio",
        "uvloop": "asyncpg.Pool on uvloop",
        "textbook": "asyncpg.Pool through aio_as_trio",
        "pgbench": "pgbench",
    }
    targets = {("TRANSACTION 10", "native"): 1.2, ("TRANSACTION 10", "textbook"): 5.0}
    native_pool, lone = others["native"], us["native LEASE 1"]
    lines = [share("lease + release, uncontended", us["ours LEASE 1"], "us", native_pool, lone, at_most=0.5)]
    for job, tasks in WORK[1:]:
        what, key = NAMES[job] + (f", {tasks} at once" if tasks > 1 else ""), f"{job.name} {tasks}"
        lines += [
            faster(what, us[f"ours {key}"], "us", title, us[f"{side} {key}"], at_least=targets.get((key, side)))
            for side, title in others.items()
        ]
        lines.append(faster(f"{what}, plain bridge", us[f"plain {key}"], "us", native_pool, us[f"native {key}"]))
    unmonitored = "the same with pool.monitor off"
    lines.append(
        share(
            "processor time of lease + release, monitored",
            us["ours processor"],
            "us",
            unmonitored,
            us["unmonitored processor"],
        )
    )
    for job, tasks in UNMONITORED:
        what, key = NAMES[job] + (f", {tasks} at once" if tasks > 1 else ""), f"{job.name} {tasks}"
        off = us[f"unmonitored {key}"]
        lines.append(share(f"{what}, monitored", us[f"ours {key}"], "us", unmonitored, off))
    return lines


@contextmanager
def server() -> Iterator[Cluster]:
    """A PostgreSQL server of this run's own."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="atlas-pg-", dir="/tmp")))
    try:
        cluster.initialise()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root, ignore_errors=True)
