"""The control loop of a running supervisor, what it does to a child and what it does about the end of one.

`StartStop` starts a child, asks it to stop, cancels it, leaves it alone, and keeps the deadlines of all that;
`ControlLoop` waits for the next thing that happens or the next deadline, and decides.
"""

from __future__ import annotations

import enum
import functools
import math
from collections import deque
from collections.abc import Callable, Mapping

import attrs
import trio

from runtime.child import Exit, ExitReason, Restart, StopCause, StopReason
from runtime.supervision.child_run import ChildrenUnstopped, ChildRun, TreeNursery, fatal_in
from runtime.supervision.children import (
    PENDING,
    ChildIndex,
    ChildRecord,
    ChildState,
    DesiredState,
    next_starts,
    next_stops,
    without_frames,
)
from runtime.supervision.deadlines import Deadlines
from runtime.supervision.errors import AdministrationError, RefusalReason
from runtime.supervision.events import (
    ChildEnded,
    ChildEndedLate,
    ChildExited,
    ChildStarted,
    ChildUnstopped,
    Decision,
    SupervisorStopped,
    SupervisorStopping,
)
from runtime.supervision.outcome import ChildHooks, ChildOutcome, Emit, SupervisorFlags, comes_back_late
from runtime.supervision.stop_ladder import Rung, StopLadder, Unstopped


