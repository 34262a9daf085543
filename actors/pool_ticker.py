"""Looks at the pool several times a second: who waits too long, who holds too long, which idle connection has died."""

from __future__ import annotations

from typing import NoReturn

import attrs
import trio

from actors import pool_metrics as metrics
from actors.pool_book import PoolBook, PoolState
from actors.pool_events import LeaseOverrun, SevereWaitSpike, WaitSpike
from actors.pool_messages import LeaseRequest
from actors.pool_report import counts, top_holders
from actors.pool_shedding import REPORT_EVERY, Shedding
from db.lease_queue import Lane, Waiter
from runtime.beats import WorkerBeat
from runtime.context import Context
from runtime.worker import watch_mailbox

TICK = 0.1
"""Seconds between two looks."""
_BEAT_LIMIT = 5.0


@attrs.define(eq=False)
class Ticker:
    """The pool's clockwork; its beat proves to the watchdog that the pool turns and takes requests out of its mailbox."""

    book: PoolBook
    context: Context
    beat: WorkerBeat
    _swept: float = attrs.field(init=False, default=0.0)
    _reported: dict[tuple[Lane, bool], float] = attrs.field(init=False, factory=dict)
    _shedding: Shedding = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._shedding = Shedding(self.book, self.context.emit)

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
        hopeless = [] if book.paused or book.state is PoolState.CONNECTING else book.queue.hopeless(now)
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

    def _spike(self, waiter: Waiter[LeaseRequest], now: float) -> None:
        waited = now - waiter.since
        settings = self.book.settings
        if waited > settings.wait_critical and not waiter.critical:
            waiter.critical = waiter.warned = True
            self._report(SevereWaitSpike, waiter, waited, now)
        elif waited > settings.wait_warning and not waiter.warned:
            waiter.warned = True
            self._report(WaitSpike, waiter, waited, now)

    def _report(self, kind: type[WaitSpike], waiter: Waiter[LeaseRequest], waited: float, now: float) -> None:
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
                counts(book),
                top_holders(book, 3, stacks=True),
            )
        )
