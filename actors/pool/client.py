"""How an actor gets at a pool's connections: `pool_of(context, "pool.main")`, then `pool.run(…)`.

When a connection is idle and nobody waits, the pool's own handler is called directly: on one loop a synchronous call is a
message that is handled at once. Otherwise the request travels as a message and the pool answers it when its turn comes.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

import trio

from actors.pool import events as metrics
from actors.pool.errors import pool_away, pool_crashed
from actors.pool.events import IdleHeld
from actors.pool.messages import AcquireLease, LeaseRequest
from actors.pool.state import PoolState
from db.driver.call_site import sites
from db.driver.transaction import transact
from db.errors import AmbiguousCommit, LeaseExpired, LeaseTimeout, NestedLease, PoolDown
from db.lease.lease import Lease, LeaseHolder, OpenLease, revoked, what_is_known
from db.lease.queue import Lane
from db.tx import Tx
from runtime import ActorCrashed, ActorDead, ActorRestarting, AskTimeout, Ref, clock_reader, current_lease

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from runtime import Context

T = TypeVar("T")
Args = TypeVarTuple("Args")


class PoolGate:
    """What a pool's incarnations and its clients share, so that a client can take a free connection without a message."""

    __slots__ = ("has_run", "in_mailbox", "is_accepting", "schema_is_ready", "state", "token")

    def __init__(self) -> None:
        self.state: PoolState | None = None
        """The state of the running incarnation; None while there is none."""
        self.is_accepting = False
        """Whether that incarnation still takes requests: not while it stops."""
        self.in_mailbox = 0
        """Requests on their way through the mailbox. A later request does not overtake them."""
        self.token = 0
        """The last fencing token of earlier incarnations."""
        self.has_run = False
        """Whether a pool has ever run behind it."""
        self.schema_is_ready = False
        """Whether a pool behind it has ever opened a connection to a database that it can use."""


_gates: WeakKeyDictionary[Ref, PoolGate] = WeakKeyDictionary()


def gate_of(ref: Ref) -> PoolGate:
    """Return the gate of the pool behind a reference; made at the first call, and kept for as long as the reference."""
    gate = _gates.get(ref)
    if gate is None:
        gate = _gates[ref] = PoolGate()
    return gate


def known_gate(ref: Ref) -> PoolGate | None:
    """Return the gate behind a reference, or None if `gate_of` was never called for it: then it is no pool that is used."""
    return _gates.get(ref)


def pool_of(context: Context, name: str, *, lane: Lane = Lane.INTERACTIVE) -> Pool:
    """Return the pool of that name, for the actor whose context this is. Raises UnknownActor with the nearest name.

    `lane` is that of every request that names none; background work, for which no customer waits, takes `Lane.BATCH`.
    """
    return Pool(context.lookup(name), context.ref, LeaseHolder(context.name, context.incarnation), context, lane)


