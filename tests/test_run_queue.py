"""The stopwatch takes off what others cost, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run_queue import Stopwatch, descendants

BURN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print("ready", flush=True)
sys.stdin.read(1)
until = time.process_time() + 0.5
while time.process_time() < until: pass
"""


def burner() -> subprocess.Popen[bytes]:
    """A process that computes for half a second on a certain processor when it is told to."""
    processor = str(min(os.sched_getaffinity(0)))
    argv = [sys.executable, "-c", BURN, processor]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_sleep_counts_in_full() -> None:
    took = Stopwatch()
    time.sleep(0.2)  # rule-ok: it is what is measured
    assert took.seconds() >= 0.2 - took.late()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs a kernel that counts")
def test_who_shares_a_processor_is_not_blamed_for_the_others() -> None:
    """Four of them take at least two seconds of one processor; each of them waits for most of that."""
    burners = [burner() for _ in range(4)]
    watches = [Stopwatch(process.pid) for process in burners]
    try:
        for process in burners:
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.flush()
        # One has ended, and is not reaped: a process that is gone can no longer be asked.
        os.waitid(os.P_PID, burners[0].pid, os.WEXITED | os.WNOWAIT)
        assert max(watch.late() for watch in watches[1:]) > 0.2
    finally:
        for process in burners:
            process.kill()
            process.communicate()


def test_who_is_below_a_process_is_found() -> None:
    process = burner()
    try:
        assert process.pid in descendants(os.getpid())
    finally:
        process.kill()
        process.communicate()
