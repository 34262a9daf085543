"""Run a business function in one transaction, READ COMMITTED, on a connection that is held for it.

The function is stepped in the holder's own task and can wait for nothing but this transaction. It commits when the
function returns and rolls back when it raises. A commit whose outcome is unknown is reported as such, never guessed.
`SteppedTx` is for code that begins and ends its transactions itself: migrations, an operator's session.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, TypeVarTuple

import trio

from db.driver.bridge import DriverConnection
from db.driver.classify import Fault, classify, is_driver_error, is_stale_statement, passing_error
from db.driver.stepping import HeldTx, step
from db.errors import AmbiguousCommit, ConnectionLost, LeaseError, LeaseMisused, TransactionLost
from db.tx import Row, Tx


class SteppedTx:
    """`db.tx.Tx` on a connection that has no other user; its user begins and ends the transactions.

    Each statement runs in the current task. Errors come out as the driver raises them.
    """

    __slots__ = ("_driver", "_raw")

    def __init__(self, driver: DriverConnection) -> None:
        self._driver = driver
        self._raw = driver.raw

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        """Run one statement and return all its rows."""
        rows: Sequence[Row] = await step(self._driver, self._raw.fetch(query, *args))
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        row: Row | None = await step(self._driver, self._raw.fetchrow(query, *args))
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or None if it has none."""
        return await step(self._driver, self._raw.fetchval(query, *args))

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag."""
        status: str = await step(self._driver, self._raw.execute(query, *args))
        return status


T = TypeVar("T")
Args = TypeVarTuple("Args")

COMMIT_GRACE = 2.0
"""Seconds that a COMMIT gets at least, whatever deadline passes meanwhile: an open outcome is worse than a short wait."""
_ROLLBACK_LIMIT = 1.0
_STALE_LIMIT = 2
"""The driver has forgotten all its statements after the first time; another time needs another altered table."""


async def transact(
    driver: DriverConnection,
    function: Callable[[Tx, *Args], Awaitable[T]],
    *args: *Args,
    deadline: float,
    scope: trio.CancelScope | None = None,
    stale: int = 0,
) -> T:
    """Run `await function(tx, *args)` in one transaction and return its result after the commit.

    `deadline` (trio's clock) bounds the commit, which gets COMMIT_GRACE at least. `scope` is the caller's innermost cancel
    scope, if that ends right after this call: the commit is shielded by it, and otherwise by one of its own. Raises what
    the function raises, after the rollback; ForeignAwait or TransactionLost even if the function swallowed the reason;
    ConnectionLost when the connection broke before COMMIT was sent, AmbiguousCommit when it broke after; DatabaseBusy or
    DatabaseUnable instead of an error of the server that is no mistake of the function's and passes.

    A function whose prepared statement became stale, because a table was altered meanwhile, is rolled back and called again
    with the same arguments: `stale` counts how often that was, and the third error is raised.
    """
    tx = HeldTx(driver)
    again = False
    try:
        await driver.begin()
        result: T = await step(driver, _as_coroutine(function(tx, *args)))
        if driver.needs_cleaning:
            await _refuse_commit(driver)
        if driver.forget_begin():
            tx.end()
            await trio.lowlevel.checkpoint()
            return result
        if not driver.raw.is_in_transaction():
            await _refuse_commit(driver)
    except BaseException as error:
        tx.end()
        nothing_sent = driver.forget_begin()
        if isinstance(error, Exception):
            await _fail(driver, error, nothing_sent=nothing_sent)
        again = (
            is_stale_statement(error) and stale < _STALE_LIMIT and not driver.needs_cleaning and not driver.is_closed()
        )
        if not again:
            raise
    if again:
        return await transact(driver, function, *args, deadline=deadline, scope=scope, stale=stale + 1)
    tx.end()
    await _commit(driver, deadline, scope)
    return result


def _as_coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if isinstance(awaitable, Coroutine):
        return awaitable

    async def wait() -> T:
        return await awaitable

    return wait()


async def _refuse_commit(driver: DriverConnection) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    if driver.foreign_await is not None:
        raise driver.foreign_await
    if driver.needs_cleaning:
        raise TransactionLost(
            f'"{driver.label}" went on after a statement that was cancelled or began no transaction; it was rolled back'
        )
    raise LeaseMisused(
        f'"{driver.label}" ended its transaction by itself; commit and rollback belong to the caller: return, or raise'
    )


async def _fail(driver: DriverConnection, error: Exception, *, nothing_sent: bool) -> None:
    """Roll back if that is still possible, and raise instead of `error` what the caller has to know more urgently."""
    if driver.needs_cleaning:
        await trio.lowlevel.checkpoint_if_cancelled()
        if driver.foreign_await is not None and error is not driver.foreign_await:
            raise driver.foreign_await from error
    if driver.is_closed():
        if is_driver_error(error):
            raise ConnectionLost(
                f'"{driver.label}" lost its connection before COMMIT ({error}); nothing was changed, it may be repeated'
            ) from error
        return
    if not nothing_sent and not driver.needs_cleaning:
        # Also when the driver knows of no transaction: a statement may have failed between BEGIN and the first answer.
        with contextlib.suppress(Exception), trio.move_on_after(_ROLLBACK_LIMIT):
            await step(driver, driver.statement("ROLLBACK"))
    waits = passing_error(error, driver.label)
    if waits is not None:
        raise waits from error


async def _commit(driver: DriverConnection, deadline: float, scope: trio.CancelScope | None) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    limit = driver.commit_deadline = max(deadline, trio.current_time() + COMMIT_GRACE)
    try:
        if scope is None:
            with trio.CancelScope(deadline=limit, shield=True):
                await _send_commit(driver)
            return
        if limit > scope.deadline:
            scope.deadline = limit
        scope.shield = True
        await _send_commit(driver)
    finally:
        driver.commit_deadline = float("-inf")


async def _send_commit(driver: DriverConnection) -> None:
    """In a shielded scope: only its own deadline, and the pool, can interrupt it."""
    try:
        status = await step(driver, driver.statement("COMMIT"))
    except trio.Cancelled as cancelled:
        # Not passed on as a cancellation: the caller has to hear that the outcome is open.
        raise _ambiguous(driver, "the server did not answer in time") from cancelled
    except Exception as error:
        if classify(error, connection_lost=driver.is_closed(), commit_sent=True) is Fault.AMBIGUOUS:
            raise _ambiguous(driver, f"the connection was lost ({error})") from error
        waits = None if driver.is_closed() else passing_error(error, driver.label)
        if waits is not None:
            raise waits from error
        raise
    if status != "COMMIT":
        raise TransactionLost(
            f'"{driver.label}" swallowed an error of the server, and so the server rolled the transaction back at COMMIT; '
            "let the error out, or use a savepoint"
        )


def _ambiguous(driver: DriverConnection, why: str) -> LeaseError:
    return AmbiguousCommit(
        f'COMMIT of "{driver.label}" was sent but {why}: it may or may not have happened. Look the result up by its '
        "idempotency key before repeating it"
    )
