"""A connection held over a span of the holder's own code: the exception beside `transact`.

Between its statements the holder may do anything but call out: while the lease is open, our HTTP clients and asks refuse.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, TypeVarTuple

import trio

from db.classify import is_driver_error, not_now
from db.lease import Lease
from db.lease_errors import AmbiguousCommit, ConnectionLost, LeaseMisused, LeaseRevoked
from db.stepping import step
from db.transaction import transact
from db.tx import Row, Tx

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
        rows: Sequence[Row] = await self._run(self._raw.fetch(query, *args))
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        self._check()
        row: Row | None = await self._run(self._raw.fetchrow(query, *args))
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or None if it has none."""
        self._check()
        return await self._run(self._raw.fetchval(query, *args))

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag."""
        self._check()
        status: str = await self._run(self._raw.execute(query, *args))
        return status

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of arguments, as one transaction of its own. Slower to begin, fast per row."""
        self._check()
        await self._timed(self._lease.driver.over_loop(self._raw.executemany(query, rows)))

    async def copy_records(self, table: str, records: Iterable[Sequence[object]], columns: Sequence[str]) -> str:
        """Load rows with COPY and return the server's command tag."""
        self._check()
        copying = self._raw.copy_records_to_table(table, records=records, columns=list(columns))
        status: str = await self._timed(self._lease.driver.over_loop(copying))
        return status

    async def run(self, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        """Run `await function(tx, *args)` in one transaction, as `pool.run` does."""
        self._check()
        lease = self._lease
        return await self._timed(transact(lease.driver, function, *args, deadline=lease.deadline))

    def _check(self) -> None:
        lease = self._lease
        if lease.is_open and not lease.driver.tainted and trio.lowlevel.current_task() is lease.task:
            return
        if lease.revoked is not None:
            raise revoked(lease)
        if not lease.is_open:
            raise LeaseMisused(f'the lease "{lease.label}" taken at {lease.site} was given back and is used again')
        if lease.driver.foreign is not None:
            raise LeaseMisused(
                f'a transaction of the lease "{lease.label}" was refused what it called or awaited; give the lease back and '
                "take another one"
            ) from lease.driver.foreign
        if lease.driver.tainted:
            raise LeaseMisused(
                f'a statement of the lease "{lease.label}" was cancelled before the server answered; give the lease back and '
                "take another one"
            )
        raise LeaseMisused(
            f'the lease "{lease.label}" taken at {lease.site} belongs to the task that took it; a child task takes its own, '
            "after this one was given back"
        )

    async def _run(self, statement: Coroutine[Any, Any, T]) -> T:
        lease = self._lease
        began = time.perf_counter()
        try:
            return await step(lease.driver, statement)
        except Exception as error:
            self._explain(error)
            raise
        finally:
            lease.database_time += time.perf_counter() - began

    async def _timed(self, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        lease = self._lease
        try:
            return await work
        except Exception as error:
            self._explain(error)
            raise
        finally:
            lease.database_time += time.perf_counter() - began

    def _explain(self, error: Exception) -> None:
        """Raise what the holder should hear instead of the driver's error, if there is something better."""
        lease = self._lease
        if isinstance(error, AmbiguousCommit):
            return
        if lease.revoked is not None:
            raise revoked(lease) from error
        if lease.driver.is_closed() and is_driver_error(error):
            raise ConnectionLost(f'"{lease.label}" lost its connection: {error}') from error
        waits = None if lease.driver.is_closed() else not_now(error, lease.label)
        if waits is not None:
            raise waits from error


def revoked(lease: Lease) -> LeaseRevoked:
    """The error for a holder whose connection was taken away."""
    return LeaseRevoked(
        f'the lease "{lease.label}" of {lease.owner.name}, taken at {lease.site}, was taken away: {lease.revoked}. '
        "Its transaction was not committed"
    )
