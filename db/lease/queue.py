"""Which request gets the next connection, and which is refused early because none will come in time.

Pure: no clock, no tasks, no I/O.

FIFO within a lane. The system lane goes first and is never bounded or shed. Of the others, interactive requests go
before batch requests, but every fourth grant is a batch request's if one waits. CoDel watches the waits: when even the
shortest wait of an interval was longer than the target, the queue is slow, and requests that have waited for twice the
target are shed until the waits are short again (a plain timeout would serve every request just too late). If they grow
long again soon after, it is taken for the same overload at once, without another interval.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


class Lane(enum.IntEnum):
    """The class of a request: which requests are served before it, and whether it may be shed."""

    SYSTEM = 0
    """Health checks and control: served first, with a connection kept free for them, even while the database is down."""
    INTERACTIVE = 1
    """A person waits for the answer."""
    BATCH = 2
    """Background work."""


_GONE_KEPT = 64
"""Requests that gave up and may still lie in a lane, beside as many as wait in it."""

_RELAPSE = 5
"""Intervals after an overload in which a long wait is taken for the same overload."""

BATCH_SHARE = 4
"""Of so many grants one is a batch request's, if one waits."""


@attrs.define(eq=False)
class QueuedRequest(Generic[T]):
    """A request in the queue. All times on the caller's clock."""

    label: str
    lane: Lane
    since: float
    deadline: float
    payload: T
    warned: bool = False
    """Whether its wait was counted as a spike."""
    critical: bool = False
    """Whether it was counted as a severe one."""
    reported: bool = False
    """Whether an event about it was emitted, so that another one has to say how it ended."""
    abandoned: bool = False
    """Its task waits no more: it is skipped."""


@attrs.define(eq=False)
class CoDel:
    """Controlled delay: whether waits are a burst that passes or an overload that stays."""

    target: float
    """CoDel target, in seconds: a wait up to this long is never overload."""
    interval: float
    """Seconds. If every wait in an interval exceeds the target, requests older than twice the target are shed."""
    slow: bool = False
    slow_since: float = math.inf
    _relapse_until: float = attrs.field(init=False, default=-math.inf)
    _shortest: float = attrs.field(init=False, default=math.inf)
    _ends: float = attrs.field(init=False, default=-math.inf)

    def observe(self, wait: float, now: float) -> None:
        """A request was served after `wait` seconds, or the queue was seen empty (0), or its head has waited so long."""
        if now >= self._ends:
            if self._ends != -math.inf:
                slow = self._shortest > self.target and now < self._ends + self.interval
                if slow and not self.slow:
                    self.slow_since = now
                self.slow = slow
            self._ends = now + self.interval
            self._shortest = wait
        elif wait < self._shortest:
            self._shortest = wait
        if self.slow and wait <= self.target:
            # One short wait ends it: the queue has drained.
            self.slow = False
            self._relapse_until = now + _RELAPSE * self.interval
        elif wait > 2 * self.target and not self.slow and now < self._relapse_until:
            # Or it was a lull: take it for the same overload at once, instead of watching for another interval.
            self.slow, self.slow_since = True, now - wait

    @property
    def shed_after(self) -> float:
        """Seconds of waiting after which a request is shed; infinity while the queue is not slow."""
        return 2 * self.target if self.slow else math.inf


