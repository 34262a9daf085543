"""One asyncpg connection as this room uses it, whichever bridge carries it.

asyncpg runs on a trio-asyncio loop. Statements of a lease holder are stepped in the holder's own task
(`db.driver.stepping.step`); whatever needs a real asyncio task (connecting, closing, COPY, executemany, cleaning a
cancelled connection) goes over the loop (`run_on_loop`). Only trio's deadlines rule: asyncpg's own timeouts are off.
"""

from __future__ import annotations

import abc
import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import asyncpg
import trio
import trio_asyncio

from runtime import unwrap_group

T = TypeVar("T")

STATEMENT_CACHE = 100
"""Prepared statements kept by a connection."""
_CANCEL_GRACE = 0.25
"""Seconds that a cancelled operation on the loop gets to end by itself before its connection is cut."""
_LOOKUPS = 8
"""Look-ups of host names that a loop has under way at most."""
_LAST_TURN = 0.1
"""Seconds that a loop has for its last turn."""


@asynccontextmanager
async def open_loop(report: Callable[[str], None]) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """An asyncio loop inside this trio task. What its callbacks complain about is reported as one line, never raised.

    The default handler would raise it into the loop and so kill every connection on it. All connections must be
    terminated before the loop is left. An error of the block comes out as it was raised, not inside the groups of the
    loop's nurseries.
    """

    def log_only(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        cause = f": {type(error).__name__}: {error}" if error is not None else ""
        report(f"{context.get('message', 'error in a callback')}{cause}")

    try:
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(log_only)
            loop.getaddrinfo = _abandonable_lookup(loop)
            try:
                yield loop
            finally:
                # A cancel at the wrong moment of connecting leaves a transport that has no other owner.
                for transport in tuple(getattr(loop, "_transports", {}).values()):
                    transport.abort()
                # What is closed or cut gives its socket back in a turn of the loop, which ends with this block.
                with trio.move_on_after(_LAST_TURN, shield=True):
                    await loop.synchronize()
    except BaseExceptionGroup as group:
        error = unwrap_group(group)
        if error is group:
            raise
        raise error from error.__cause__


def _abandonable_lookup(loop: Any) -> Callable[..., Awaitable[Any]]:
    """`loop.getaddrinfo`, but a look-up that hangs is left to its thread when its caller is cancelled.

    The loop's own waits for the thread, and so a resolver that does not answer would hold a kill or a stop for as long.
    """
    # Its own: threads that hang must not use up those of the whole program.
    limiter = trio.CapacityLimiter(_LOOKUPS)

    def getaddrinfo(host: Any, port: Any, **options: Any) -> Awaitable[Any]:
        look_up = partial(socket.getaddrinfo, host, port, **options)
        found: Awaitable[Any] = loop.trio_as_future(
            partial(trio.to_thread.run_sync, look_up, abandon_on_cancel=True, limiter=limiter)
        )
        return found

    return getaddrinfo


async def await_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    cut: Callable[[], None] | None = None,
    discard: Callable[[T], None] | None = None,
) -> T:
    """Run the coroutine as an asyncio task on the loop and wait for it.

    A cancellation is passed on and waited for, but only for a moment: then `cut` is called, which must make the task
    end (a stopped server would otherwise hold the caller for ever). A result that arrives although the caller was cancelled
    goes to `discard`, for those that must be closed.
    """
    try:
        task = loop.create_task(coroutine)
    except BaseException:
        coroutine.close()
        raise
    ended = trio.Event()
    abandoned = False

    def done(finished: asyncio.Task[T]) -> None:
        # The exception is looked at in any case, so that asyncio does not report it as forgotten.
        if not finished.cancelled() and finished.exception() is None and abandoned and discard is not None:
            discard(finished.result())
        ended.set()

    task.add_done_callback(done)
    try:
        await ended.wait()
    except BaseException:
        abandoned = True
        if ended.is_set():
            done(task)
        task.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CANCEL_GRACE):
            await ended.wait()
        if not ended.is_set():
            if cut is not None:
                cut()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CANCEL_GRACE):
                await ended.wait()
        raise
    return task.result()


class LoopView(abc.ABC):
    """The loop as one connection sees it: the same loop, but futures made for this connection know whose they are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.last: Any = None
        """The future made last: while it is not done, an operation is under way."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    # asyncio keeps its current tasks in a dict by loop; asyncpg looks itself up there by the loop that it was given.
    def __eq__(self, other: object) -> bool:
        return other is self or other is self.loop

    def __hash__(self) -> int:
        return hash(self.loop)

    @abc.abstractmethod
    def create_future(self) -> Any:
        """Make a future that knows that it belongs to this connection."""