class StartStop:
    """Starts, stops, kills and reports one child at a time. Nothing here waits: `run_due` acts on deadlines that have passed."""

    def __init__(
        self, supervisor: str, tree_nursery: TreeNursery, emit: Emit, hooks: ChildHooks, loop: ControlLoop
    ) -> None:
        self._supervisor = supervisor
        self._tree_nursery = tree_nursery
        self._emit = emit
        self._hooks = hooks
        self._loop = loop
        self._deadlines = Deadlines()

    # Starting

    def start(self, record: ChildRecord, now: float) -> None:
        """Begin the next incarnation."""
        assert record.run is None, f"{record.name} would run twice at once"
        assert not record.unstopped_runs, f"{record.name} would run beside a task that did not end"
        run = ChildRun(
            record.child,
            record.incarnation + 1,
            on_started=lambda run: self._post(self._loop.child_started, record, run),
            on_end=lambda run, end: self._loop.post(functools.partial(self._loop.child_ended, record, run, end)),
        )
        record.start_run(run, now)
        self.schedule(record)
        self._tree_nursery.spawn(run)

    def _post(self, handle: Callable[[ChildRecord, ChildRun], None], record: ChildRecord, run: ChildRun) -> None:
        self._loop.post(functools.partial(handle, record, run))

    # Stopping

    def ask_to_stop(self, record: ChildRecord, cause: StopCause, detail: str, budget: float = math.inf) -> None:
        """Step on the first rung of the ladder; on the second if the spec or the budget leave no time for asking."""
        run = record.run
        assert run is not None, f"{record.name} has nothing to stop"
        now = trio.current_time()
        record.ladder = ladder = StopLadder(
            now, shutdown=record.spec.shutdown, kill_grace=record.spec.kill_grace, budget=budget
        )
        record.set_state(ChildState.STOPPING, now, detail)
        if ladder.rung is Rung.CANCELLED:
            run.kill(f"{detail}; there is no time to ask it")
        else:
            run.stop_asked = True
            if run.task is not None:
                self._ask(record, StopReason(cause, detail, ladder.deadline))
        self.schedule(record)

    def _ask(self, record: ChildRecord, reason: StopReason) -> None:
        record.stop_reason = reason
        self._hooks.call(record, "request_stop", lambda: record.child.request_stop(reason))

    def cancel(self, record: ChildRecord, why: str) -> None:
        """Interrupt the incarnation now, whatever it was doing; without effect if that was done before."""
        run = record.run
        if run is None:
            return
        now = trio.current_time()
        if record.ladder is None:
            record.ladder = StopLadder(now, shutdown=0.0, kill_grace=record.spec.kill_grace)
        else:
            record.ladder.cancel(now)
        record.set_state(ChildState.STOPPING, now, why)
        run.kill(why)
        self.schedule(record)

    def shorten(self, record: ChildRecord, budget: float) -> None:
        """Give a child that is stopping less time, and let it know: its last words are shielded from all but that."""
        if record.ladder is None:
            return
        record.ladder.shorten(trio.current_time(), budget)
        self.schedule(record)
        if (
            record.stop_reason is not None
            and record.ladder.rung is Rung.ASKED
            and record.ladder.deadline < record.stop_reason.deadline
        ):
            self._ask(record, attrs.evolve(record.stop_reason, deadline=record.ladder.deadline))

    # Deadlines

    def schedule(self, record: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        at = math.inf
        if record.run is not None:
            if record.ladder is not None:
                at = record.ladder.deadline
            if record.run.started_at is None:
                at = min(at, record.start_deadline)
        elif record.state in PENDING:
            at = record.not_before
        self._deadlines.set(record, at)

    def unschedule(self, record: ChildRecord) -> None:
        """Look at the child no more."""
        self._deadlines.set(record, math.inf)

    def next_deadline(self) -> float:
        """When `run_due` has to be called next; math.inf if nothing is due ever."""
        return self._deadlines.next

    def run_due(self, now: float) -> None:
        """Act on all deadlines that have passed."""
        while (record := self._deadlines.pop_due(now)) is not None:
            if record.run is not None:
                self._next_rung(record, record.run, now)

    def _next_rung(self, record: ChildRecord, run: ChildRun, now: float) -> None:
        if run.started_at is None and now >= record.start_deadline:
            record.start_deadline = math.inf
            run.fail_start(
                f"it did not report that it serves within {record.spec.start_timeout:g} s (setting start_timeout)"
            )
            if record.ladder is None:
                record.ladder = StopLadder(now, shutdown=0.0, kill_grace=record.spec.kill_grace)
            else:
                record.ladder.cancel(now)
        elif record.ladder is not None and record.ladder.climb(now):
            if record.ladder.rung is Rung.UNSTOPPED:
                self._report_unstopped(record, run, record.ladder, now)
                return
            run.kill(f"it did not stop within {now - record.ladder.began_at:g} s (setting shutdown)")
        self.schedule(record)

    def _report_unstopped(self, record: ChildRecord, run: ChildRun, ladder: StopLadder, now: float) -> None:
        message = record.child.last_activity().message
        waited = now - ladder.began_at
        report = Unstopped(record.name, run.number, message, waited, run.stack())
        record.reports.append(report)
        self._take_over(record, run)
        self._emit(
            ChildUnstopped(
                actor=record.name,
                supervisor=self._supervisor,
                incarnation=run.number,
                message=message,
                waited=waited,
                stack=report.stack,
            )
        )
        self._loop.child_ended(record, run, run.record_unstopped(f"it ignores cancellation since {waited:g} s"))

    def take_over_unstopped(self, record: ChildRecord, error: ChildrenUnstopped) -> None:
        """Take over what a nested supervisor could not stop: it is not started again before those runs have ended."""
        record.reports.extend(report.below(record.name) for report in error.reports)
        for run in error.incarnations:
            self._take_over(record, run)

    def _take_over(self, record: ChildRecord, run: ChildRun) -> None:
        record.unstopped_runs.add(run)
        run.when_ended(lambda gone: self._post(self._loop.run_ended_late, record, gone))


class Phase(enum.Enum):
    """Where a supervisor stands."""

    BOOTING = enum.auto()
    SERVING = enum.auto()
    STOPPING = enum.auto()


class ControlLoop:
    """The state of a running supervisor. Only its control loop changes it, apart from administrative calls, which
    do so synchronously and wake the loop.

    The loop never waits for a child: it waits for the next thing that happened or the next deadline.
    """

    def __init__(
        self,
        name: str,
        settings: SupervisorFlags,
        children: Mapping[str, ChildRecord],
        tree_nursery: TreeNursery,
        *,
        emit: Emit,
        chance: Callable[[], float],
        on_started: Callable[[], None],
        on_forgotten: Callable[[ChildRecord], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.children = ChildIndex(children)
        self.phase = Phase.BOOTING
        self.error: BaseException | None = None
        """What ends the supervisor, if it is not asked to."""
        self.ended = False
        """All children are down; nothing can be asked of it any more."""
        self.highest_number_forgotten = 0
        """Incarnations of a new child are counted from here, so that no number of a forgotten namesake comes back."""
        self.unstopped_runs: list[ChildRun] = []
        self.unstopped: list[Unstopped] = []
        self.hooks = ChildHooks(name, emit)
        self.control = StartStop(name, tree_nursery, emit, self.hooks, self)
        self._emit = emit
        self._on_started = on_started
        self._on_forgotten = on_forgotten
        self._outcome = ChildOutcome(self, tree_nursery, emit, chance)
        self._inbox: deque[Callable[[], None]] = deque()
        self._wakeup = trio.Event()
        self._budget = math.inf
        self._stop_detail = ""
        self._stopping_since = 0.0

    # The control loop

    async def run(self) -> None:
        """Start the children, look after them, and return when all are down. Must be called in a shielded scope."""
        try:
            while not self._run_once():
                deadline = self.control.next_deadline()
                with trio.move_on_at(deadline):
                    await self._wakeup.wait()
                self._wakeup = trio.Event()
        except BaseException:
            await self._kill_all()
            raise
        self._finish()

    def post(self, handle: Callable[[], None]) -> None:
        """Let the loop call `handle`, after everything that was posted before."""
        self._inbox.append(handle)
        self._wakeup.set()

    @property
    def stopping(self) -> bool:
        """Whether the supervisor starts nothing any more."""
        return self.phase is Phase.STOPPING

    def wake(self) -> None:
        """Let the loop look at the children again."""
        self._wakeup.set()

    def schedule(self, record: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        self.control.schedule(record)

    def _run_once(self) -> bool:
        while True:
            while self._inbox:
                self._inbox.popleft()()
            now = trio.current_time()
            self.control.run_due(now)
            ended = self._stop_and_start_due(now)
            if not self._inbox:
                return ended

    def _stop_and_start_due(self, now: float) -> bool:
        stopping = self.stopping
        parallel = self.settings.dynamic or self.settings.spawned
        for record in next_stops(self.children, stopping=stopping, parallel=parallel):
            self._ask_to_stop(record)
        if stopping:
            return not self.children.alive
        for record in next_starts(self.children, now):
            self.control.start(record, now)
        if self.phase is Phase.BOOTING and not self.children.never_served:
            self.phase = Phase.SERVING
            self._on_started()
        return False

    def _ask_to_stop(self, record: ChildRecord) -> None:
        if self.stopping:
            self.control.ask_to_stop(record, StopCause.SHUTDOWN, self._stop_detail, self._budget)
        elif record.desired is not DesiredState.UP:
            self.control.ask_to_stop(record, StopCause.TERMINATED, "terminated")
        else:
            self.control.ask_to_stop(record, StopCause.RESTART, record.reason or "restarted together with a sibling")

    def ask_to_terminate(self, record: ChildRecord, detail: str, budget: float) -> None:
        """Ask a living child to stop now, not at the loop's next turn, or give one that was asked less time."""
        if record.ladder is None:
            self.control.ask_to_stop(record, StopCause.TERMINATED, detail, budget)
        else:
            self.control.shorten(record, budget)

    async def _kill_all(self) -> None:
        """After a bug in the loop: it can supervise no child any more, so none may outlive it."""
        alive = [record for record in self.children.values() if record.run is not None]
        grace = max((record.spec.kill_grace for record in alive), default=0.0)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
            for record in alive:
                assert record.run is not None
                record.run.kill(f"supervisor {self.name} failed")
            for record in alive:
                assert record.run is not None
                await record.run.wait_ended()

    # What became of a child

    def child_started(self, record: ChildRecord, run: ChildRun) -> None:
        """Its start is over."""
        if record.run is not run:
            return
        now = trio.current_time()
        record.has_served = True
        record.starts_in_turn = record.stops_for_group
        record.start_deadline = math.inf
        if record.state is ChildState.STARTING:
            record.set_state(ChildState.RUNNING, now)
        self.control.schedule(record)
        self._emit(
            ChildStarted(
                actor=record.name,
                supervisor=self.name,
                incarnation=run.number,
                took=now - run.began_at,
            )
        )
        if record.start_reply is not None:
            record.start_reply.resolve(run.number)
            record.start_reply = None
        record.forget_if_start_fails = False

    def child_ended(self, record: ChildRecord, run: ChildRun, end: Exit) -> None:
        """Decide what follows, report it, do it."""
        if record.run is not run:
            return
        record.end_run(end)
        if end.reason not in (ExitReason.KILLED, ExitReason.UNSTOPPED):
            # None: it had ended before it could be killed
            record.repair_allowed = True if run.died_at_failpoint else None
        if run.hook_error is not None:
            self.hooks.report_failure(record, "on_exit", run.hook_error)
        if isinstance(end.error, ChildrenUnstopped):
            self.control.take_over_unstopped(record, end.error)
        served = 0.0 if run.started_at is None else trio.current_time() - run.started_at
        if served >= record.spec.backoff.reset_after:
            record.restarts = 0
        decision = self._outcome.decide(record, end, stopping=self.stopping)
        self._report_end(record, end, decision)
        self.hooks.tell_decided(record, restarts=decision in (Decision.RESTART, Decision.RESTART_WITH_GROUP))
        self._outcome.apply(record, end, decision)
        record.last_exit = without_frames(end)
        self.control.schedule(record)

    def run_ended_late(self, record: ChildRecord, run: ChildRun) -> None:
        """An unstopped task ended after all: what was to follow its end follows now."""
        record.unstopped_runs.discard(run)
        if record.unstopped_runs or self.children.get(record.name) is not record:
            return
        self._emit(ChildEndedLate(actor=record.name, supervisor=self.name, incarnation=run.number))
        record.reports.clear()
        if self.stopping or record.state is not ChildState.UNSTOPPED:
            return
        ends_for_good = record.desired is DesiredState.UP and record.spec.restart is Restart.TEMPORARY
        if record.desired is DesiredState.GONE or ends_for_good or self.settings.dynamic:
            self.hooks.tell_final(record, "ended late")
            self.forget(record)
        elif record.desired is DesiredState.DOWN:
            record.set_state(ChildState.DOWN, trio.current_time())
        elif record.last_exit is not None and not comes_back_late(record.spec.restart, record.last_exit):
            self._outcome.apply(record, record.last_exit, Decision.STAY_DOWN)
        elif record.last_exit is not None:
            self._outcome.apply(record, record.last_exit, self._outcome.count_attempt(record))
            self.control.schedule(record)

    def _report_end(self, record: ChildRecord, end: Exit, decision: Decision) -> None:
        quiet = end.reason in (ExitReason.NORMAL, ExitReason.SHUTDOWN, ExitReason.IGNORED)
        event = ChildEnded if quiet and decision is not Decision.GIVE_UP else ChildExited
        report = end.report
        if report is not None:
            report.supervisor, report.decision = self.name, decision.value
        self._emit(
            event(
                actor=record.name,
                supervisor=self.name,
                incarnation=end.incarnation,
                reason=end.reason.value,
                error=end.summary,
                last_message=end.last_message,
                lived=end.lived,
                decision=decision,
                where="" if report is None else report.where,
                task=None if report is None else report.task,
                report=report,
            )
        )

    def forget(self, record: ChildRecord) -> None:
        """No longer list a child; one that does not stop is listed until it is gone."""
        record.desired = DesiredState.GONE
        self.highest_number_forgotten = max(self.highest_number_forgotten, record.incarnation)
        if not record.unstopped_runs:
            self.children.remove(record.name)
            self.control.unschedule(record)
            self.hooks.tell_forgotten(record)
            self._on_forgotten(record)

    # The end of the supervisor

    def shut_down(
        self, why: str, *, error: BaseException | None = None, budget: float = math.inf, kill: bool = False
    ) -> None:
        """Stop all children in reverse start order, then end, with `error` if there is one.

        May be repeated: an earlier `budget` (an absolute time) shortens, `kill` interrupts all children at once.
        """
        now = trio.current_time()
        if error is not None and (self.error is None or (fatal_in(error) and not fatal_in(self.error))):
            self.error = error
        if not self.stopping:
            self.phase = Phase.STOPPING
            self._stop_detail = why
            self._stopping_since = now
            self._budget = now + self.settings.shutdown_budget
            self._cancel_pending(now)
            alive = sum(record.is_alive for record in self.children.values())
            self._emit(SupervisorStopping(actor=self.name, why=why, children=alive))
        self._budget = min(self._budget, budget)
        for record in self.children.values():
            self.control.shorten(record, self._budget)
            if kill:
                self.control.cancel(record, why)
        self.wake()

    def _cancel_pending(self, now: float) -> None:
        for record in self.children.values():
            if record.state in PENDING:
                record.set_state(ChildState.DOWN, now)
            if record.start_reply is not None:
                record.start_reply.fail(
                    AdministrationError(RefusalReason.SHUTTING_DOWN, self.name, record.name, "the supervisor stops")
                )
                record.start_reply = None

    def _finish(self) -> None:
        self.ended = True
        for record in self.children.values():
            self.unstopped.extend(record.reports)
            self.unstopped_runs.extend(record.unstopped_runs)
            for reply in record.stop_replies:
                reply.resolve(None)
        took = trio.current_time() - self._stopping_since
        left = tuple(report.name for report in self.unstopped)
        self._emit(SupervisorStopped(actor=self.name, took=took, unstopped=left))
