"""One run of a child, which ends in exactly one Exit record; and the nursery in which all runs of one supervision tree
live.

The tree has one flat nursery on purpose: a supervisor can end although a child of it ignores cancellation, and report
that child, instead of hanging together with it; and nesting supervisors costs no depth. Supervisors know what is alive;
the nursery does not close before the last task is gone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import ClassVar

import attrs
import trio

from runtime.child import Child, CrashDetails, Exit, ExitReason, ShowsCrash
from runtime.core.stacks import stack_of
from runtime.crash_report import CrashReport
from runtime.error_text import MAX_LINE, cut_redacted, error_text, leaves, summarise
from runtime.errors import AtlasError, Fatal, Ignore, Killed, StillRunning, unwrap_group
from runtime.supervision.printable_errors import protect_nurseries
from runtime.supervision.stop_ladder import Unstopped


class EndedInOrder(AtlasError):
    """Raised by a child that ended by its own decision and tidied up: a shutdown, not a crash.

    A transient child is not restarted after it, a permanent one is.
    """


class ChildrenUnstopped(StillRunning):
    """Children did not end even after cancellation; their tasks still exist."""

    exit_code: ClassVar[int] = 75

    def __init__(self, supervisor: str, reports: Sequence[Unstopped], incarnations: Sequence[ChildRun] = ()) -> None:
        self.reports = tuple(reports)
        self.incarnations = tuple(incarnations)
        """The incarnations that still exist; nothing may take their place before they are gone."""
        names = ", ".join(
            f"{report.name} (last message {report.message or 'none'}, waited {report.waited:.1f} s)"
            for report in self.reports
        )
        super().__init__(
            f"supervisor {supervisor} could not stop {names}: they ignore cancellation. The stacks are in the events "
            "ChildUnstopped; look for code that catches trio.Cancelled or that waits under a shield"
        )


class ChildRun:
    """One call of a child's `run`, in its own shielded cancel scope.

    Guarantees: `run` lets no exception out; whatever happens in the child's own `run`, exactly one Exit is made, the
    child's `on_exit` is called with it and then `on_end`, synchronously, before anything else is awaited; this holds from the
    first instruction of `run` on. Cancellation from outside does not reach the child: only `kill` and `fail_start` do.
    """

    __slots__ = (
        "_ended",
        "_on_end",
        "_on_started",
        "_scope",
        "_start_failure",
        "_when_ended",
        "began_at",
        "child",
        "died_at_failpoint",
        "exit",
        "hook_error",
        "kill_reason",
        "number",
        "started_at",
        "stop_asked",
        "task",
    )

    def __init__(
        self,
        child: Child,
        number: int,
        *,
        on_started: Callable[[ChildRun], None],
        on_end: Callable[[ChildRun, Exit], None],
    ) -> None:
        self.child = child
        self.number = number
        self.began_at = trio.current_time()
        self.started_at: float | None = None
        self.exit: Exit | None = None
        self.hook_error: BaseException | None = None
        """What `on_exit` raised although it must not."""
        self.died_at_failpoint = False
        """Whether it died of an armed failpoint."""
        self.kill_reason: str | None = None
        self.stop_asked = False
        self.task: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope(shield=True)
        self._start_failure: str | None = None
        self._on_started = on_started
        self._on_end = on_end
        self._when_ended: Callable[[ChildRun], None] | None = None
        self._ended = False

    # A Ctrl-C is for the process, whichever actor happens to run when it comes: trio gives it to the main task. So a
    # KeyboardInterrupt that comes out of a child was raised by its own code.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the child to its end. Raises nothing at all: whatever came out of the child is in its Exit.

        Not even a cancellation: the scope is shielded, so one that gets through was asked for by no scope around this task,
        and trio, whose cancellations last, raises a real one again at the next checkpoint.
        """
        self.task = trio.lowlevel.current_task()
        if self.stop_asked:
            # Asked between being spawned and the first step: there is nothing yet that could hear `request_stop`.
            self._end(None)
            return
        error: BaseException | None = None
        try:
            with self._scope:
                await self.child.run(self.number, task_status=self)
        except BaseException as raised:  # noqa: BLE001  # the promise of this wrapper; the supervisor looks at the error
            error = raised
        try:
            self._end(error)
        finally:
            del error  # its traceback holds this very frame: a circle that would keep the dead incarnation for a while

    def started(self, value: None = None) -> None:  # trio's signature
        """The child serves (trio's task_status protocol). Too late after a kill or a start timeout: then it is void.

        Raises RuntimeError when called twice: a child serves once.
        """
        if self.started_at is not None:
            raise RuntimeError(f"{self.child.name} called task_status.started() twice in one incarnation")
        if self.exit is not None or self._start_failure is not None or self.kill_reason is not None:
            return
        self.started_at = trio.current_time()
        self._on_started(self)

    def kill(self, reason: str) -> None:
        """Interrupt it at its next checkpoint; its Exit says KILLED. Without effect after its end."""
        if self.kill_reason is None:
            self.kill_reason = reason
        self._scope.cancel(reason=reason)

    def fail_start(self, detail: str) -> None:
        """Interrupt a start that takes too long; the Exit says START_FAILED. Without effect once it serves."""
        if self.started_at is None and self._start_failure is None:
            self._start_failure = detail
            self._scope.cancel(reason=detail)

    def record_unstopped(self, detail: str) -> Exit:
        """Record the end of an incarnation that does not end (UNSTOPPED); its real end makes no second record."""
        assert self.exit is None, "an incarnation ends once"
        return self._record(ExitReason.UNSTOPPED, None, detail)

    def when_ended(self, callback: Callable[[ChildRun], None]) -> None:
        """Call back once its task has really ended; at once if it has."""
        self._when_ended = callback
        if self._ended:
            callback(self)

    async def wait_ended(self) -> None:
        """Wait until its task has really ended."""
        gone = trio.Event()
        self.when_ended(lambda _: gone.set())
        await gone.wait()

    @property
    def ended(self) -> bool:
        """Whether its task has really ended."""
        return self._ended

    def stack(self) -> str:
        """Where its tasks stand, those included that its child started elsewhere; "" if it has not begun or has ended."""
        return stack_of(self.task, self.child) if self.task is not None and not self._ended else ""

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        if self.exit is None:
            self.died_at_failpoint = killed_in(error)
            if isinstance(error, BaseExceptionGroup):
                error = unwrap_group(error)
            reason, cause, detail = self._classify(error)
            try:
                self._on_end(self, self._record(reason, cause, detail))
            finally:
                del error, cause
        if self._when_ended is not None:
            self._when_ended(self)

    def _record(self, reason: ExitReason, error: BaseException | None, detail: str) -> Exit:
        lived = trio.current_time() - self.began_at
        last = self.child.last_activity().message
        end = Exit(self.child.name, self.number, reason, error, last, lived, detail)
        if end.abnormal:
            # Here and not where it is logged: now the actor is as it was when it died, and its frames still exist.
            end = attrs.evolve(end, report=self._report(end))
        self.exit = end
        try:
            self.child.on_exit(end)
        except BaseException as hook_error:  # noqa: BLE001  # a broken hook must not cost the record
            self.hook_error = hook_error
        return end

    def _report(self, end: Exit) -> CrashReport:
        details = CrashDetails()
        if isinstance(self.child, ShowsCrash):
            try:
                details = self.child.crash_details()
            except BaseException as hook_error:  # noqa: BLE001  # as above
                details = CrashDetails(state={"error": f"crash_details raised {error_text(hook_error)}"})
        summary = None if end.error is None else summarise(end.error)
        return CrashReport(
            actor=end.name,
            incarnation=end.incarnation,
            reason=end.reason.value,
            error=cut_redacted(end.detail, MAX_LINE) if end.detail or end.error is None else error_text(end.error),
            where="" if summary is None else summary.where,
            task=details.task,
            last_message=end.last_message,
            lived=end.lived,
            at=time.time(),
            state=details.state,
            summary=summary,
            is_deliberate=_is_deliberate(end),
            stack=self.stack() if end.reason is ExitReason.UNSTOPPED else "",
        )

    def _classify(self, error: BaseException | None) -> tuple[ExitReason, BaseException | None, str]:
        if isinstance(error, ChildrenUnstopped):
            return ExitReason.UNSTOPPED, error, str(error)
        if self.kill_reason is not None:
            return ExitReason.KILLED, error, self.kill_reason
        if error is not None and fatal_in(error) is not None:
            return ExitReason.CRASHED, error, ""
        if self.started_at is not None or self.stop_asked:
            if error is None:
                return (ExitReason.SHUTDOWN if self.stop_asked else ExitReason.NORMAL), None, ""
            if isinstance(error, EndedInOrder):
                return ExitReason.SHUTDOWN, error, str(error)
            return ExitReason.CRASHED, error, ""
        if self._start_failure is not None:
            return ExitReason.START_FAILED, error, self._start_failure
        if isinstance(error, Ignore):
            return ExitReason.IGNORED, error, str(error)
        detail = "" if error is not None else "it returned before it reported that it serves"
        return ExitReason.START_FAILED, error, detail