class DriverConnection(abc.ABC):
    """An open connection, on the loop on which it was opened. It does one operation at a time.

    Its user holds it alone: nothing here locks. Statements are stepped (`db.driver.stepping.step(connection, raw.fetch(…))`),
    everything else is run with `run_on_loop`. Times are on trio's clock, in seconds.
    """

    def __init__(self, connection: Any, view: LoopView) -> None:
        self.raw = connection
        """The asyncpg connection. Its coroutines are stepped (`step`) or run over the loop, never awaited directly."""
        self.view = view
        self.loop = view.loop
        self.stepping = False
        """Whether a coroutine is being stepped for this connection right now; its statements refuse to run otherwise."""
        self.needs_cleaning = False
        """Whether something happened after which the connection must not be used before it was cleaned."""
        self.session_changed = False
        """Whether a holder has changed the session: it is reset before the connection is used by another one."""
        self.listens = False
        """Whether the loop reads the socket also between operations: for a connection that listens."""
        self.label = ""
        """What it is used for, for errors."""
        self.foreign_await: Exception | None = None
        """The first foreign await or refused call since the connection was leased; it stays, even if it was swallowed."""
        self.commit_deadline = float("-inf")
        """Time on trio's clock until which a COMMIT that is under way may take; the past while there is none."""

    # -- statements ---------------------------------------------------------------------------------------------------

    def statement(self, command: str) -> Coroutine[Any, Any, str]:
        """Make the coroutine of one command without arguments or rows, such as COMMIT; stepped, it returns the command tag."""
        sending: Coroutine[Any, Any, str] = self.raw.execute(command)
        return sending

    @abc.abstractmethod
    async def begin(self) -> None:
        """Begin a transaction now, or together with the next statement, which saves a round trip."""

    def forget_begin(self) -> bool:
        """Forget a `begin` that has not been sent. Returns whether there was one, so that nothing is to be ended."""
        return False

    @abc.abstractmethod
    async def wait(self, pending: Any) -> None:
        """Wait until a future of this connection is done. A cancellation is raised at once, without waiting for the server."""

    async def listen(self, channel: str, notified: Callable[[str], None], closed: Callable[[], None]) -> None:
        """Call `notified(payload)` for each NOTIFY on the channel, and `closed()` once when the connection ends."""
        self.listens = True
        self.raw.add_termination_listener(lambda _: closed())
        await self.run_on_loop(
            self.raw.add_listener(channel, lambda _connection, _pid, _channel, payload: notified(payload))
        )

    async def run_on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this connection as an asyncio task and return its result.

        After a cancellation the connection needs cleaning. If the task does not end within a moment of it, the
        connection is cut.
        """
        self.resume_reading()
        try:
            return await await_task(self.loop, coroutine, self.terminate)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.needs_cleaning = True  # what was sent goes on at the server, like a statement that was cancelled
            raise
        finally:
            if not self.listens:
                self.pause_reading()

    @abc.abstractmethod
    def resume_reading(self) -> None:
        """Let the loop read the socket."""

    @abc.abstractmethod
    def pause_reading(self) -> None:
        """Keep the loop off the socket where the holder's task reads it; a closed connection is left alone."""

    # -- state --------------------------------------------------------------------------------------------------------

    @property
    def backend_pid(self) -> int:
        """The server's process id of this session."""
        pid: int = self.raw.get_server_pid()
        return pid

    @property
    def server_version(self) -> int:
        """The server's major version."""
        major: int = self.raw.get_server_version().major
        return major

    def is_closed(self) -> bool:
        """Whether the connection is known to be gone."""
        closed: bool = self.loop.is_closed() or self.raw.is_closed()
        return closed

    def is_idle(self) -> bool:
        """Whether the connection could be handed to another holder right now: open, unchanged, no operation, no transaction.

        An operation that was cancelled and not yet acknowledged by the server counts as an operation.
        """
        if self.session_changed or self.is_closed():
            return False
        last = self.view.last
        return (last is None or last.done()) and not self.is_cancelling() and not self.raw.is_in_transaction()

    @property
    def socket(self) -> Any:
        """The socket, for its options only; None where the driver does not give it away."""
        return None

    @abc.abstractmethod
    def is_cancelling(self) -> bool:
        """Whether a cancelled operation has not been acknowledged by the server yet."""

    @abc.abstractmethod
    def probe(self) -> bool:
        """Whether an idle connection is still alive as far as the kernel knows; about a microsecond, no round trip."""

    def terminate(self) -> None:
        """Cut the connection at once, without telling the server. Harmless if repeated."""
        if not self.loop.is_closed():
            self.raw.terminate()


class Bridge(abc.ABC):
    """A way to drive asyncpg from trio; opens connections on one loop."""

    name: str

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    @abc.abstractmethod
    def view(self) -> LoopView:
        """A view of the loop for a new connection."""

    @abc.abstractmethod
    def adopt(self, connection: Any, view: LoopView) -> DriverConnection:
        """Wrap an asyncpg connection that was opened with this view."""

    async def connect(self, dsn: str, *, settings: Mapping[str, str]) -> DriverConnection:
        """Open a connection with these session settings. Raises what asyncpg raises.

        It has no time limit of its own: call it under a trio deadline.
        """
        view = self.view()
        # A module attribute of an untyped library: the annotation is the promise that its documentation gives.
        opening: Coroutine[Any, Any, Any] = asyncpg.connect(
            dsn,
            loop=view,
            timeout=None,
            command_timeout=None,
            statement_cache_size=STATEMENT_CACHE,
            max_cached_statement_lifetime=0,  # its timers would pile up in the loop
            server_settings=dict(settings),
        )
        raw = await await_task(self.loop, opening, discard=_terminate)
        try:
            return self.adopt(raw, view)
        except BaseException:
            _terminate(raw)
            raise


def _terminate(raw: Any) -> None:
    raw.terminate()
