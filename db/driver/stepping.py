"""Step a function in the holder's own task; its statements are all that it can wait for, and the task reads its own socket.

That is what makes a lease structurally safe. A function that is given a transaction (`HeldTx`) runs under `step`, and
the only thing it can wait for is a statement of that transaction. Anything else (a request, a sleep, a channel,
another actor) is answered with ForeignAwait at the very line that awaited it, and whatever it had begun is aborted the
way trio aborts it for a cancellation, so that no late wake-up reaches the task.

The inline bridge is here too, because a statement goes through all three. asyncio's reader is paused; the holder steps
the asyncpg operation, waits for the socket with trio and calls the transport's own read callback: one task step, one
epoll_wait, one send and one recv for a query, where the textbook bridge needs seven epoll_waits and eight steps. A
cancellation returns at once. Everything private of asyncpg and asyncio that we depend on is in this file;
`db.driver.bridge_choice.self_test` proves it at start, and when that fails, `db.driver.bridge_plain` takes over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from types import FrameType
from typing import Any, NoReturn, TypeVar

import outcome
import trio
from trio.lowlevel import Abort

from db.driver.begin import DeferredBegin
from db.driver.bridge import Bridge, DriverConnection, LoopView
from db.driver.call_site import is_library, site_of
from db.driver.statements import look_up, note_effect
from db.errors import ConnectionLost, ForeignAwait, LeaseMisused, TransactionLost
from db.tx import Row

T = TypeVar("T")

TRIO_TRAP = "abort_func"
"""The attribute by which trio's request to put a task to sleep offers to be aborted; the self-test looks for it."""
_READ_BUFFER = 65536
"""Bytes read at once. asyncio's 256 KiB makes the allocator map and unmap memory for each packet (cpython#85451)."""

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)

_PENDING, _RESULT, _ERROR, _CANCELLED = range(4)


class HeldTx:
    """The transaction as its function sees it (`db.tx.Tx`); dead once the function has ended.

    Usable only by the code that is being stepped for this connection: a child task, a callback or a function of another
    transaction that got hold of it raises LeaseMisused and sends nothing.
    """

    __slots__ = ("_driver", "_ended", "_raw")

    def __init__(self, driver: DriverConnection) -> None:
        self._driver = driver
        self._raw = driver.raw
        self._ended = False

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        """Run one statement and return all its rows."""
        if not self._driver.stepping or self._driver.needs_cleaning or self._ended:
            self._refuse()
        if look_up(query, True):
            note_effect(self._driver, query, in_transaction=True)
        rows: Sequence[Row] = await self._raw.fetch(query, *args)
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        if not self._driver.stepping or self._driver.needs_cleaning or self._ended:
            self._refuse()
        if look_up(query, True):
            note_effect(self._driver, query, in_transaction=True)
        row: Row | None = await self._raw.fetchrow(query, *args)
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or None if it has none."""
        if not self._driver.stepping or self._driver.needs_cleaning or self._ended:
            self._refuse()
        if look_up(query, True):
            note_effect(self._driver, query, in_transaction=True)
        return await self._raw.fetchval(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag."""
        if not self._driver.stepping or self._driver.needs_cleaning or self._ended:
            self._refuse()
        if look_up(query, True):
            note_effect(self._driver, query, in_transaction=True)
        status: str = await self._raw.execute(query, *args)
        return status

    def end(self) -> None:
        """The function has ended: from now on every statement raises LeaseMisused."""
        self._ended = True

    def _refuse(self) -> None:
        driver = self._driver
        if self._ended:
            raise LeaseMisused("this transaction has ended; its function kept it beyond its own return")
        if driver.foreign_await is not None:
            raise driver.foreign_await
        if not driver.stepping:
            raise LeaseMisused(
                f'the transaction of "{driver.label}" was used by a task or callback for which it was not opened; only the '
                "function that pool.run was given may use it, in its own task"
            )
        raise TransactionLost(
            f'a statement of "{driver.label}" was cancelled before the server answered, or the server began no transaction for '
            "it, so its transaction is lost; let the cancellation or the error pass instead of going on"
        )


