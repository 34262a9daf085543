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

    state: PoolState
    emit: Callable[[Event], None]
    _shed: Counter[str] = attrs.field(init=False, factory=Counter)
    """By label and lane, since the last report."""
    _total: int = attrs.field(init=False, default=0)
    _since: float = attrs.field(init=False, default=0.0)
    _was_reported: bool = attrs.field(init=False, default=False)
    _reported: dict[type[RequestsShed], float] = attrs.field(init=False, factory=dict)

    def record(self, waiters: list[QueuedRequest[LeaseRequest]], now: float) -> None:
        """Take in requests that were taken out of the queue and are about to fail, and report the episode if it is due."""
        state = self.state
        oldest = max(now - waiter.since for waiter in waiters)
        state.late_since = self._since = min(state.late_since, now - oldest)
        state.report_spike(f"{len(waiters)} requests shed after {oldest:.2f} s")
        self._shed.update(f'"{waiter.label}" {waiter.lane.name.lower()}' for waiter in waiters)
        self._total += len(waiters)
        lasting = now - state.late_since
        kind = SevereRequestsShed if lasting > state.settings.wait_critical else RequestsShed
        if not state.settings.monitor or now - self._reported.get(kind, float("-inf")) < REPORT_EVERY:
            return
        self._reported[kind] = now
        self._was_reported = True
        labels = ", ".join(f"{label} {count} times" for label, count in self._shed.most_common(3))
        holders = state.longest_held(3, stacks=True)
        self.emit(
            kind(
                state.name,
                self._shed.total(),
                labels,
                oldest,
                lasting,
                len(state.queue),
                state.connection_counts(),
                holders,
            )
        )
        self._shed.clear()

    def check_end(self, now: float) -> None:
        """Report the end of an episode once requests get their connections in good time again."""
        if self._was_reported and self.state.late_since == float("inf"):
            self.emit(SheddingResolved(self.state.name, self._total, now - self._since))
            self._was_reported = False
            self._total = 0


TICK = 0.1
"""Seconds between two looks."""
_BEAT_LIMIT = 5.0


@attrs.define(eq=False)
class PoolMonitor:
    """Looks at a pool every `TICK` seconds; its beat proves to the watchdog that the pool's loop runs and empties its mailbox."""

    state: PoolState
    context: Context
    beat: WorkerBeat
    _swept: float = attrs.field(init=False, default=0.0)
    _reported: dict[tuple[Lane, bool], float] = attrs.field(init=False, factory=dict)
    _shedding: SheddingReporter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._shedding = SheddingReporter(self.state, self.context.emit)

    async def run(self) -> NoReturn:
        """Tick for ever."""
        watch_mailbox(self.beat, self.context.ref.address)
        while True:
            self.beat.begin(_BEAT_LIMIT)
            self.tick(trio.current_time())
            self.beat.done(self.beat.due_in(TICK))
            await trio.sleep(TICK)

    def tick(self, now: float) -> None:
        """Check everything once: waits, leases that overrun, idle connections."""
        state = self.state
        for lane in Lane:
            head = state.queue.head(lane)
            if head is not None:
                self._check_wait(head, now)
        self._shedding.check_end(now)
        hopeless = [] if state.paused or state.status is PoolStatus.CONNECTING else state.queue.hopeless(now)
        if hopeless:
            self._shedding.record(hopeless, now)
            state.shed(hopeless, now)
        for lease in list(state.leases.values()):
            if now > max(lease.deadline, lease.driver.commit_deadline) + state.settings.revoke_grace:
                stack = lease.stack()
                held = lease.seconds_held(now)
                self.context.emit(
                    LeaseOverrun(state.name, lease.label, lease.owner.name, lease.site, held, lease.hold, stack)
                )
                metrics.TAKEN_AWAY.labels(state.name, "overrun").inc()
                state.revoke(
                    lease, f"it was held for {held:.2f} s, its limit is {lease.hold:g} s, and its holder did not react"
                )
        if now - self._swept >= state.settings.idle_check:
            self._swept = now
            state.sweep(now)
            state.serve(now)

    def _check_wait(self, waiter: QueuedRequest[LeaseRequest], now: float) -> None:
        waited = now - waiter.since
        settings = self.state.settings
        if waited > settings.wait_critical and not waiter.critical:
            waiter.critical = waiter.warned = True
            self._report(SevereWaitSpike, waiter, waited, now)
        elif waited > settings.wait_warning and not waiter.warned:
            waiter.warned = True
            self._report(WaitSpike, waiter, waited, now)

    def _report(self, kind: type[WaitSpike], waiter: QueuedRequest[LeaseRequest], waited: float, now: float) -> None:
        state = self.state
        state.report_spike(f'"{waiter.label}" has waited {waited:.2f} s')
        severity = "critical" if kind is SevereWaitSpike else "warning"
        metrics.SPIKES.labels(state.name, waiter.lane.name.lower(), severity).inc()
        key = (waiter.lane, kind is SevereWaitSpike)
        if not state.settings.monitor or now - self._reported.get(key, float("-inf")) < REPORT_EVERY:
            return
        waiter.reported = True
        self._reported[key] = now
        self.context.emit(
            kind(
                state.name,
                waiter.label,
                waiter.lane.name.lower(),
                waited,
                state.queue.waiting(waiter.lane),
                state.connection_counts(),
                state.longest_held(3, stacks=True),
            )
        )