def _is_deliberate(end: Exit) -> bool:
    """Whether the error's own words say all that an operator needs: a `Fatal`, or what a start cannot do without."""
    return fatal_in(end.error) is not None or (
        end.reason is ExitReason.START_FAILED and isinstance(end.error, AtlasError)
    )


def fatal_in(error: BaseException | None) -> Fatal | None:
    """The first Fatal inside `error`: it ends the whole tree, and nothing else that a child raises does."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, Fatal)), None)


def killed_in(error: BaseException | None) -> bool:
    """Whether it died of an armed failpoint."""
    return any(isinstance(leaf, Killed) for leaf in leaves(error))


@attrs.define(eq=False)
class TreeNursery:
    """Where incarnations are spawned, and the way for a fatal error to the root of the tree."""

    nursery: trio.Nursery
    on_fatal: Callable[[BaseException], None] | None = None
    """Set by the root supervisor while it lives."""
    root: object = None
    """The root supervisor, while it lives."""
    outliving: object = None
    """The supervisor of spawned actors that outlive their parents, once there was one."""
    outliving_lock: trio.Lock = attrs.field(factory=trio.Lock)

    def spawn(self, run: ChildRun) -> None:
        """Let an incarnation begin."""
        self.nursery.start_soon(run.run, name=f"{run.child.name}#{run.number}")

    def report_fatal(self, error: BaseException) -> None:
        """Ask the root supervisor for an ordered shutdown that ends in this error."""
        if self.on_fatal is not None:
            self.on_fatal(error)


_tree_nursery: ContextVar[TreeNursery | None] = ContextVar("atlas_tree_nursery", default=None)


def current_tree_nursery() -> TreeNursery | None:
    """The nursery of the tree that the calling task belongs to; None outside of one."""
    return _tree_nursery.get()


def enter_tree(tree_nursery: TreeNursery) -> None:
    """Let the calling task, and those that begin in its context from now on, belong to the tree."""
    _tree_nursery.set(tree_nursery)


@asynccontextmanager
async def open_tree_nursery() -> AsyncIterator[TreeNursery]:
    """Open the nursery for all runs of the supervision tree that is run inside the block.

    The block's own error comes out as it is. Leaving waits for unstopped children, under any cancellation: a process
    that will not wait looks at the supervisor's `unstopped` inside the block and leaves with `os._exit`.
    """
    error: BaseException | None = None
    protect_nurseries()
    async with trio.open_nursery() as nursery:
        tree_nursery = TreeNursery(nursery)
        token = _tree_nursery.set(tree_nursery)
        try:
            yield tree_nursery
        except BaseException as raised:  # noqa: BLE001  # raised again below, outside the nursery that would wrap it
            error = raised
        finally:
            _tree_nursery.reset(token)
    if error is not None:
        raise error
