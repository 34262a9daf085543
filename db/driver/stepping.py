"""Step a coroutine by hand in the caller's own task, and let it wait for nothing but one connection.

That is what makes a lease structurally safe: a function that is given a transaction runs here, and the only thing it
can wait for is a statement of that transaction. Anything else (a request, a sleep, a channel, another actor) is
answered with ForeignAwait at the very line that awaited it, and whatever it had begun is aborted the way trio aborts
it for a cancellation, so that no late wake-up reaches the task.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

import outcome
import trio
from trio.lowlevel import Abort

from db.driver.call_site import is_library, site_of
from db.errors import ForeignAwait

T = TypeVar("T")

TRIO_TRAP = "abort_func"
"""The attribute by which trio's request to put a task to sleep offers to be aborted; the self-test looks for it."""


class Pending(Protocol):
    """What an operation of the driver waits for: a future, tagged with the connection that made it."""

    _asyncio_future_blocking: bool

    def done(self) -> bool: ...
    def cancel(self) -> bool: ...


class SteppedConnection(Protocol):
    """One connection, as far as stepping needs it."""

    stepping: bool
    """Whether a coroutine is being stepped for this connection right now; its statements refuse to run otherwise."""
    label: str
    """Whom the connection is leased to, for errors."""
    tainted: bool
    """Whether something happened after which the connection must not be used before it was cleaned."""
    foreign: Exception | None
    """The first foreign await or refused call since the connection was leased; it stays, even if the function swallowed it."""

    def owns(self, awaited: object) -> bool:
        """Whether this is a future of this very connection."""
        ...

    async def wait(self, pending: Any) -> None:
        """Wait until the future is done; a cancellation comes out at once."""
        ...


async def step(wire: SteppedConnection, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end in the current task and return or raise what it does.

    A cancellation while a statement runs abandons the statement (the connection must not be used again before it was
    cleaned), is thrown into the coroutine at its await, and never waits for the server.
    """
    error: BaseException | None = None
    answer: outcome.Outcome[object] | None = None
    while True:
        wire.stepping = True
        try:
            awaited = coroutine.send(answer) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            wire.stepping = False
        error = answer = None
        if wire.owns(awaited):
            awaited._asyncio_future_blocking = False
            try:
                await wire.wait(awaited)
            except BaseException as cancelled:  # noqa: BLE001  not swallowed: it is raised inside the coroutine
                wire.tainted = True
                awaited.cancel()
                error = cancelled
        else:
            error = ForeignAwait(
                f'"{wire.label}" awaited something other than its transaction at {_site(coroutine)}: a connection is never '
                "held across a request, a sleep, a channel or another actor. Do that before or after the transaction."
            )
            wire.tainted = True
            if wire.foreign is None:
                wire.foreign = error
            abort = getattr(awaited, TRIO_TRAP, None)
            if abort is not None and abort(_raiser(error)) is not Abort.SUCCEEDED:
                # It cannot be interrupted (a thread, a nursery with children). Trio still wakes this task for it, and
                # what it was woken with belongs to the one who slept; the error stays in `wire.foreign`.
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
