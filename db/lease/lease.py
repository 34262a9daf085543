"""One lease: which actor holds which connection, since when, for how long, from which line, and what it may do with it.

`Lease` is the pool's record, and the marker that the guard against calls under a lease looks at
(`runtime.core.lease_guard`). `OpenLease` is what `async with pool.lease(…)` gives, the exception beside `transact`:
between its statements the holder may do anything but call out, because our HTTP clients and asks refuse while the
lease is open.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import CodeType
from typing import Any, Protocol, TypeVar, TypeVarTuple

import attrs
import trio

from db.driver.call_site import site_at, sites
from db.driver.classify import is_driver_error, passing_error
from db.driver.connection import Connection
from db.driver.statements import look_up, note_effect
from db.driver.stepping import step
from db.driver.transaction import transact
from db.errors import AmbiguousCommit, ConnectionLost, LeaseMisused, LeaseRevoked
from db.lease.queue import Lane
from db.tx import Row, Tx

_STACK_LINES = 12


@attrs.frozen(cache_hash=True)
class LeaseHolder:
    """The incarnation of an actor for which a lease is taken."""

    name: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.name}#{self.incarnation}"


class LeasePool(Protocol):
    """The state of a pool, as far as a lease needs it."""

    def give_back(self, lease: Lease) -> None:
        """Take the connection back, in whatever state it is. Never waits, never raises, harmless if repeated."""
        ...


class Lease:
    """A connection handed out. Closed exactly once: given back by its holder, or taken away by the pool."""

    __slots__ = (
        "_code",
        "_line",
        "committed",
        "connection",
        "database_time",
        "deadline",
        "driver",
        "granted_at",
        "hold",
        "is_open",
        "label",
        "lane",
        "owner",
        "pool",
        "revoked",
        "scope",
        "task",
        "token",
        "under_way",
        "waited",
    )

    def __init__(
        self,
        label: str,
        lane: Lane,
        owner: LeaseHolder,
        connection: Connection,
        pool: LeasePool,
        *,
        token: int,
        hold: float,
        now: float,
        waited: float,
        code: CodeType | None,
        line: int,
    ) -> None:
        self.label = label
        self.lane = lane
        self.owner = owner
        self.connection = connection
        self.pool = pool
        """Where it is given back."""
        self.driver = connection.driver
        self.token = token
        """The fencing token: grows with each lease of a pool and is never used twice."""
        self.hold = hold
        self.granted_at = now
        self.deadline = now + hold
        """Time on trio's clock at which the connection is taken away."""
        self.waited = waited
        """Seconds that the holder waited for it."""
        self.is_open = True
        self.revoked: str | None = None
        """Why the pool took it away, as a sentence; None if it did not."""
        self.database_time = 0.0
        """Seconds spent in statements, of an open lease."""
        self.committed = 0
        """Statements and transactions of an open lease that have committed."""
        self.under_way = False
        """Whether a statement of an open lease that commits by itself was sent and not answered."""
        self.scope = trio.CancelScope(deadline=self.deadline)
        """The holder's: cancelled at the hold deadline and when the lease is revoked."""
        self.task: trio.lowlevel.Task | None = None
        """The holder's; None until it has picked the lease up."""
        self._code = code
        self._line = line

    @property
    def site(self) -> str:
        """The line of code that took the lease, as `path:line in function`."""
        return site_at(self._code, self._line)

    def note_refused_call(self, error: Exception) -> None:
        """Remember a call that was refused under this lease (`runtime.core.lease_guard`), in case the holder swallows the error.

        A transaction in which that happened does not commit.
        """
        driver = self.driver
        if driver.stepping:
            driver.needs_cleaning = True
            if driver.foreign_await is None:
                driver.foreign_await = error

    def seconds_held(self, now: float) -> float:
        """Seconds from the grant until `now`, on trio's clock."""
        return now - self.granted_at

    def describe(self, now: float) -> dict[str, object]:
        """The lease as `atlas leases` shows it: plain values, ready for JSON."""
        return {
            "label": self.label,
            "lane": self.lane.name.lower(),
            "owner": str(self.owner),
            "site": self.site,
            "held_seconds": round(self.seconds_held(now), 4),
            "limit_seconds": self.hold,
            "waited_seconds": round(self.waited, 4),
            "backend_pid": self.connection.pid,
            "token": self.token,
        }

    def stack(self) -> str:
        """Where the holder's task stands right now, outermost line first."""
        if self.task is None:
            return "not picked up by its holder yet"
        lines = sites((frame.f_code, line) for frame, line in self.task.iter_await_frames())
        return " > ".join(lines[-_STACK_LINES:])

    def __repr__(self) -> str:
        state = "revoked" if self.revoked else "open" if self.is_open else "closed"
        return f"<Lease #{self.token} {self.label!r} {state}>"


T = TypeVar("T")
Args = TypeVarTuple("Args")


