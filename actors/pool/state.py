"""The state of a pool: where each connection is, who holds it, and which requests wait. Changed only by synchronous calls.

A synchronous call on one loop is atomic, so that none of this needs a lock and a cancellation finds it whole. Opening and
cleaning connections is done by tasks of the pool's actor, which the state calls as `needed` and `dirty`, and
which answer with `add_connection` and `quarantine_ended`.

Invariant: idle + leased + in quarantine + being opened never exceeds `size`, and is `size` again after every churn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import trio

from actors.pool import errors
from actors.pool import events as metrics
from actors.pool.events import LeaseReclaimed, PoolStateChanged, PoolStatus, PoolWentDown, WaitResolved
from actors.pool.messages import LeaseRequest
from actors.pool.settings import PoolSettings
from db.driver.connection import Connection
from db.errors import LeaseError, PoolDown
from db.lease.lease import Lease, LeaseHolder
from db.lease.queue import Lane, LeaseQueue, QueuedRequest
from runtime import Event, clock_reader
from runtime.metrics import HistogramSeries


class PoolState:
    """The state of one incarnation of a pool."""

    def __init__(
        self,
        name: str,
        settings: PoolSettings,
        size: int,
        *,
        emit: Callable[[Event], None],
        spike: Callable[[str], None],
        needed: Callable[[], None],
        dirty: Callable[[Connection], None],
        watch: Callable[[LeaseRequest], None],
        token: int,
    ) -> None:
        self.name = name
        self.settings = settings
        self.size = size
        """Connections to keep; `resize` changes it."""
        self.paused = False
        """Whether only the system lane is served."""
        self.bridge = ""
        """How the driver is driven; empty until that is known."""
        self.idle: list[Connection] = []
        """Free connections; the one used last is taken first."""
        self.leases: dict[int, Lease] = {}
        """Held ones, by fencing token, oldest first."""
        self.quarantined: dict[Connection, float] = {}
        """Those that must prove that they are clean, and since when."""
        self.queue: LeaseQueue[LeaseRequest] = LeaseQueue(
            limit=settings.max_waiting, target=settings.slow_target, interval=settings.slow_interval
        )
        self.status = PoolStatus.CONNECTING
        read, offset = clock_reader()
        self.now: Callable[[], float] = lambda: read() + offset
        """trio's time, for less."""
        self.status_since = trio.current_time()
        self.cause = ""
        """Why no connection could be opened last; empty while they can."""
        self.late_since = math.inf
        """Since when no request has got a connection in good time, once some were shed for it; infinity otherwise."""
        self._was_connected = False
        self._changed: trio.Event | None = None
        self._token = token
        self._system_held = 0
        self._reserved = min(settings.reserved, size - 1)
        self._emit = emit
        self._spike = spike
        self._on_missing = needed
        self._on_dirty = dirty
        self._watch = watch
        self.refused = {
            why: metrics.REFUSED.labels(name, why) for why in ("timeout", "shed", "full", "down", "crashed")
        }
        """Requests that got no connection, by why."""
        self.waits: dict[tuple[str, Lane], HistogramSeries] = {}
        """Waits by label and lane, while monitored."""
        self.holds: dict[str, HistogramSeries] = {}
        """Holds by label, while monitored."""

    # -- asking -------------------------------------------------------------------------------------------------------

    def take(self, request: LeaseRequest) -> Lease | None:
        """Return a lease at once, or None if the request has to wait. Raises PoolDown while the database is away."""
        if self._is_down_for(request.lane):
            self.refused["down"].inc()
            raise self._down(request.label)
        if request.lane is Lane.SYSTEM:
            if self.queue.waiting(Lane.SYSTEM):
                return None
        elif self.queue.count or self.paused:
            return None
        now = self.now()
        connection = self._free(request.lane, now)
        return None if connection is None else self._grant(request, connection, now)

    def wait(self, request: LeaseRequest) -> None:
        """Enqueue a request that has a deferred reply; it is granted or failed through that."""
        if self._is_down_for(request.lane):  # found while it looked for a connection
            self._fail(request, "down", self._down(request.label))
            return
        waiter = QueuedRequest(request.label, request.lane, request.since, request.deadline, request)
        if self.queue.put(waiter):
            request.waiter = waiter
        else:
            self.report_spike(f'"{request.label}" refused: {len(self.queue)} are waiting')
            full = errors.queue_full(
                self.name, request.label, len(self.queue), self.settings.max_waiting, self.describe()
            )
            self._fail(request, "full", full)

    def forget(self, request: LeaseRequest) -> None:
        """Withdraw a request whose caller gave up: take it out of the queue, or take back what it was just granted."""
        if request.waiter is not None:
            self.queue.discard(request.waiter)
            self.resolved(request.waiter, "given up")
            self._notify_idle()
        if request.lease is not None:
            self.give_back(request.lease)

    # -- giving back --------------------------------------------------------------------------------------------------

    def give_back(self, lease: Lease) -> None:
        """Take a lease back from its holder, whatever state its connection is in. See db.lease.lease.LeasePool."""
        if not lease.is_open:
            return
        now = self.now()
        self._close(lease, now)
        connection = lease.connection
        driver = connection.driver
        if (
            not driver.needs_cleaning
            and driver.is_idle()
            and now < connection.retire_at
            and self.open_count < self.size
        ):
            self._to_idle(connection)
            if self.queue.count:
                self.serve(now)
        elif driver.is_closed():
            self._connection_closed("lost")
        elif driver.needs_cleaning or not driver.is_idle():
            driver.needs_cleaning = True
            self.quarantined[connection] = now
            self._on_dirty(connection)
        else:
            driver.terminate()
            self._connection_closed("retired" if self.open_count < self.size else "surplus")

    def quarantine_ended(self, connection: Connection, *, clean: bool) -> None:
        """Use a connection again whose quarantine has ended, if it is clean; an unclean one was cut by then."""
        if self.quarantined.pop(connection, None) is None:
            return
        if not clean:
            self._connection_closed("unclean")
        elif self.open_count >= self.size:
            connection.driver.terminate()
            self._connection_closed("surplus")
        else:
            self._to_idle(connection)
            self.serve(trio.current_time())

    def revoke(self, lease: Lease, why: str) -> None:
        """Take the connection away from its holder, whatever it does: fence it, cut it, cancel the holder."""
        if not lease.is_open:
            return
        lease.revoked = why
        self._close(lease, trio.current_time())
        lease.driver.needs_cleaning = True
        lease.driver.terminate()
        lease.scope.cancel(reason=why)
        self._connection_closed("revoked")

    def reclaim(self, matches: Callable[[LeaseHolder], bool], why: str) -> None:
        """Revoke the leases of the holders for which `matches` is true, and report each with `why`."""
        for lease in [lease for lease in self.leases.values() if matches(lease.owner)]:
            held = lease.seconds_held(trio.current_time())
            self._emit(LeaseReclaimed(self.name, lease.label, lease.owner.name, held, why))
            metrics.TAKEN_AWAY.labels(self.name, "reclaimed").inc()
            self.revoke(lease, why)

    # -- connections --------------------------------------------------------------------------------------------------

    @property
    def open_count(self) -> int:
        """How many connections exist: idle, leased or in quarantine."""
        return len(self.idle) + len(self.leases) + len(self.quarantined)

    @property
    def is_usable(self) -> bool:
        """Whether there is a connection that works as far as is known: a free one, or one that is held."""
        return bool(self.idle or self.leases)

    @property
    def missing(self) -> int:
        """How many connections are to be opened to have `size` of them."""
        return 0 if self.status is PoolStatus.CLOSED else max(0, self.size - self.open_count)

    def add_connection(self, connection: Connection) -> None:
        """Take a connection that was opened into use, or close it if there are enough by now."""
        if self.status is PoolStatus.CLOSED or self.open_count >= self.size:
            connection.driver.terminate()
            return
        metrics.OPENED.labels(self.name).inc()
        self._was_connected = True
        self.cause = ""
        self._to_idle(connection)
        self._update_status()
        self.serve(trio.current_time())

    def open_failed(self, cause: str) -> None:
        """Note why a connection could not be opened: the pool is degraded or down from now on."""
        metrics.OPEN_FAILED.labels(self.name).inc()
        self.cause = cause
        # What took away the server has most likely taken the idle connections as well: know it now, not at their next use.
        self.sweep(trio.current_time())
        self._update_status()

    def sweep(self, now: float) -> None:
        """Check the idle connections at `now`: those that died or are too old are closed, to be replaced."""
        for connection in list(self.idle):
            if not connection.driver.probe():
                why = "lost"
            elif now >= connection.retire_at:
                why = "retired"
            else:
                continue
            self.idle.remove(connection)
            connection.driver.terminate()
            self._connection_closed(why)

    def serve(self, now: float) -> None:
        """Grant waiting requests, in the order of their lanes, for as long as a connection is idle."""
        while self.idle and self.queue.count:
            system_only = self.paused or len(self.idle) <= self._floor
            waiter = self.queue.take(now, system_only=system_only)
            if waiter is None:
                return
            request = waiter.payload
            connection = self._free(request.lane, now)
            if connection is None:
                # All idle ones were dead: back to the front is where it came from, so it must not lose its turn.
                if self._is_down_for(request.lane):
                    self._refuse_down(waiter)
                else:
                    self.queue.put_first(waiter)
                return
            lease = self._grant(request, connection, now)
            if request.deferred is None or not request.deferred.reply(lease):
                self.give_back_unused(lease)
            else:
                self.resolved(waiter, "served")

    def give_back_unused(self, lease: Lease) -> None:
        """Take back a lease whose request had ended before it was granted: it does not count as a use."""
        self._close(lease, lease.granted_at)
        self._to_idle(lease.connection)

    def close_all(self, why: str) -> None:
        """End the incarnation at once: fail waiting requests, revoke leases, cut every socket. Harmless if repeated."""
        if self.status is PoolStatus.CLOSED:
            return
        for waiter in self.queue.drain():
            self._fail(waiter.payload, "crashed", errors.pool_crashed(self.name, waiter.label, why))
        for lease in list(self.leases.values()):
            self.revoke(lease, f"its pool {self.name} ended ({why})")
        for connection in (*self.idle, *self.quarantined):
            connection.driver.terminate()
            metrics.CLOSED.labels(self.name, "stopped").inc()
        self.idle.clear()
        self.quarantined.clear()
        self._set_status(PoolStatus.CLOSED, why)

    async def until_drained(self) -> None:
        """Wait until no connection is held and no request waits.

        Requests that cannot be served, because the pool is paused or the database away, fail with PoolCrashed at once.
        """
        while True:
            is_away = self.status in (PoolStatus.CONNECTING, PoolStatus.DOWN)
            if self.paused or is_away:
                for waiter in self.queue.drain(keep_system=not is_away):
                    self._fail(
                        waiter.payload, "crashed", errors.pool_crashed(self.name, waiter.label, "it is stopping")
                    )
                    self.resolved(waiter, "refused: stopping")
            if not self.leases and not self.queue.count:
                return
            self._changed = trio.Event()
            await self._changed.wait()

    # -- what operators change ----------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Keep so many connections from now on, at least 1. Surplus ones go at once if idle, else when they come back."""
        self.size = size
        self._reserved = min(self.settings.reserved, size - 1)
        while self.idle and self.open_count > size:
            self.idle.pop(0).driver.terminate()
            self._connection_closed("surplus")
        if not self.missing:
            self.cause = ""
            self._update_status()
        self._on_missing()

    def pause(self) -> None:
        """Serve only the system lane. Holders go on; other requests wait, bounded by their deadlines and `max_waiting` alone."""
        self.paused = True
        self._notify_idle()

    def resume(self) -> None:
        """Serve all lanes again, after `pause`; harmless if the pool is not paused."""
        self.paused = False
        self.queue.codel.slow = False
        self.serve(trio.current_time())

    def expire_all(self, retire_at: Callable[[], float]) -> None:
        """Replace every connection that exists now, each at its time `retire_at()`; held ones when they come back."""
        for connection in (*self.idle, *self.quarantined, *(lease.connection for lease in self.leases.values())):
            connection.retire_at = min(connection.retire_at, retire_at())
        self.sweep(trio.current_time())

    # -- telling ------------------------------------------------------------------------------------------------------

    def shed(self, waiters: list[QueuedRequest[LeaseRequest]], now: float) -> None:
        """Fail these requests, which CoDel took out of the queue, with LeaseShed."""
        slow_for, target, described = now - self.queue.codel.slow_since, self.settings.slow_target, self.describe()
        for waiter in waiters:
            waited = now - waiter.since
            if self.is_usable:
                error: LeaseError = errors.request_shed(self.name, waiter.label, waited, slow_for, target, described)
            else:
                error = errors.pool_away(self.name, waiter.label, waited, self.cause, described)
            self._fail(waiter.payload, "shed", error)
            self.resolved(waiter, "shed")
        self._notify_idle()

    def resolved(self, waiter: QueuedRequest[LeaseRequest], how: str) -> None:
        """Report that a request waits no more, if it was reported that it does. `how`: what became of it."""
        if waiter.reported:
            waiter.reported = False
            self._emit(WaitResolved(self.name, waiter.label, trio.current_time() - waiter.since, how))

    def report_spike(self, note: str) -> None:
        """Tell the watchdog that a request waited too long or was refused, monitored or not."""
        self._spike(f"{self.name}: {note}")

    def describe(self) -> str:
        """Return where the connections are, in one sentence for an error."""
        top = self.longest_held(3)
        return (
            f"{self.name} is {self.status}{' and paused' if self.paused else ''}: {len(self.leases)} of {self.size} leased, "
            f"{len(self.idle)} idle, {len(self.quarantined)} in quarantine, {len(self.queue)} waiting"
            + (f"; held longest: {top}" if top else "")
        )

    def connection_counts(self) -> str:
        """Return where the connections are, in numbers alone."""
        return f"{len(self.leases)} leased, {len(self.idle)} idle, {len(self.quarantined)} in quarantine of {self.size}"

    def longest_held(self, n: int, *, stacks: bool = False) -> str:
        """Return the n leases held for longest: label, line and age; with `stacks` also where each holder's task stands."""
        now = trio.current_time()
        told = []
        for lease in islice(self.leases.values(), n):
            stack = f", standing at {lease.stack()}" if stacks else ""
            told.append(f'"{lease.label}" at {lease.site} for {lease.seconds_held(now):.2f} s{stack}')
        return ", ".join(told)

    # -- inside -------------------------------------------------------------------------------------------------------

    @property
    def _floor(self) -> int:
        """Idle connections that are kept for the system lane."""
        return max(0, self._reserved - self._system_held)

    def _free(self, lane: Lane, now: float) -> Connection | None:
        floor = 0 if lane is Lane.SYSTEM else self._floor
        idle = self.idle
        while len(idle) > floor:
            connection = idle.pop()
            if connection.driver.probe():
                return connection
            connection.driver.terminate()
            self._connection_closed("lost")
        return None

    def _is_down_for(self, lane: Lane) -> bool:
        """Whether a request of this lane is refused at once; the system lane waits out an outage."""
        return self.status is PoolStatus.DOWN and lane is not Lane.SYSTEM

    def _down(self, label: str) -> PoolDown:
        self.report_spike(f'"{label}" refused: down')
        return errors.pool_down(self.name, label, trio.current_time() - self.status_since, self.cause)

    def _refuse_down(self, waiter: QueuedRequest[LeaseRequest]) -> None:
        self._fail(waiter.payload, "down", self._down(waiter.label))
        self.resolved(waiter, "refused: down")

    def _grant(self, request: LeaseRequest, connection: Connection, now: float) -> Lease:
        self._token += 1
        waited = now - request.since
        lease = Lease(
            request.label,
            request.lane,
            request.owner,
            connection,
            self,
            token=self._token,
            hold=request.hold,
            now=now,
            waited=waited,
            code=request.code,
            line=request.line,
        )
        connection.driver.label = request.label
        self.leases[self._token] = lease
        if request.lane is Lane.SYSTEM:
            self._system_held += 1
        elif waited <= self.settings.slow_target:
            self.late_since = math.inf
        request.lease = lease
        self._watch(request)
        if self.settings.monitor:
            key = (request.label, request.lane)
            series = self.waits.get(key)
            if series is None:
                series = self.waits[key] = metrics.LEASE_WAIT_SECONDS.labels(
                    self.name, request.label, request.lane.name.lower()
                )
            series.observe(waited)
        return lease

    @property
    def token(self) -> int:
        """The last fencing token; the next incarnation goes on from it."""
        return self._token

    def _to_idle(self, connection: Connection) -> None:
        self.idle.append(connection)

    def _close(self, lease: Lease, now: float) -> None:
        lease.is_open = False
        del self.leases[lease.token]
        if self._changed is not None:
            self._changed.set()
        if lease.lane is Lane.SYSTEM:
            self._system_held -= 1
        if self.settings.monitor:
            series = self.holds.get(lease.label)
            if series is None:
                series = self.holds[lease.label] = metrics.LEASE_HOLD_SECONDS.labels(self.name, lease.label)
            series.observe(now - lease.granted_at)

    def _connection_closed(self, why: str) -> None:
        metrics.CLOSED.labels(self.name, why).inc()
        self._update_status()
        self._on_missing()

    def _fail(self, request: LeaseRequest, why: str, error: LeaseError) -> None:
        if request.deferred is not None and request.deferred.fail(error):
            self.refused[why].inc()

    def _update_status(self) -> None:
        if self.status is PoolStatus.CLOSED:
            return
        if self.cause:
            self._set_status(PoolStatus.DEGRADED if self.open_count else PoolStatus.DOWN, self.cause)
        elif self._was_connected:
            self._set_status(PoolStatus.UP, "")

    def _set_status(self, status: PoolStatus, cause: str) -> None:
        if status is self.status:
            return
        now = trio.current_time()
        kind = PoolWentDown if status is PoolStatus.DOWN else PoolStateChanged
        before, lasted = self.status, now - self.status_since
        self.status, self.status_since = status, now
        self._emit(kind(self.name, before.value, status.value, lasted, cause))
        if status is PoolStatus.DOWN:
            for waiter in self.queue.drain(keep_system=True):
                self._refuse_down(waiter)
        self._notify_idle()

    def _notify_idle(self) -> None:
        """Wake `until_drained`: fewer hold or wait, or those that wait may wait in vain."""
        if self._changed is not None:
            self._changed.set()