class LeaseQueue(Generic[T]):
    """Waiting requests in lanes; not more than `limit` of them, the system lane not counted."""

    def __init__(self, *, limit: int, target: float = 0.1, interval: float = 1.0) -> None:
        self.limit = limit
        self.codel = CoDel(target, interval)
        self._lanes: dict[Lane, deque[QueuedRequest[T]]] = {lane: deque() for lane in Lane}
        self._waiting = dict.fromkeys(Lane, 0)
        self.count = 0
        """Requests that wait, in all lanes: an attribute, because it is asked for with every lease."""
        self._grants = 0
        self._touched = False

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[QueuedRequest[T]]:
        """All waiting requests, lane by lane, oldest first."""
        for lane in self._lanes.values():
            yield from (waiter for waiter in lane if not waiter.abandoned)

    def waiting(self, lane: Lane) -> int:
        """How many requests wait in the lane."""
        return self._waiting[lane]

    def put(self, waiter: QueuedRequest[T]) -> bool:
        """Add a request at the end of its lane. Returns False if the queue is full, which it never is for the system lane."""
        if waiter.lane is not Lane.SYSTEM and len(self) - self._waiting[Lane.SYSTEM] >= self.limit:
            return False
        self._lanes[waiter.lane].append(waiter)
        self._waiting[waiter.lane] += 1
        self.count += 1
        return True

    def put_first(self, waiter: QueuedRequest[T]) -> None:
        """Put a request that was taken and could not be served back at the head of its lane."""
        waiter.abandoned = False
        self._lanes[waiter.lane].appendleft(waiter)
        self._waiting[waiter.lane] += 1
        self.count += 1

    def discard(self, waiter: QueuedRequest[T]) -> None:
        """Remove a request that gave up. Harmless if repeated or if it was served."""
        if not waiter.abandoned:
            waiter.abandoned = True
            self._waiting[waiter.lane] -= 1
            self.count -= 1
            queue = self._lanes[waiter.lane]
            if len(queue) > 2 * self._waiting[waiter.lane] + _GONE_KEPT:
                self._lanes[waiter.lane] = deque(each for each in queue if not each.abandoned)

    def take(self, now: float, *, system_only: bool = False) -> QueuedRequest[T] | None:
        """Remove and return the next request to serve; None if there is none. `system_only` serves the system lane alone."""
        waiter = self._pop(Lane.SYSTEM)
        if waiter is not None or system_only:
            return waiter
        batch_first = self._grants % BATCH_SHARE == BATCH_SHARE - 1
        order = (Lane.BATCH, Lane.INTERACTIVE) if batch_first else (Lane.INTERACTIVE, Lane.BATCH)
        waiter = self._pop(order[0]) or self._pop(order[1])
        if waiter is not None:
            self._grants += 1
            self._touched = True
            self.codel.observe(now - waiter.since, now)
        return waiter

    def head(self, lane: Lane) -> QueuedRequest[T] | None:
        """The oldest waiting request of the lane, which stays in it; None if the lane is empty."""
        queue = self._lanes[lane]
        while queue and queue[0].abandoned:
            queue.popleft()
        return queue[0] if queue else None

    def hopeless(self, now: float) -> list[QueuedRequest[T]]:
        """Remove and return the requests that CoDel sheds now.

        Call it regularly, at least once an interval: it is also how a queue that stands still is seen.
        """
        oldest = min((head.since for lane in (Lane.INTERACTIVE, Lane.BATCH) if (head := self.head(lane))), default=now)
        if not self._touched:
            self.codel.observe(now - oldest, now)
        self._touched = False
        limit = self.codel.shed_after
        if limit == math.inf:
            return []
        return self._remove(lambda waiter: waiter.lane is not Lane.SYSTEM and now - waiter.since > limit)

    def drain(self, *, keep_system: bool = False) -> list[QueuedRequest[T]]:
        """Remove and return all requests; with `keep_system` those of the system lane go on waiting."""
        return self._remove(lambda waiter: not (keep_system and waiter.lane is Lane.SYSTEM))

    def _pop(self, lane: Lane) -> QueuedRequest[T] | None:
        queue = self._lanes[lane]
        while queue:
            waiter = queue.popleft()
            if not waiter.abandoned:
                self.discard(waiter)
                return waiter
        return None

    def _remove(self, matches: Callable[[QueuedRequest[T]], bool]) -> list[QueuedRequest[T]]:
        removed = [waiter for waiter in self if matches(waiter)]
        for waiter in removed:
            self.discard(waiter)
        if removed:
            for lane, queue in self._lanes.items():
                self._lanes[lane] = deque(waiter for waiter in queue if not waiter.abandoned)
        return removed
