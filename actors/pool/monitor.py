"""Checks a pool ten times a second.

Requests that wait too long or have to be shed, leases that overrun, idle connections that died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NoReturn

import attrs
import trio

from actors.pool import events as metrics
from actors.pool.events import (
    LeaseOverrun,
    PoolStatus,
    RequestsShed,
    SevereRequestsShed,
    SevereWaitSpike,
    SheddingResolved,
    WaitSpike,
)
from actors.pool.messages import LeaseRequest
from actors.pool.state import PoolState
from db.lease.queue import Lane, QueuedRequest
from runtime import Context, Event, WorkerBeat, watch_mailbox

REPORT_EVERY = 10.0
"""Seconds between two reports of the same severity; the next one has the sum."""


@attrs.define(eq=False)
class SheddingReporter:
    """The episodes in which a pool sheds. One lasts until a request gets its connection within `pool.slow_target`."""

    book: PoolState
    emit: Callable[[Event], None]
    _shed: Counter[str] = attrs.field(init=False, factory=Counter)
    """By label and lane, since the last report."""
    _total: int = attrs.field(init=False, default=0)
    _since: float = attrs.field(init=False, default=0.0)
    _is_told: bool = attrs.field(init=False, default=False)
    _reported: dict[type[RequestsShed], float] = attrs.field(init=False, factory=dict)

    def note(self, waiters: list[QueuedRequest[LeaseRequest]], now: float) -> None:
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
        holders = book.longest_held(3, stacks=True)
        self.emit(
            kind(
                book.name,
                self._shed.total(),
                labels,
                oldest,
                lasting,
                len(book.queue),
                book.connection_counts(),
                holders,
            )
        )
        self._shed.clear()

    def look(self, now: float) -> None:
        """Whether an episode has ended."""
        if self._is_told and self.book.late_since == float("inf"):
            self.emit(SheddingResolved(self.book.name, self._total, now - self._since))
            self._is_told = False
            self._total = 0


TICK = 0.1
"""Seconds between two looks."""
_BEAT_LIMIT = 5.0


@attrs.define(eq=False)
class PoolMonitor:
    """The pool's clockwork; its beat proves to the watchdog that the pool turns and takes requests out of its mailbox."""

    book: PoolState
    context: Context
    beat: WorkerBeat
    _swept: float = attrs.field(init=False, default=0.0)
    _reported: dict[tuple[Lane, bool], float] = attrs.field(init=False, factory=dict)
    _shedding: SheddingReporter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._shedding = SheddingReporter(self.book, self.context.emit)

    async def run(self) -> NoReturn:
        """Tick for ever."""
        watch_mailbox(self.beat, self.context.ref.address)
        while True:
            self.beat.begin(_BEAT_LIMIT)
            self.tick(trio.current_time())
            self.beat.done(self.beat.due_in(TICK))
            await trio.sleep(TICK)

    def tick(self, now: float) -> None:
        """One look at everything."""
        book = self.book
        for lane in Lane:
            head = book.queue.head(lane)
            if head is not None:
                self._spike(head, now)
        self._shedding.look(now)
        hopeless = [] if book.paused or book.state is PoolStatus.CONNECTING else book.queue.hopeless(now)
        if hopeless:
            self._shedding.note(hopeless, now)
            book.shed(hopeless, now)
        for lease in list(book.leases.values()):
            if now > max(lease.deadline, lease.driver.commit_until) + book.settings.revoke_grace:
                stack = lease.stack()
                held = lease.held(now)
                self.context.emit(
                    LeaseOverrun(book.name, lease.label, lease.owner.name, lease.site, held, lease.hold, stack)
                )
                metrics.TAKEN_AWAY.labels(book.name, "overrun").inc()
                book.revoke(
                    lease, f"it was held for {held:.2f} s, its limit is {lease.hold:g} s, and its holder did not react"
                )
        if now - self._swept >= book.settings.idle_check:
            self._swept = now
            book.sweep(now)
            book.serve(now)

    def _spike(self, waiter: QueuedRequest[LeaseRequest], now: float) -> None:
        waited = now - waiter.since
        settings = self.book.settings
        if waited > settings.wait_critical and not waiter.critical:
            waiter.critical = waiter.warned = True
            self._report(SevereWaitSpike, waiter, waited, now)
        elif waited > settings.wait_warning and not waiter.warned:
            waiter.warned = True
            self._report(WaitSpike, waiter, waited, now)

    def _report(self, kind: type[WaitSpike], waiter: QueuedRequest[LeaseRequest], waited: float, now: float) -> None:
        book = self.book
        book.spiked(f'"{waiter.label}" has waited {waited:.2f} s')
        severity = "critical" if kind is SevereWaitSpike else "warning"
        metrics.SPIKES.labels(book.name, waiter.lane.name.lower(), severity).inc()
        key = (waiter.lane, kind is SevereWaitSpike)
        if not book.settings.monitor or now - self._reported.get(key, float("-inf")) < REPORT_EVERY:
            return
        waiter.reported = True
        self._reported[key] = now
        self.context.emit(
            kind(
                book.name,
                waiter.label,
                waiter.lane.name.lower(),
                waited,
                book.queue.waiting(waiter.lane),
                book.connection_counts(),
                book.longest_held(3, stacks=True),
            )
        )
