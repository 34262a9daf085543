"""Threads beside the loop: a way into the actors for plain ones, and one of its own for an asyncio library inside an actor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import trio
from outcome import Error, Outcome, Value

from runtime.core.lease_guard import current_lease, refuse_if_leased
from runtime.core.ref import Ref
from runtime.errors import AtlasError, PortalClosed
from runtime.message import Delivery, Message, Request

if TYPE_CHECKING:
    from runtime.core.incarnation import Incarnation
    from runtime.core.services import Services

P = ParamSpec("P")
R = TypeVar("R")

LEAVING = 2.0
"""Seconds that what still runs on an asyncio loop has to end with its actor; a library that blocks is then left behind."""


class Portal:
    """Made with `context.portal()`, used from threads that are not the loop's, until the loop ends.

    `to` is a ref or an actor's name. Each call blocks its thread, never the loop. Raises PortalClosed once the loop has ended,
    UnknownActor for a name that no actor has, RuntimeError when it is called from the loop's own thread.
    """

    def __init__(self, services: Services, token: trio.lowlevel.TrioToken) -> None:
        self._services = services
        self._token = token

    def tell(self, to: Ref | str, message: Message) -> Delivery:
        """As Ref.tell: blocks until it is in the mailbox or refused, which is one turn of the loop."""
        try:
            return trio.from_thread.run_sync(self._tell, to, message, trio_token=self._token)
        except trio.RunFinishedError:
            raise _closed() from None

    def ask(self, to: Ref | str, message: Request[R], *, within: float) -> R:
        """As Ref.ask, and raises what that raises: blocks until there is a reply, for at most `within` seconds."""
        try:
            return trio.from_thread.run(self._ask, to, message, within, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise _closed() from None

    def _ref(self, to: Ref | str) -> Ref:
        return self._services.registry.lookup(to) if isinstance(to, str) else to

    def _tell(self, to: Ref | str, message: Message) -> Delivery:
        return self._ref(to).tell(message)

    async def _ask(self, to: Ref | str, message: Request[R], within: float) -> R:
        return await self._ref(to).ask(message, within=within)


def _closed() -> PortalClosed:
    return PortalClosed(
        "the loop that this portal leads to has ended: the process is leaving, and so should this thread"
    )


class _Call(Generic[R]):
    """One coroutine on the other loop, and the trio task that waits for it."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, R]], token: trio.lowlevel.TrioToken) -> None:
        self._make = make
        self._token = token
        self._done = trio.Event()
        self._outcome: Outcome[R] = Error(AtlasError("the asyncio loop ended before this call"))
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False

    def begin(self) -> None:
        """On the other loop: start it."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        if self._is_cancelled:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._outcome = Value(await self._make())
        except asyncio.CancelledError:
            if not self._is_cancelled:
                # A trio task must never see asyncio's, which it could not tell from a defect.
                self._outcome = Error(AtlasError("the asyncio library cancelled this call by itself"))
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            self._outcome = Error(error)
        finally:
            self.end()

    def cancel(self) -> None:
        """On the other loop: cancel it."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """On the other loop: let the waiting task go on."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._done.set)

    async def wait(self, cancel: Callable[[], None]) -> R:
        """On trio's loop: the result. A cancellation cancels it over there and waits until it has ended."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            cancel()
            with trio.CancelScope(shield=True):
                await self._done.wait()
            raise
        return self._outcome.unwrap()


class AsyncioThread:
    """An asyncio loop in a thread, which ends with the incarnation that made it. Made with `context.asyncio_thread()`.

    All objects of the library are made and used inside `run`, in the loop that they then belong to. What it does there holds
    up no other actor, not even if it blocks.
    """

    def __init__(self, run: Incarnation) -> None:
        self._name = run.address.name
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._thread = threading.Thread(target=self._main, name=f"{self._name}/asyncio", daemon=True)
        self._thread.start()
        run.start_task(self._end_with_the_actor, (), "asyncio", inherit_deadline=False)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._tidy_up())
            self._loop.close()

    async def _tidy_up(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    async def _end_with_the_actor(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._thread.join, LEAVING)

    async def run(self, function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await `function(*args, **kwargs)` on the asyncio loop; returns and raises what it does.

        Cancelling, by a deadline too, cancels it there and returns when it has ended. Raises AtlasError when the actor has ended,
        LeaseHeldAcrossCall while the caller holds a lease.
        """
        if current_lease.get() is not None:
            refuse_if_leased(f"a call of asyncio in {self._name!r}")
        if self._is_closed:
            raise AtlasError(f"the asyncio thread of {self._name!r} has ended with its incarnation")
        call = _Call(lambda: function(*args, **kwargs), trio.lowlevel.current_trio_token())
        self._loop.call_soon_threadsafe(call.begin)
        return await call.wait(lambda: self._cancel(call))

    def _cancel(self, call: _Call[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(call.cancel)
        except RuntimeError:  # the loop is closed: it has cancelled all that it had
            call.end()
