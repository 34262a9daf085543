"""When a supervisor has to look at each of its children again."""

from __future__ import annotations

import heapq
import itertools
import math

from runtime.supervision.children import ChildRecord

_FEW = 64
"""Entries that no longer count and may be kept, however few children there are."""


class Deadlines:
    """At most one deadline a child, on trio's clock; the earliest is known without looking at the others.

    The heap holds numbers alone, and only those that count lead to a child: nothing of a forgotten one stays here, however far
    away its last deadline was.
    """

    __slots__ = ("_children", "_heap", "_tickets")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._tickets = itertools.count()
        self._children: dict[int, ChildRecord] = {}

    def __len__(self) -> int:
        """Entries, those included that no longer count."""
        return len(self._heap)

    def set(self, record: ChildRecord, at: float) -> None:
        """Look at the child at this time, in place of what was set before; math.inf: not at all."""
        self._children.pop(record.ticket, None)
        if at == math.inf:
            return
        record.ticket = next(self._tickets)
        self._children[record.ticket] = record
        heapq.heappush(self._heap, (at, record.ticket))
        if len(self._heap) > 2 * len(self._children) + _FEW:
            self._heap = [entry for entry in self._heap if entry[1] in self._children]
            heapq.heapify(self._heap)

    @property
    def next(self) -> float:
        """The earliest deadline; math.inf if there is none."""
        while self._heap and self._heap[0][1] not in self._children:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> ChildRecord | None:
        """Take out the child with the earliest deadline that has passed."""
        return self._children.pop(heapq.heappop(self._heap)[1]) if self.next <= now else None
