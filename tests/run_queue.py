"""Durations without what a busy machine added to them: the time that processes were ready to run and had no processor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

PATIENCE = 60.0
"""Seconds after which something that takes a moment on any machine is not going to come."""


class Stopwatch:
    """Measures from when it was made, without the time that a process and all below it waited for a processor.

    Processes that wait at the same time count each, so on a busy machine a limit is lenient; on an idle one it is as strict as it
    reads. Where the kernel does not count (no `schedstat`), nothing is taken off.
    """

    def __init__(self, pid: int | None = None) -> None:
        """`pid`: the topmost process; default: this one, with the servers and agents that it started."""
        self._top = os.getpid() if pid is None else pid
        self._before = self._waited()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the beginning that nobody else on this machine is to blame for; at least 0."""
        return max(0.0, time.monotonic() - self._began - self.late())

    def late(self) -> float:
        """Seconds since the beginning that these processes waited for a processor, added up over those that still live."""
        return sum(max(0.0, waited - self._before.get(pid, 0.0)) for pid, waited in self._waited().items())

    def __str__(self) -> str:
        return (
            f"{time.monotonic() - self._began:.2f} s, of which {self.late():.2f} s were spent waiting for a processor"
        )

    def _waited(self) -> dict[int, float]:
        return {pid: _waited_for_a_processor(pid) for pid in (self._top, *descendants(self._top))}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The block, in trio, takes at most so many seconds of those that nobody else on this machine is to blame for.

    Raises AssertionError if it took longer, and trio.TooSlowError if it does not end at all.
    """
    took = Stopwatch()
    with trio.fail_after(max(PATIENCE, 2 * seconds)):
        yield
    assert took.seconds() <= seconds, str(took)


def descendants(of: int) -> list[int]:
    """The pids of all living processes below one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    found: list[int] = []
    layer = [of]
    while layer:
        layer = [pid for pid, parent in parents.items() if parent in layer]
        found += layer
    return found


def _waited_for_a_processor(pid: int) -> float:
    waited = 0
    for counts in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            waited += int(counts.read_text().split()[1])
        except (OSError, IndexError):  # it has ended, or nothing is counted
            continue
    return waited / 1e9
