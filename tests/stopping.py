"""Stops processes for a test: SIGSTOP is not instantaneous, and the threads of a process stop one by one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PATIENCE = 60.0
"Seconds after which a process that has not stopped is not going to."


def stop(*pids: int) -> None:
    """Return once no thread of these processes runs any more. A thread that has stopped answers nobody."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + PATIENCE
    for pid in pids:
        while not _is_stopped(pid):
            assert time.monotonic() < until, f"process {pid} runs on {PATIENCE:.0f} s after its SIGSTOP"
            os.sched_yield()


def _is_stopped(pid: int) -> bool:
    """A thread that ends while we look is gone, and does not count."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(stat.read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return bool(states) and all(state in "TtZX" for state in states)
