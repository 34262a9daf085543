"""Which connection is where, who holds it, who waits for it: the pool's state, changed only by synchronous calls.

A synchronous call on one loop is atomic, so that none of this needs a lock and a cancellation finds it whole. Opening and
cleaning connections is done by tasks of the pool's actor, which get `needed` and `dirty` calls and answer with `admit` and
`cleaned`.

Invariant: idle + leased + in quarantine + being opened never exceeds `size`, and is `size` again after every churn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import trio

from actors.pool import errors as refusals
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
    """The books of one incarnation of a pool."""

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
        self.state = PoolStatus.CONNECTING
        read, offset = clock_reader()
        self.now: Callable[[], float] = lambda: read() + offset
        """trio's time, for less."""
        self.state_since = trio.current_time()
        self.cause = ""
        """Why no connection could be opened last; empty while they can."""
        self.late_since = math.inf
        """Since when no request has got a connection in good time, once some were shed for it; infinity otherwise."""
        self._ever = False
        self._stirred: trio.Event | None = None
        self._token = token
        self._system_held = 0
        self._reserved = min(settings.reserved, size - 1)
        self._emit = emit
        self._spike = spike
        self._needed = needed
        self._dirty = dirty
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
        """A lease at once, or None if the request has to wait. Raises PoolDown."""
        if self._is_down_for(request.lane):
            self.refused["down"].inc()
            raise self._down(request.label)
        if request.lane is Lane.SYSTEM:
            if self.queue.waiting(Lane.SYSTEM):
                return None
        elif self.queue or self.paused:
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
            self.spiked(f'"{request.label}" refused: {len(self.queue)} are waiting')
            full = refusals.queue_full(
                self.name, request.label, len(self.queue), self.settings.max_waiting, self.describe()
            )
            self._fail(request, "full", full)

    def forget(self, request: LeaseRequest) -> None:
        """The asker gave up: take it out of the queue, or take back what it was just granted."""
        if request.waiter is not None:
            self.queue.discard(request.waiter)
            self.resolved(request.waiter, "given up")
            self._stir()
        if request.lease is not None:
            self.give_back(request.lease)

    # -- giving back --------------------------------------------------------------------------------------------------

    def give_back(self, lease: Lease) -> None:
        """The holder is done with it. See db.lease.lease.LeasePool."""
        if not lease.is_open:
            return
        now = self.now()
        self._close(lease, now)
        connection = lease.connection
        driver = connection.driver
        if not driver.tainted and driver.is_idle() and now < connection.retire_at and self.live < self.size:
            self._rest(connection)
            if self.queue:
                self.serve(now)
        elif driver.is_closed():
            self._gone("lost")
        elif driver.tainted or not driver.is_idle():
            driver.tainted = True
            self.quarantined[connection] = now
            self._dirty(connection)
        else:
            driver.terminate()
            self._gone("retired" if self.live < self.size else "surplus")

    def cleaned(self, connection: Connection, *, clean: bool) -> None:
        """A quarantine has ended; an unclean connection was cut by then."""
        if self.quarantined.pop(connection, None) is None:
            return
        if not clean:
            self._gone("unclean")
        elif self.live >= self.size:
            connection.driver.terminate()
            self._gone("surplus")
        else:
            self._rest(connection)
            self.serve(trio.current_time())

    def revoke(self, lease: Lease, why: str) -> None:
        """Take the connection away from its holder, whatever it does: fence it, cut it, cancel the holder."""
        if not lease.is_open:
            return
        lease.revoked = why
        self._close(lease, trio.current_time())
        lease.driver.tainted = True
        lease.driver.terminate()
        lease.scope.cancel(reason=why)
        self._gone("revoked")

    def reclaim(self, matches: Callable[[LeaseHolder], bool], why: str) -> None:
        """Revoke the leases of these owners."""
        for lease in [lease for lease in self.leases.values() if matches(lease.owner)]:
            held = lease.held(trio.current_time())
            self._emit(LeaseReclaimed(self.name, lease.label, lease.owner.name, held, why))
            metrics.TAKEN_AWAY.labels(self.name, "reclaimed").inc()
            self.revoke(lease, why)

    # -- connections --------------------------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """Connections that exist, in whatever state."""
        return len(self.idle) + len(self.leases) + len(self.quarantined)

    @property
    def missing(self) -> int:
        """Connections to open."""
        return 0 if self.state is PoolStatus.CLOSED else max(0, self.size - self.live)

    def admit(self, connection: Connection) -> None:
        """A new connection was opened."""
        if self.state is PoolStatus.CLOSED or self.live >= self.size:
            connection.driver.terminate()
            return
        metrics.OPENED.labels(self.name).inc()
        self._ever = True
        self.cause = ""
        self._rest(connection)
        self._judge()
        self.serve(trio.current_time())

    def open_failed(self, cause: str) -> None:
        """A connection could not be opened."""
        metrics.OPEN_FAILED.labels(self.name).inc()
        self.cause = cause
        # What took away the server has most likely taken the idle connections as well: know it now, not at their next use.
        self.sweep(trio.current_time())
        self._judge()

    def sweep(self, now: float) -> None:
        """Look at the idle connections: those that died or are too old are replaced."""
        for connection in list(self.idle):
            if not connection.driver.probe():
                why = "lost"
            elif now >= connection.retire_at:
                why = "retired"
            else:
                continue
            self.idle.remove(connection)
            connection.driver.terminate()
            self._gone(why)

    def serve(self, now: float) -> None:
        """Grant what can be granted."""
        while self.idle and self.queue:
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
        """Nobody took the lease that was just granted."""
        self._close(lease, lease.granted_at)
        self._rest(lease.connection)

    def collapse(self, why: str) -> None:
        """The incarnation ends: waiters and holders are told at once, every socket is cut."""
        if self.state is PoolStatus.CLOSED:
            return
        for waiter in self.queue.drain():
            self._fail(waiter.payload, "crashed", refusals.pool_crashed(self.name, waiter.label, why))
        for lease in list(self.leases.values()):
            self.revoke(lease, f"its pool {self.name} ended ({why})")
        for connection in (*self.idle, *self.quarantined):
            connection.driver.terminate()
            metrics.CLOSED.labels(self.name, "stopped").inc()
        self.idle.clear()
        self.quarantined.clear()
        self._enter(PoolStatus.CLOSED, why)

    async def until_unused(self) -> None:
        """Wait until nobody holds a connection or waits for one.

        Who would wait in vain, because the pool is paused or the database away, gets PoolCrashed at once.
        """
        while True:
            is_away = self.state in (PoolStatus.CONNECTING, PoolStatus.DOWN)
            if self.paused or is_away:
                for waiter in self.queue.drain(keep_system=not is_away):
                    self._fail(
                        waiter.payload, "crashed", refusals.pool_crashed(self.name, waiter.label, "it is stopping")
                    )
                    self.resolved(waiter, "refused: stopping")
            if not self.leases and not self.queue:
                return
            self._stirred = trio.Event()
            await self._stirred.wait()

    # -- what operators change ----------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Keep so many connections from now on, at least 1. Surplus ones go at once if idle, else when they come back."""
        self.size = size
        self._reserved = min(self.settings.reserved, size - 1)
        while self.idle and self.live > size:
            self.idle.pop(0).driver.terminate()
            self._gone("surplus")
        if not self.missing:
            self.cause = ""
            self._judge()
        self._needed()

    def pause(self) -> None:
        """Serve only the system lane; holders go on, everybody else waits: deadlines and `max_waiting` hold, nothing else."""
        self.paused = True
        self._stir()

    def resume(self) -> None:
        """Undo `pause`."""
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
        """Tell those whom CoDel gave up."""
        slow_for, target, described = now - self.queue.codel.slow_since, self.settings.slow_target, self.describe()
        for waiter in waiters:
            waited = now - waiter.since
            shed = refusals.request_shed(self.name, waiter.label, waited, slow_for, target, described)
            self._fail(waiter.payload, "shed", shed)
            self.resolved(waiter, "shed")
        self._stir()

    def resolved(self, waiter: QueuedRequest[LeaseRequest], how: str) -> None:
        """A request that may have been reported waits no more."""
        if waiter.reported:
            waiter.reported = False
            self._emit(WaitResolved(self.name, waiter.label, trio.current_time() - waiter.since, how))

    def spiked(self, note: str) -> None:
        """Somebody waited too long or was refused: the watchdog wants to know, monitored or not."""
        self._spike(f"{self.name}: {note}")

    def describe(self) -> str:
        """Return where the connections are, in one sentence for an error."""
        top = self.longest_held(3)
        return (
            f"{self.name} is {self.state}{' and paused' if self.paused else ''}: {len(self.leases)} of {self.size} leased, "
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
            told.append(f'"{lease.label}" at {lease.site} for {lease.held(now):.2f} s{stack}')
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
            self._gone("lost")
        return None

    def _is_down_for(self, lane: Lane) -> bool:
        """Whether a request of this lane is refused at once; the system lane waits out an outage."""
        return self.state is PoolStatus.DOWN and lane is not Lane.SYSTEM

    def _down(self, label: str) -> PoolDown:
        self.spiked(f'"{label}" refused: down')
        return refusals.pool_down(self.name, label, trio.current_time() - self.state_since, self.cause)

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

    def _rest(self, connection: Connection) -> None:
        self.idle.append(connection)

    def _close(self, lease: Lease, now: float) -> None:
        lease.is_open = False
        del self.leases[lease.token]
        if self._stirred is not None:
            self._stirred.set()
        if lease.lane is Lane.SYSTEM:
            self._system_held -= 1
        if self.settings.monitor:
            series = self.holds.get(lease.label)
            if series is None:
                series = self.holds[lease.label] = metrics.LEASE_HOLD_SECONDS.labels(self.name, lease.label)
            series.observe(now - lease.granted_at)

    def _gone(self, why: str) -> None:
        metrics.CLOSED.labels(self.name, why).inc()
        self._judge()
        self._needed()

    def _fail(self, request: LeaseRequest, why: str, error: LeaseError) -> None:
        if request.deferred is not None and request.deferred.fail(error):
            self.refused[why].inc()

    def _judge(self) -> None:
        if self.state is PoolStatus.CLOSED:
            return
        if self.cause:
            self._enter(PoolStatus.DEGRADED if self.live else PoolStatus.DOWN, self.cause)
        elif self._ever:
            self._enter(PoolStatus.UP, "")

    def _enter(self, state: PoolStatus, cause: str) -> None:
        if state is self.state:
            return
        now = trio.current_time()
        kind = PoolWentDown if state is PoolStatus.DOWN else PoolStateChanged
        before, lasted = self.state, now - self.state_since
        self.state, self.state_since = state, now
        self._emit(kind(self.name, before.value, state.value, lasted, cause))
        if state is PoolStatus.DOWN:
            for waiter in self.queue.drain(keep_system=True):
                self._refuse_down(waiter)
        self._stir()

    def _stir(self) -> None:
        """Fewer hold, fewer wait, or those who wait may wait in vain."""
        if self._stirred is not None:
            self._stirred.set()
