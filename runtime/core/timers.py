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
    """One message that its actor will get once `due` has passed, and again each period, unless cancelled before."""

    __slots__ = ("_cancelled", "due", "message", "period")

    def __init__(self, due: float, message: Message, period: float = 0.0) -> None:
        self.due = due
        """Time on trio's clock."""
        self.message = message
        self.period = period
        """Seconds from one to the next; 0 for one that comes once."""
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

    __slots__ = ("_heap", "_keyed", "_order")

    def __init__(self) -> None:
        self._keyed: dict[object, Timer] | None = None
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def add(self, seconds: float, message: Message, *, period: float = 0.0, key: object = None) -> Timer:
        """A timer due in `seconds` from now, and each `period` from then on. It takes the place of the one with its key.

        Raises ValueError unless both are finite and at least 0.
        """
        if not 0 <= seconds < math.inf or not 0 <= period < math.inf:
            raise ValueError(f"a timer needs a finite number of seconds from now, not {max(seconds, period)!r}")
        timer = Timer(trio.current_time() + seconds, message, period)
        heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        if key is not None:
            self.cancel(key)
            self._keyed = self._keyed or {}
            self._keyed[key] = timer
            if len(self._keyed) > 2 * len(self._heap) + 8:
                # Those that have been are of no use to anybody, and keys may never come again.
                waiting = {id(timer) for _, _, timer in self._heap}
                self._keyed = {each: timer for each, timer in self._keyed.items() if id(timer) in waiting}
        return timer

    def cancel(self, key: object) -> bool:
        """Cancel the timer with this key; False if none waits."""
        timer = None if self._keyed is None else self._keyed.pop(key, None)
        if timer is None or timer.is_cancelled:
            return False
        waits = timer.period > 0 or any(timer is each for _, _, each in self._heap)
        timer.cancel()
        return waits

    @property
    def next_due(self) -> float:
        """When the next one is due; infinity if there is none."""
        while self._heap and self._heap[0][2].is_cancelled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Timer | None:
        """Take out the next timer whose time has come; None if there is none."""
        if self.next_due > now:
            return None
        timer = heapq.heappop(self._heap)[2]
        if timer.period:
            # In step with its beginning; times that were missed while the actor was busy do not come in a burst.
            timer.due += timer.period * (1 + max(0, int((now - timer.due) / timer.period)))
            heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        return timer

    def __len__(self) -> int:
        return sum(not timer.is_cancelled for _, _, timer in self._heap)
