"""Timers of one incarnation: messages to itself, later. And the clock of the loop as a plain function."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable

import trio

from runtime.message import Message


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


class Timer:
    """One message that its actor will get once `due` has passed, unless cancelled before."""

    __slots__ = ("_cancelled", "due", "message")

    def __init__(self, due: float, message: Message) -> None:
        self.due = due
        """Time on trio's clock."""
        self.message = message
        self._cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """Keep it from being delivered. Harmless when it was delivered or cancelled already."""
        self._cancelled = True


class Timers:
    """The timers of one incarnation, without a task for each: the message loop looks here between messages.

    A due timer is handled before the user messages that wait, in order of due time, so it can neither be refused by a
    full mailbox nor overtaken by what came later.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def add(self, seconds: float, message: Message) -> Timer:
        """A timer due in `seconds` from now. Raises ValueError unless they are finite and at least 0."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a timer needs a finite number of seconds from now, not {seconds!r}")
        timer = Timer(trio.current_time() + seconds, message)
        heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        return timer

    @property
    def next_due(self) -> float:
        """When the next one is due; infinity if there is none."""
        while self._heap and self._heap[0][2].is_cancelled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Timer | None:
        """Take out the next timer whose time has come; None if there is none."""
        return heapq.heappop(self._heap)[2] if self.next_due <= now else None

    def __len__(self) -> int:
        return sum(not timer.is_cancelled for _, _, timer in self._heap)
