"""The clock of the loop, as a plain function."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio


def clock_reader() -> tuple[Callable[[], float], float]:
    """`(read, offset)` such that `read() + offset` is trio's time, with `read` as cheap as it gets.

    On trio's ordinary clock `read` is `time.monotonic` itself, which costs a third of `trio.current_time` and can be
    compared by other threads; on a virtual clock it is that clock. Call it inside the loop; `read` works anywhere.
    """
    clock = trio.lowlevel.current_clock()
    if type(clock).__name__ != "SystemClock":
        return clock.current_time, 0.0
    # trio adds a random offset to this same clock, so that nobody mistakes its times for anybody else's.
    return time.monotonic, trio.current_time() - time.monotonic()