class OpenLease:
    """What `async with pool.lease(…)` gives: single statements (each its own transaction), and whole transactions.

    Usable by the task that took it, until it leaves the block. Raises LeaseMisused otherwise, LeaseRevoked once the pool has
    taken the connection away.
    """

    __slots__ = ("_lease", "_raw")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._raw = lease.driver.raw

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        """Run one statement and return all its rows."""
        self._check()
        rows: Sequence[Row] = await self._run(query, self._raw.fetch(query, *args))
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        self._check()
        row: Row | None = await self._run(query, self._raw.fetchrow(query, *args))
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or None if it has none."""
        self._check()
        return await self._run(query, self._raw.fetchval(query, *args))

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag."""
        self._check()
        status: str = await self._run(query, self._raw.execute(query, *args))
        return status

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of arguments, as one transaction of its own. Slower to begin, fast per row."""
        self._check()
        self._note(query)
        await self._timed(self._lease.driver.run_on_loop(self._raw.executemany(query, rows)))

    async def copy_records(self, table: str, records: Iterable[Sequence[object]], columns: Sequence[str]) -> str:
        """Load rows with COPY and return the server's command tag."""
        self._check()
        self._note("")
        copying = self._raw.copy_records_to_table(table, records=records, columns=list(columns))
        status: str = await self._timed(self._lease.driver.run_on_loop(copying))
        return status

    async def run(self, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        """Run `await function(tx, *args)` in one transaction, as `pool.run` does."""
        self._check()
        lease = self._lease
        result = await self._timed(transact(lease.driver, function, *args, deadline=lease.deadline))
        lease.committed += 1
        return result

    def _check(self) -> None:
        lease = self._lease
        if lease.is_open and not lease.driver.needs_cleaning and trio.lowlevel.current_task() is lease.task:
            return
        if lease.revoked is not None:
            raise revoked(lease)
        if not lease.is_open:
            raise LeaseMisused(f'the lease "{lease.label}" taken at {lease.site} was given back and is used again')
        if lease.driver.foreign_await is not None:
            raise LeaseMisused(
                f'a transaction of the lease "{lease.label}" was refused what it called or awaited; give the lease back and '
                "take another one"
            ) from lease.driver.foreign_await
        if lease.driver.needs_cleaning:
            raise LeaseMisused(
                f'a statement of the lease "{lease.label}" was cancelled before the server answered; give the lease back and '
                "take another one"
            )
        raise LeaseMisused(
            f'the lease "{lease.label}" taken at {lease.site} belongs to the task that took it; a child task takes its own, '
            "after this one was given back"
        )

    def _note(self, query: str) -> None:
        lease = self._lease
        if look_up(query, True):
            note_effect(lease.driver, query, in_transaction=False)
        lease.under_way = not lease.driver.is_closed() and not self._raw.is_in_transaction()

    async def _run(self, query: str, statement: Coroutine[Any, Any, T]) -> T:
        self._note(query)
        return await self._timed(step(self._lease.driver, statement))

    async def _timed(self, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        lease = self._lease
        try:
            result = await work
        except Exception as error:
            self._explain(error)
            raise
        finally:
            lease.database_time += time.perf_counter() - began
        if lease.under_way:
            lease.under_way = False
            # Not after the holder's own BEGIN: nothing has committed yet.
            lease.committed += not self._raw.is_in_transaction()
        return result

    def _explain(self, error: Exception) -> None:
        """Raise what the holder should hear instead of the driver's error, if there is something better."""
        lease = self._lease
        if isinstance(error, AmbiguousCommit):
            return
        if lease.revoked is not None:
            raise revoked(lease) from error
        is_lost = lease.driver.is_closed() and (is_driver_error(error) or isinstance(error, ConnectionLost))
        if is_lost and lease.under_way:
            raise AmbiguousCommit(
                f'a statement of "{lease.label}" that commits by itself was sent but the connection was lost ({error}): it '
                f"may or may not have happened. Look the result up before repeating it{_earlier(lease)}"
            ) from error
        if is_lost:
            raise ConnectionLost(
                f'"{lease.label}" lost its connection before COMMIT: {error}; nothing of the statement or transaction that was '
                f"under way was changed{_earlier(lease)}"
            ) from error
        lease.under_way = False
        waits = None if lease.driver.is_closed() else passing_error(error, lease.label)
        if waits is not None:
            raise waits from error


def _earlier(lease: Lease) -> str:
    return (
        f". {lease.committed} statements or transactions of the lease committed before and stay"
        if lease.committed
        else ""
    )


def what_is_known(lease: Lease) -> str:
    """What became of a lease's work when it was cut short, as a sentence without its end."""
    if lease.under_way:
        return (
            "a statement that commits by itself was under way: it may or may not have happened, look it up before repeating it"
            + _earlier(lease)
        )
    return (
        "the transaction that was open, if one was, is rolled back" + _earlier(lease)
        if lease.committed
        else ("the transaction was rolled back, nothing was committed")
    )


def revoked(lease: Lease) -> LeaseRevoked:
    """The error for a holder whose connection was taken away."""
    error = LeaseRevoked(
        f'the lease "{lease.label}" of {lease.owner.name}, taken at {lease.site}, was taken away: {lease.revoked}. '
        f"What is known: {what_is_known(lease)}"
    )
    error.in_part = lease.under_way or lease.committed > 0
    return error
