"""What is told of requests that are shed: little while it lasts, loud when it lasts too long, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs

from actors.pool_book import PoolBook
from actors.pool_events import RequestsShed, SevereRequestsShed, SheddingResolved
from actors.pool_messages import LeaseRequest
from actors.pool_report import counts, top_holders
from db.lease_queue import Waiter
from runtime.events import Event

REPORT_EVERY = 10.0
"""Seconds between two reports of the same severity; the next one has the sum."""


@attrs.define(eq=False)
class Shedding:
    """The episodes in which a pool sheds. One lasts until a request gets its connection within `pool.slow_target`."""

    book: PoolBook
    emit: Callable[[Event], None]
    _shed: Counter[str] = attrs.field(init=False, factory=Counter)
    """By label and lane, since the last report."""
    _total: int = attrs.field(init=False, default=0)
    _since: float = attrs.field(init=False, default=0.0)
    _is_told: bool = attrs.field(init=False, default=False)
    _reported: dict[type[RequestsShed], float] = attrs.field(init=False, factory=dict)

    def note(self, waiters: list[Waiter[LeaseRequest]], now: float) -> None:
        """These were taken out of the queue and are about to be told."""
        book = self.book
        oldest = max(now - waiter.since for waiter in waiters)
        book.late_since = self._since = min(book.late_since, now - oldest)
        book.spiked(f"{len(waiters)} requests shed after {oldest:.2f} s")
        self._shed.update(f'"{waiter.label}" {waiter.lane.name.lower()}' for waiter in waiters)
        self._total += len(waiters)
        lasting = now - book.late_since
        kind = SevereRequestsShed if lasting > book.settings.wait_critical else RequestsShed
        if not book.settings.monitor or now - self._reported.get(kind, float("-inf")) < REPORT_EVERY:
            return
        self._reported[kind] = now
        self._is_told = True
        labels = ", ".join(f"{label} {count} times" for label, count in self._shed.most_common(3))
        holders = top_holders(book, 3, stacks=True)
        self.emit(kind(book.name, self._shed.total(), labels, oldest, lasting, len(book.queue), counts(book), holders))
        self._shed.clear()

    def look(self, now: float) -> None:
        """Whether an episode has ended."""
        if self._is_told and self.book.late_since == float("inf"):
            self.emit(SheddingResolved(self.book.name, self._total, now - self._since))
            self._is_told = False
            self._total = 0
