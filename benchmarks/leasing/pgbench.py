"""PostgreSQL's own load generator, written in C: what the server gives at most on this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from benchmarks.leasing.workload import INSERT, READ, SELECT, SINGLE, UPDATE, Job

_TPS = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)
_SCRIPTS = {
    Job.SELECT: (SELECT,),
    Job.KEY: (READ,),
    Job.ONE: ("BEGIN", READ, "COMMIT"),
    Job.TRANSACTION: ("BEGIN", UPDATE, INSERT, READ, "COMMIT"),
    Job.SINGLE: (SINGLE,),
}


def script(job: Job) -> str:
    """The job as pgbench reads it; each client works on an account of its own, as everywhere here."""
    lines = [" ".join(line.split()).replace("$1", ":account").replace("$2", "1") + ";" for line in _SCRIPTS[job]]
    return "\n".join(["\\set account :client_id + 1", *lines, ""])


def run(binaries: str, dsn: str, job: Job, tasks: int, count: int) -> float:
    """Seconds for one job, with so many clients at it at once; connecting is not counted. Raises RuntimeError with
    pgbench's own words if it failed."""
    done = subprocess.run(
        [
            *(str(Path(binaries) / "pgbench"), "--no-vacuum", "--protocol=prepared", "--file=-"),
            *(f"--client={tasks}", "--jobs=1", f"--transactions={count // tasks}", dsn),
        ],
        input=script(job),
        capture_output=True,
        text=True,
        check=False,
    )
    found = _TPS.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return 1 / float(found[1])
