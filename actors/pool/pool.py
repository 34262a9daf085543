"""The pool of database connections, as an actor."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import partial

import attrs
import trio

from actors.pool import control as _commands  # noqa: F401  adds `leases` and `pool` to the control socket
from actors.pool import events as metrics
from actors.pool.client import PoolGate, gate_of
from actors.pool.events import BridgeFallback, DriverComplaint, ListeningInterrupted, PoolStateChanged, PoolStatus
from actors.pool.messages import AcquireLease, LeaseRequest
from actors.pool.monitor import PoolMonitor
from actors.pool.opener import Opener
from actors.pool.report import pool_summary
from actors.pool.settings import PoolSettings
from actors.pool.state import PoolState
from db.driver.address import DatabaseAddress
from db.driver.bridge import Bridge, open_loop
from db.driver.bridge_choice import choose_bridge
from db.driver.connection import Connection, SessionLimits, open_connection, quarantine
from db.driver.listener import Listener
from db.driver.transaction import SteppedTx
from db.embedded import EmbeddedSettings, embedded_dsn
from db.errors import (
    DatabaseUnreachable,
    DatabaseUnusable,
    PoolDown,
)
from db.lease.lease import Lease, LeaseHolder
from db.lease.queue import Lane
from db.schema.migrate import MigrationError, check_schema, migrate
from db.schema.packages import check_packages, migrate_packages
from db.settings import DatabaseSettings
from runtime import Actor, Deferred, Down, Event, Fatal, StopReason, UnknownActor, WakeUp, handler

WAKE_CHANNEL = "atlas_wake"
"""The channel on which transactions announce new work; the payload is the worker's name."""
_LIFETIME_JITTER = 0.1