class Pool:
    """A pool as one incarnation of one actor sees it. Cheap; keep it for the incarnation's life."""

    def __init__(self, ref: Ref, holder_ref: Ref, owner: LeaseHolder, context: Context, lane: Lane) -> None:
        self.name = ref.name
        self._lane = lane
        self._ref = ref
        self._holder_ref = holder_ref
        self._owner = owner
        self._context = context
        self._gate = gate_of(ref)
        read, offset = clock_reader()
        self._now: Callable[[], float] = lambda: read() + offset

    async def run(
        self,
        label: str,
        function: Callable[[Tx, *Args], Awaitable[T]],
        *args: *Args,
        within: float = 10.0,
        hold: float = 5.0,
        lane: Lane | None = None,
    ) -> T:
        """Run `await function(tx, *args)` in one READ COMMITTED transaction and return its result after the commit.

        The function may await nothing but `tx`: anything else raises ForeignAwait at its line, and the transaction rolls
        back. `within` seconds bound getting a connection, `hold` seconds using it (both always count). `lane` is the pool
        handle's own, if it is not named. When the caller is
        cancelled in a statement it goes on at once; in COMMIT, once the commit is decided.

        Raises what the function raises, and: LeaseTimeout, LeaseShed, PoolDown, PoolCrashed (nothing was sent);
        LeaseExpired, LeaseRevoked, ConnectionLost, TransactionLost, DatabaseBusy, DatabaseUnable (nothing was committed);
        AmbiguousCommit (find out);
        NestedLease, ForeignAwait, LeaseMisused (a defect of the caller).
        """
        # A line for errors, without the cost of a traceback.
        request = self._request(label, self._lane if lane is None else lane, within, hold, sys._getframe(1))
        lease = await self._acquire(request)
        marker = current_lease.set(lease)
        stack = ""
        try:
            with lease.scope:
                try:
                    return await transact(lease.driver, function, *args, deadline=lease.deadline, scope=lease.scope)
                except trio.Cancelled as cancelled:
                    stack = _cancelled_at(cancelled.__traceback__, skip=1)  # this line
                    raise
        except Exception as error:
            if lease.revoked is not None and not isinstance(error, AmbiguousCommit):
                raise revoked(lease) from error
            raise
        finally:
            lease.pool.give_back(lease)
            current_lease.reset(marker)
        raise self._expiry_error(lease, stack)

    def lease(
        self, label: str, *, within: float = 10.0, hold: float = 5.0, lane: Lane | None = None
    ) -> AbstractAsyncContextManager[OpenLease]:
        """Hold a connection over an `async with` block. The exception: use `run` wherever a function can do the work.

        While it is open, this task and its children cannot ask, call over HTTP, or take another lease. At the hold deadline
        the block is cancelled and LeaseExpired raised. Raises as `run`; statements outside `lease.run` commit one by one.
        """
        return _LeaseBlock(self, (label, self._lane if lane is None else lane, within, hold), sys._getframe(1))

    def _request(self, label: str, lane: Lane, within: float, hold: float, caller: FrameType) -> LeaseRequest:
        now = self._now()
        return LeaseRequest(
            label, lane, hold, self._owner, self._holder_ref, now, now + within, caller.f_code, caller.f_lineno
        )

    async def _acquire(self, request: LeaseRequest) -> Lease:
        held = current_lease.get()
        if held is not None and held.is_open:
            nested = NestedLease(
                f'"{request.label}" asked for a connection of {self.name} at {request.site} while "{held.label}", '
                f"taken at {held.site}, is held: with every connection held like that nobody would go on. Give it back first, "
                "or pass the open transaction on"
            )
            held.note_refused_call(nested)
            raise nested
        gate = self._gate
        state = gate.state
        lease: Lease | None = None
        if state is not None and gate.is_accepting and (gate.in_mailbox == 0 or request.lane is Lane.SYSTEM):
            lease = state.take(request)
        if lease is None:
            lease = await self._ask(request)
        lease.task = trio.lowlevel.current_task()
        return lease

    async def _ask(self, request: LeaseRequest) -> Lease:
        gate = self._gate
        gate.in_mailbox += 1
        try:
            return await self._ref.ask(AcquireLease(request), within=max(request.deadline - trio.current_time(), 1e-3))
        except AskTimeout as timeout:
            self._withdraw(request)
            raise self._timed_out(request) from timeout
        except (ActorCrashed, ActorRestarting, ActorDead) as gone:
            self._withdraw(request)
            metrics.REFUSED.labels(self.name, "crashed").inc()
            raise pool_crashed(self.name, request.label, str(gone)) from gone
        except BaseException:
            self._withdraw(request)
            raise
        finally:
            if not request.left_mailbox:
                request.left_mailbox = True
                gate.in_mailbox -= 1

    def _withdraw(self, request: LeaseRequest) -> None:
        if request.lease is not None:
            request.lease.pool.give_back(request.lease)
        elif self._gate.state is not None:
            self._gate.state.forget(request)

    def _timed_out(self, request: LeaseRequest) -> LeaseTimeout | PoolDown:
        waited = trio.current_time() - request.since
        limit = request.deadline - request.since
        state = self._gate.state
        described = f"{self.name} is not running" if state is None else state.describe()
        metrics.REFUSED.labels(self.name, "timeout").inc()
        self._context.services.beats.pool_wait_spike(f'{self.name}: "{request.label}" got none in {waited:.2f} s')
        if state is not None and not state.is_usable:
            return pool_away(self.name, request.label, waited, state.cause, described)
        return LeaseTimeout(
            f'"{request.label}" got no connection in {waited:.2f} s (within={limit:g} s), lane {request.lane.name.lower()}, at '
            f"{request.site}. {described}. Hold connections for less time, or raise pool.size"
        )

    def _expiry_error(self, lease: Lease, stack: str) -> LeaseExpired | Exception:
        """The error when the lease's own scope ended its holder."""
        if lease.revoked is not None:
            return revoked(lease)
        metrics.TAKEN_AWAY.labels(self.name, "expired").inc()
        held = lease.seconds_held(trio.current_time())
        error = LeaseExpired(
            f'"{lease.label}" of {lease.owner.name}, taken at {lease.site}, held its connection for {held:.2f} s, its limit is '
            f"{lease.hold:g} s (hold=…); {what_is_known(lease)}. It stood at {stack or 'an unknown line'}"
        )
        error.in_part = lease.under_way or lease.committed > 0
        return error

    def _measure(self, lease: Lease) -> None:
        state = self._gate.state
        if state is None or not state.settings.monitor:
            return
        held = lease.seconds_held(self._now())
        idle = held - lease.database_time
        if idle > state.settings.idle_held_warning:
            self._context.emit(IdleHeld(self.name, lease.label, lease.site, held, idle))


class _LeaseBlock:
    """The `async with` block of an open lease."""

    __slots__ = ("_arguments", "_caller", "_lease", "_marker", "_pool")

    def __init__(self, pool: Pool, arguments: tuple[str, Lane, float, float], caller: FrameType) -> None:
        self._pool = pool
        self._arguments = arguments
        self._caller = caller

    async def __aenter__(self) -> OpenLease:
        pool = self._pool
        lease = self._lease = await pool._acquire(pool._request(*self._arguments, self._caller))
        self._marker = current_lease.set(lease)
        lease.scope.__enter__()
        return OpenLease(lease)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        lease = self._lease
        try:
            swallowed = lease.scope.__exit__(kind, error, traceback)
        finally:
            # First, since the rest fails for a generator that is closed by another task than began it.
            lease.pool.give_back(lease)
            self._pool._measure(lease)
            current_lease.reset(self._marker)
        if swallowed and (lease.scope.cancelled_caught or lease.revoked is not None):
            raise self._pool._expiry_error(lease, _cancelled_at(traceback)) from error
        return bool(swallowed) and error is not None


def _cancelled_at(traceback: TracebackType | None, *, skip: int = 0) -> str:
    """The lines of ours through which a cancellation passed, outermost first, without the first `skip` of them."""
    lines = []
    while traceback is not None:
        lines.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return " > ".join(sites(lines[skip:]))