async def step(connection: DriverConnection, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end in the current task; returns its result or raises its error.

    It may wait for statements of this connection alone. Anything else raises ForeignAwait at its line, and so does the commit.

    A cancellation while a statement runs abandons the statement (the connection must not be used again before it was
    cleaned), is thrown into the coroutine at its await, and never waits for the server.
    """
    error: BaseException | None = None
    answer: outcome.Outcome[object] | None = None
    while True:
        connection.stepping = True
        try:
            awaited = coroutine.send(answer) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            connection.stepping = False
        error = answer = None
        if getattr(awaited, "view", None) is connection.view:
            awaited._asyncio_future_blocking = False
            try:
                await connection.wait(awaited)
            except BaseException as cancelled:  # noqa: BLE001  not swallowed: it is raised inside the coroutine
                connection.needs_cleaning = True
                awaited.cancel()
                error = cancelled
        else:
            error = ForeignAwait(
                f'"{connection.label}" awaited something other than its transaction at {_site(coroutine)}: a connection is never '
                "held across a request, a sleep, a channel or another actor. Do that before or after the transaction."
            )
            connection.needs_cleaning = True
            if connection.foreign_await is None:
                connection.foreign_await = error
            abort = getattr(awaited, TRIO_TRAP, None)
            if abort is not None and abort(_raiser(error)) is not Abort.SUCCEEDED:
                # It cannot be interrupted (a thread, a nursery with children). Trio still wakes this task for it, and
                # what it was woken with belongs to the one who slept; the error stays in `connection.foreign_await`.
                error = None
                answer = await _forced_wait()


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def raise_error() -> NoReturn:
        raise error

    return raise_error


async def _forced_wait() -> outcome.Outcome[object]:
    try:
        return outcome.Value(await trio.lowlevel.wait_task_rescheduled(lambda _: Abort.FAILED))
    except BaseException as error:  # noqa: BLE001  not swallowed: it is raised inside the coroutine
        return outcome.Error(error)


def _site(coroutine: Coroutine[Any, Any, Any]) -> str:
    """The innermost line of ours in a suspended chain of coroutines, else the outermost, as file:line in function."""
    frame: FrameType | None = None
    inner: Any = coroutine
    while inner is not None:
        here = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None) or getattr(inner, "ag_frame", None)
        if here is not None and (frame is None or not is_library(here.f_code)):
            frame = here
        inner = (
            getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None) or getattr(inner, "ag_await", None)
        )
    return site_of(frame)


class InlineFuture:
    """A future of one connection: like asyncio's, but its callbacks run when it is resolved, not a loop turn later.

    Callbacks that asyncio's own tasks add (they bring a context) still go through the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_callbacks", "_state", "_value", "view")

    def __init__(self, view: InlineView) -> None:
        self.view = view
        self._state = _PENDING
        self._value: Any = None
        self._callbacks: list[tuple[Callable[[Any], object], Any]] | None = None
        self._asyncio_future_blocking = False

    def done(self) -> bool:
        return self._state != _PENDING

    def cancelled(self) -> bool:
        return self._state == _CANCELLED

    def result(self) -> Any:
        if self._state == _RESULT:
            return self._value
        if self._state == _ERROR:
            raise self._value
        if self._state == _CANCELLED:
            raise asyncio.CancelledError
        raise asyncio.InvalidStateError("the result is not there yet")

    def exception(self) -> BaseException | None:
        if self._state == _CANCELLED:
            raise asyncio.CancelledError
        if self._state == _PENDING:
            raise asyncio.InvalidStateError("the result is not there yet")
        return self._value if self._state == _ERROR else None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.view.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        if self._state != _PENDING:
            self.view.loop.call_soon(callback, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        kept = [entry for entry in self._callbacks or () if entry[0] != callback]
        removed = len(self._callbacks or ()) - len(kept)
        self._callbacks = kept
        return removed

    def set_result(self, value: Any) -> None:
        self._finish(_RESULT, value)

    def set_exception(self, error: Any) -> None:
        self._finish(_ERROR, error() if isinstance(error, type) else error)

    def cancel(self, msg: object = None) -> bool:
        if self._state != _PENDING:
            return False
        self._finish(_CANCELLED, None)
        return True

    def _finish(self, state: int, value: Any) -> None:
        if self._state != _PENDING:
            raise asyncio.InvalidStateError("the future is resolved already")
        self._state = state
        self._value = value
        callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            for callback, context in callbacks:
                if context is None:
                    callback(self)
                else:
                    self.view.loop.call_soon(callback, self, context=context)
        if self.view.parked is not None:
            # Not resolved by the task that waits for the socket: the connection was cut.
            trio.lowlevel.notify_closing(self.view.parked)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._state == _PENDING:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    __iter__ = __await__


class InlineView(LoopView):
    """The loop as a connection of the inline bridge sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.parked: socket.socket | None = None
        """The socket that the holder's task waits for at this moment."""

    def create_future(self) -> InlineFuture:
        self.last = waiter = InlineFuture(self)
        return waiter


class InlineConnection(DriverConnection):
    """A connection whose socket is read by the task that uses it."""

    view: InlineView

    def __init__(self, connection: Any, view: InlineView) -> None:
        super().__init__(connection, view)
        transport = connection._transport
        # Under TLS the socket belongs to the transport below the TLS protocol.
        self._transport = transport if hasattr(transport, "_read_ready") else transport._ssl_protocol._transport
        self._transport.max_size = _READ_BUFFER
        self._socket: socket.socket = self._transport._sock
        self._transport.pause_reading()
        self._close_socket = self._transport._call_connection_lost
        self._transport._call_connection_lost = self._closing
        self._begin = DeferredBegin(transport, self._not_begun)

    async def begin(self) -> None:
        self._begin.begin()

    def forget_begin(self) -> bool:
        return self._begin.forget()

    def _not_begun(self) -> None:
        # Whatever the function does next would be committed at once, statement by statement.
        self.needs_cleaning = True

    async def wait(self, pending: InlineFuture) -> None:
        view = self.view
        transport = self._transport
        while pending._state == _PENDING:
            view.parked = self._socket
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                pass  # woken: the connection was cut, or another of its futures was resolved
            except (OSError, ValueError):
                self._lost(pending)
            finally:
                view.parked = None
            transport._read_ready()
            if transport.is_closing() and pending._state == _PENDING:
                # asyncio would tell the protocol a loop turn later; the server's last words have been read by now.
                self._lost(pending)

    def _closing(self, error: Exception | None) -> None:
        # Under TLS the protocol hears of the loss only after the socket was closed, and a closed socket wakes no task.
        if self.view.parked is not None:
            trio.lowlevel.notify_closing(self.view.parked)
        self._close_socket(error)

    def _lost(self, pending: InlineFuture) -> None:
        if pending._state != _PENDING:
            return
        self.terminate()
        if pending._state == _PENDING:
            pending.set_exception(ConnectionLost("the connection was closed while a statement was running"))

    @property
    def socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def statement(self, command: str) -> Coroutine[Any, Any, str]:
        protocol = self.raw._protocol
        if protocol is None:
            return super().statement(command)
        sending: Coroutine[Any, Any, str] = protocol.query(command, None)
        return sending

    def is_cancelling(self) -> bool:
        protocol = self.raw._protocol
        cancelling: bool = protocol is not None and protocol._is_cancelling()
        return cancelling

    def probe(self) -> bool:
        # Cutting a connection closes its transport in the same call, so that this one look is enough.
        while not self._transport.is_closing():
            try:
                first = self._socket.recv(1, _PEEK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if first in (b"", b"E"):
                return False
            # A changed parameter, a record of TLS, or the notice of a server that stops at once, with the end right behind
            # it: let the protocol read it, and look again.
            self._transport._read_ready()
        return False


class InlineBridge(Bridge):
    """Opens connections that are read by the task that uses them."""

    name = "inline"

    def view(self) -> InlineView:
        return InlineView(self.loop)

    def adopt(self, connection: Any, view: LoopView) -> InlineConnection:
        assert isinstance(view, InlineView)
        return InlineConnection(connection, view)