@attrs.define(eq=False)
class PoolActor(Actor):
    """Keeps connections to one database and leases them.

    Role: the only way to the database. Several pools may exist, each its own actor with its own asyncio loop.
    Owns: its connections, one LISTEN connection, and the queue of those who wait.
    Receives: AcquireLease from `Pool` (which takes it from the same state directly when a connection is free), Down of
    holders. Sends: leases, and WakeUp to the worker that a NOTIFY names.
    On crash: every waiter gets PoolCrashed and every holder LeaseRevoked at once, all sockets are cut; the next incarnation
    starts with fresh connections and higher fencing tokens.
    Invariants: a connection has at most one holder; idle = size after every churn; an outage of the database is a state, never
    a crash. Raises Fatal (78) when the database can never be used: before the first connection of this process: wrong
    credentials, a server older than 15, a schema newer than this program. Later the same is an outage.
    """

    database: DatabaseSettings
    settings: PoolSettings
    embedded: EmbeddedSettings
    size: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    """Connections of this pool, if not `settings.size`."""
    migrate: bool = True
    """Whether this pool brings the schema up to date before it serves. One pool of a system does."""
    wakes: tuple[str, ...] = ()
    """Workers that are woken by NOTIFY, and after each interruption of the listening, since a NOTIFY may have been missed.
    Empty: this pool does not listen."""

    _state: PoolState = attrs.field(init=False, repr=False)
    _opener: Opener = attrs.field(init=False, repr=False)
    _gate: PoolGate = attrs.field(init=False, repr=False)
    _bridge: Bridge | None = attrs.field(init=False, default=None, repr=False)
    _watched: set[LeaseHolder] = attrs.field(init=False, factory=set, repr=False)
    _chance: random.Random = attrs.field(init=False, factory=random.Random, repr=False)

    async def on_start(self) -> None:
        """Make the pool's state and begin to open connections; does not wait for the database."""
        context = self.context
        gate = self._gate = gate_of(context.ref)
        size = self.size or self.settings.size
        dirty, to_clean = trio.open_memory_channel[Connection](math.inf)
        self._state = PoolState(
            context.name,
            self.settings,
            size,
            emit=self._emit,
            spike=context.services.beats.pool_wait_spike,
            needed=self._wake_opener,
            dirty=dirty.send_nowait,
            watch=self._watch_owner,
            token=gate.token,
        )
        self._opener = Opener(self._state, self._open)
        self._publish()
        context.ready(False, "connecting")
        context.start_task(self._serve, to_clean, name="connections", inherit_deadline=False)
        gate.state = self._state
        gate.is_accepting = gate.has_run = True

    async def on_stop(self, reason: StopReason) -> None:
        """Drain: current holders and requests that can still be served finish, new requests are refused."""
        self._gate.is_accepting = False
        await self._state.until_drained()

    def inspect(self) -> Mapping[str, object]:
        """State, connections, and the oldest holders and waiters: what the watchdog tells of a pool in one line of the log.

        `atlas leases` has all of them, and the histograms.
        """
        return pool_summary(self._state)

    # -- messages -----------------------------------------------------------------------------------------------------

    @handler
    async def acquire(self, message: AcquireLease) -> Deferred[Lease]:
        """Grant at once or enqueue; the asker's deadline runs on meanwhile."""
        request = message.request
        deferred = request.deferred = self.context.defer(message)
        if not request.left_mailbox:
            request.left_mailbox = True
            self._gate.in_mailbox -= 1
        if not deferred.is_open:
            return deferred
        self.context.failpoint("acquire")
        try:
            lease = self._state.take(request)
        except PoolDown as down:
            deferred.fail(down)
            return deferred
        if lease is None:
            self._state.wait(request)
        elif not deferred.reply(lease):
            self._state.give_back_unused(lease)
        return deferred

    @handler
    async def owner_down(self, message: Down) -> None:
        """A holder's incarnation has ended: revoke the leases that it has left behind."""
        owner = LeaseHolder(message.name, message.incarnation)
        if message.reason == "dead":  # nothing ran when the monitor was placed: it was still starting
            self._watched.discard(owner)
            return
        self._watched.discard(owner)
        self._state.reclaim(owner.__eq__, f"{message.name} ended ({message.reason})")

    # -- connections --------------------------------------------------------------------------------------------------

    async def _serve(self, to_clean: trio.MemoryReceiveChannel[Connection]) -> None:
        try:
            async with open_loop(self._complain) as loop:
                self._bridge, fallback = await choose_bridge(self.settings.bridge, loop)
                self._state.bridge = self._bridge.name
                if fallback:
                    self.context.emit(BridgeFallback(self.context.name, fallback))
                self.context.describe(bridge=self._bridge.name, size=str(self._state.size))
                async with trio.open_nursery() as nursery:
                    beat = self.context.services.beats.pool(self.context.name)
                    nursery.start_soon(PoolMonitor(self._state, self.context, beat).run)
                    nursery.start_soon(self._clean, to_clean)
                    if self.wakes:
                        nursery.start_soon(self._listen)
                    try:
                        await self._opener.run()
                    finally:
                        # Before the nursery is left: what still runs there may wait for one of these sockets.
                        self._collapse()
        finally:
            self._collapse()

    def _collapse(self) -> None:
        if self._gate.state is self._state:
            self._gate.state = None
            self._gate.is_accepting = False
        self._gate.token = self._state.token
        self._state.close_all("it is stopping" if self.context.stopping else "it crashed or was killed")

    async def _open(self) -> Connection:
        """One connection, ready for use; the first one of a boot also brings the schema up to date."""
        connection = await self._connect(f"atlas/{self.context.name.removeprefix('pool.')}")
        if not self._gate.schema_is_ready:
            try:
                await self._prepare(connection)
            except BaseException:
                connection.driver.terminate()
                raise
            self._gate.schema_is_ready = True
        return connection

    async def _connect(self, application_name: str) -> Connection:
        assert self._bridge is not None
        database = self.database
        limits = SessionLimits(
            statement=database.statement_timeout,
            lock=database.lock_timeout,
            idle_in_transaction=database.idle_in_transaction_timeout,
            client_check=database.connection_check_interval,
        )
        lifetime = self.settings.max_lifetime * (1 - self._chance.uniform(0, _LIFETIME_JITTER))
        try:
            target = DatabaseAddress.parse(database.dsn.reveal() or embedded_dsn(self.embedded))
            return await open_connection(
                self._bridge, target, application_name, limits, within=database.connect_timeout, lifetime=lifetime
            )
        except DatabaseUnusable as error:
            if self._gate.schema_is_ready:
                raise
            raise Fatal(str(error), exit_code=error.exit_code) from error

    async def _prepare(self, connection: Connection) -> None:
        tx = SteppedTx(connection.driver)
        try:
            if self.migrate and self.database.migrate_on_start:
                applied = await migrate(tx, purpose=self.database.purpose, wait=self.database.migration_wait)
                applied += await migrate_packages(tx, self.database.packages, wait=self.database.migration_wait)
                if applied:
                    self.context.describe(migrated=f"to {applied[-1]}, {len(applied)} new")
            elif self.migrate:
                await check_schema(tx)
                await check_packages(tx, self.database.packages)
        except MigrationError as error:
            raise Fatal(str(error), exit_code=error.exit_code) from error
        except Exception as error:
            if connection.driver.is_closed():
                raise DatabaseUnreachable(f"the connection was lost while the schema was looked at: {error}") from error
            raise

    async def _clean(self, to_clean: trio.MemoryReceiveChannel[Connection]) -> None:
        async with trio.open_nursery() as nursery:
            async for connection in to_clean:
                nursery.start_soon(self._clean_one, connection)

    async def _clean_one(self, connection: Connection) -> None:
        metrics.QUARANTINED.labels(self.context.name).inc()
        clean = await quarantine(connection, limit=self.settings.quarantine)
        self._state.quarantine_ended(connection, clean=clean)

    async def _listen(self) -> None:
        name = f"atlas/{self.context.name.removeprefix('pool.')}/listen"
        await Listener(
            WAKE_CHANNEL, lambda: self._connect(name), self._notified, self._wake_all, self._interrupted
        ).run()

    def _interrupted(self, cause: str) -> None:
        metrics.WAKES_INTERRUPTED.labels(self.context.name).inc()
        self.context.emit(ListeningInterrupted(self.context.name, cause))

    def _notified(self, payload: str) -> None:
        try:
            ref = self.context.lookup(payload)
        except UnknownActor:
            metrics.WAKES.labels(self.context.name, "unknown").inc()
            return
        ref.tell(WakeUp())
        metrics.WAKES.labels(self.context.name, "woken").inc()

    def _wake_all(self) -> None:
        for name in self.wakes:
            self._notified(name)

    # -- called by the pool's state ------------------------------------------------------------------------------------------

    def _wake_opener(self) -> None:
        self._opener.wake()

    def _watch_owner(self, request: LeaseRequest) -> None:
        if request.owner not in self._watched:
            self._watched.add(request.owner)
            self.context.monitor(request.holder_ref)

    def _emit(self, event: Event) -> None:
        self.context.emit(event)
        if isinstance(event, PoolStateChanged) and event.after != PoolStatus.CLOSED:
            self.context.ready(event.after in (PoolStatus.UP, PoolStatus.DEGRADED), event.cause)

    def _complain(self, text: str) -> None:
        self.context.emit(DriverComplaint(self.context.name, text))

    def _publish(self) -> None:
        name = self.context.name
        state = self._state
        counts: dict[str, Callable[[], float]] = {
            "idle": lambda: len(state.idle),
            "leased": lambda: len(state.leases),
            "quarantined": lambda: len(state.quarantined),
            "missing": lambda: state.missing,
        }
        for what, count in counts.items():
            metrics.CONNECTIONS.from_callback((name, what), count)
        for lane in Lane:
            metrics.WAITING.from_callback((name, lane.name.lower()), partial(state.queue.waiting, lane))
