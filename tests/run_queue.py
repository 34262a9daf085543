"""How long processes were ready to run and had no processor: what a busy machine adds to a duration, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def waited_for_a_processor(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes together have waited so far; 0 where the kernel does not count it.

    Subtract what this grew by from a measured duration to hold that to a limit of an idle machine. Threads that wait at the
    same time count each, so on a busy machine the limit is lenient; on an idle one it is as strict as it reads.
    """
    waited = 0
    for pid in pids:
        for counts in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                waited += int(counts.read_text().split()[1])
            except (OSError, IndexError):  # it has ended, or nothing is counted
                continue
    return waited / 1e9
