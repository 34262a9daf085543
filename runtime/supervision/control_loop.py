"""The control loop of a running supervisor, what it does to a child and what it does about the end of one.

`StartStop` starts a child, asks it to stop, cancels it, leaves it alone, and keeps the deadlines of all that;
`ControlLoop` waits for the next thing that happens or the next deadline, and decides.
"""

from __future__ import annotations

import enum
import functools
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping

import attrs
import trio

from runtime.child import Exit, ExitReason, Restart, StopCause, StopReason
from runtime.supervision.child_run import ChildrenUnstopped, ChildRun, TreeNursery, fatal_in, killed_in
from runtime.supervision.children import (
    PENDING,
    ChildIndex,
    ChildRecord,
    ChildState,
    DesiredState,
    next_starts,
    next_stops,
)
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
from runtime.supervision.outcome import ChildHooks, ChildOutcome, Emit, SupervisorFlags, comes_back_late, decide
from runtime.supervision.stop_ladder import Rung, StopLadder, Unstopped


class StartStop:
    """The hands of a supervisor. Nothing here waits; a deadline that passes is taken by `take_due`."""

    def __init__(self, supervisor: str, ground: TreeNursery, emit: Emit, hooks: ChildHooks, loop: ControlLoop) -> None:
        self._supervisor = supervisor
        self._ground = ground
        self._emit = emit
        self._hooks = hooks
        self._loop = loop
        self._heap: list[tuple[float, int, ChildRecord]] = []
        self._tickets = itertools.count()

    # Starting

    def start(self, slot: ChildRecord, now: float) -> None:
        """Begin the next incarnation."""
        assert not slot.alive, f"{slot.name} would run twice at once"
        assert not slot.zombies, f"{slot.name} would run beside a task that did not end"
        slot.number += 1
        slot.finished = False
        slot.repair_allowed = None
        slot.asked = None
        slot.enter(ChildState.STARTING, now)
        slot.start_deadline = now + slot.spec.start_timeout
        slot.incarnation = ChildRun(
            slot.child,
            slot.number,
            on_serving=lambda incarnation: self._tell(self._loop.child_serves, slot, incarnation),
            on_end=lambda incarnation, end: self._loop.post(
                functools.partial(self._loop.child_ended, slot, incarnation, end)
            ),
        )
        self.arm(slot)
        self._ground.spawn(slot.incarnation)

    def _tell(self, handle: Callable[[ChildRecord, ChildRun], None], slot: ChildRecord, incarnation: ChildRun) -> None:
        self._loop.post(functools.partial(handle, slot, incarnation))

    # Stopping

    def ask_to_stop(self, slot: ChildRecord, cause: StopCause, detail: str, budget: float = math.inf) -> None:
        """Step on the first rung of the ladder; on the second if the spec or the budget leave no time for asking."""
        incarnation = slot.incarnation
        assert incarnation is not None, f"{slot.name} has nothing to stop"
        now = trio.current_time()
        slot.ladder = ladder = StopLadder(
            now, shutdown=slot.spec.shutdown, kill_grace=slot.spec.kill_grace, budget=budget
        )
        slot.enter(ChildState.STOPPING, now, detail)
        if ladder.rung is Rung.CANCELLED:
            incarnation.kill(f"{detail}; there is no time to ask it")
        else:
            incarnation.stop_asked = True
            if incarnation.task is not None:
                self._ask(slot, StopReason(cause, detail, ladder.deadline))
        self.arm(slot)

    def _ask(self, slot: ChildRecord, reason: StopReason) -> None:
        slot.asked = reason
        self._hooks.call(slot, "request_stop", lambda: slot.child.request_stop(reason))

    def cancel(self, slot: ChildRecord, why: str) -> None:
        """Interrupt the incarnation now, whatever it was doing; without effect if that was done before."""
        incarnation = slot.incarnation
        if incarnation is None:
            return
        now = trio.current_time()
        if slot.ladder is None:
            slot.ladder = StopLadder(now, shutdown=0.0, kill_grace=slot.spec.kill_grace)
        else:
            slot.ladder.cancel(now)
        slot.enter(ChildState.STOPPING, now, why)
        incarnation.kill(why)
        self.arm(slot)

    def shorten(self, slot: ChildRecord, budget: float) -> None:
        """Give a child that is stopping less time, and let it know: its last words are shielded from all but that."""
        if slot.ladder is None:
            return
        slot.ladder.shorten(trio.current_time(), budget)
        self.arm(slot)
        if slot.asked is not None and slot.ladder.rung is Rung.ASKED and slot.ladder.deadline < slot.asked.deadline:
            self._ask(slot, attrs.evolve(slot.asked, deadline=slot.ladder.deadline))

    # Deadlines

    def arm(self, slot: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        at = math.inf
        if slot.incarnation is not None:
            if slot.ladder is not None:
                at = slot.ladder.deadline
            if slot.incarnation.serving_since is None:
                at = min(at, slot.start_deadline)
        elif slot.state in PENDING:
            at = slot.not_before
        slot.deadline = at
        if at < math.inf:
            heapq.heappush(self._heap, (at, next(self._tickets), slot))

    def next_deadline(self) -> float:
        """When `take_due` has to be called next; math.inf if nothing is due ever."""
        while self._heap and self._heap[0][0] != self._heap[0][2].deadline:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def take_due(self, now: float) -> None:
        """Act on all deadlines that have passed."""
        while self.next_deadline() <= now:
            _, _, slot = heapq.heappop(self._heap)
            slot.deadline = math.inf
            if slot.incarnation is not None:
                self._climb(slot, slot.incarnation, now)

    def _climb(self, slot: ChildRecord, incarnation: ChildRun, now: float) -> None:
        if incarnation.serving_since is None and now >= slot.start_deadline:
            slot.start_deadline = math.inf
            incarnation.fail_start(
                f"it did not report that it serves within {slot.spec.start_timeout:g} s (setting start_timeout)"
            )
            if slot.ladder is None:
                slot.ladder = StopLadder(now, shutdown=0.0, kill_grace=slot.spec.kill_grace)
            else:
                slot.ladder.cancel(now)
        elif slot.ladder is not None and slot.ladder.climb(now):
            if slot.ladder.rung is Rung.UNSTOPPED:
                self._leave_alone(slot, incarnation, slot.ladder, now)
                return
            incarnation.kill(f"it did not stop within {now - slot.ladder.began_at:g} s (setting shutdown)")
        self.arm(slot)

    def _leave_alone(self, slot: ChildRecord, incarnation: ChildRun, ladder: StopLadder, now: float) -> None:
        message = slot.child.last_activity().message
        waited = now - ladder.began_at
        report = Unstopped(slot.name, incarnation.number, message, waited, incarnation.stack())
        slot.reports.append(report)
        self._adopt(slot, incarnation)
        self._emit(
            ChildUnstopped(
                actor=slot.name,
                supervisor=self._supervisor,
                incarnation=incarnation.number,
                message=message,
                waited=waited,
                stack=report.stack,
            )
        )
        self._loop.child_ended(slot, incarnation, incarnation.abandon(f"it ignores cancellation since {waited:g} s"))

    def adopt_leftovers(self, slot: ChildRecord, error: ChildrenUnstopped) -> None:
        """Take over what a nested supervisor could not stop: it may not come back before that is gone."""
        slot.reports.extend(report.below(slot.name) for report in error.reports)
        for incarnation in error.incarnations:
            self._adopt(slot, incarnation)

    def _adopt(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        slot.zombies.add(incarnation)
        incarnation.when_gone(lambda gone: self._tell(self._loop.child_gone, slot, gone))


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
        slots: Mapping[str, ChildRecord],
        ground: TreeNursery,
        *,
        emit: Emit,
        chance: Callable[[], float],
        on_started: Callable[[], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.slots = ChildIndex(slots)
        self.phase = Phase.BOOTING
        self.error: BaseException | None = None
        """What ends the supervisor, if it is not asked to."""
        self.ended = False
        """All children are down; nothing can be asked of it any more."""
        self.highest_number_forgotten = 0
        """Incarnations of a new child are counted from here, so that no number of a forgotten namesake comes back."""
        self.leftovers: list[ChildRun] = []
        self.unstopped: list[Unstopped] = []
        self.hooks = ChildHooks(name, emit)
        self.control = StartStop(name, ground, emit, self.hooks, self)
        self._emit = emit
        self._on_started = on_started
        self._consequences = ChildOutcome(self, ground, emit, chance)
        self._inbox: deque[Callable[[], None]] = deque()
        self._wakeup = trio.Event()
        self._budget = math.inf
        self._stop_detail = ""
        self._stopping_since = 0.0

    # The control loop

    async def run(self) -> None:
        """Start the children, look after them, and return when all are down. Must be called in a shielded scope."""
        try:
            while not self._turn():
                deadline = self.control.next_deadline()
                with trio.move_on_at(deadline):
                    await self._wakeup.wait()
                self._wakeup = trio.Event()
        except BaseException:
            await self._kill_everything()
            raise
        self._conclude()

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

    def arm(self, slot: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        self.control.arm(slot)

    def _turn(self) -> bool:
        while True:
            while self._inbox:
                self._inbox.popleft()()
            now = trio.current_time()
            self.control.take_due(now)
            ended = self._advance(now)
            if not self._inbox:
                return ended

    def _advance(self, now: float) -> bool:
        stopping = self.stopping
        for slot in next_stops(self.slots, stopping=stopping, parallel=self.settings.dynamic):
            self._ask_to_stop(slot)
        if stopping:
            return not self.slots.alive
        for slot in next_starts(self.slots, now):
            self.control.start(slot, now)
        if self.phase is Phase.BOOTING and not self.slots.unproven:
            self.phase = Phase.SERVING
            self._on_started()
        return False

    def _ask_to_stop(self, slot: ChildRecord) -> None:
        if self.stopping:
            self.control.ask_to_stop(slot, StopCause.SHUTDOWN, self._stop_detail, self._budget)
        elif slot.goal is not DesiredState.UP:
            self.control.ask_to_stop(slot, StopCause.TERMINATED, "terminated")
        else:
            self.control.ask_to_stop(slot, StopCause.RESTART, slot.reason or "restarted together with a sibling")

    async def _kill_everything(self) -> None:
        """A bug in the loop: nobody would look after the children any more, so none may outlive it."""
        alive = [slot for slot in self.slots.values() if slot.incarnation is not None]
        grace = max((slot.spec.kill_grace for slot in alive), default=0.0)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
            for slot in alive:
                assert slot.incarnation is not None
                slot.incarnation.kill(f"supervisor {self.name} failed")
            for slot in alive:
                assert slot.incarnation is not None
                await slot.incarnation.wait_gone()

    # What became of a child

    def child_serves(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """Its start is over."""
        if slot.incarnation is not incarnation:
            return
        now = trio.current_time()
        slot.proven = True
        slot.in_group = slot.recycle
        slot.start_deadline = math.inf
        if slot.state is ChildState.STARTING:
            slot.enter(ChildState.RUNNING, now)
        self.control.arm(slot)
        self._emit(
            ChildStarted(
                actor=slot.name,
                supervisor=self.name,
                incarnation=incarnation.number,
                took=now - incarnation.began_at,
            )
        )
        if slot.start_reply is not None:
            slot.start_reply.resolve(incarnation.number)
            slot.start_reply = None
        slot.tentative = False

    def child_ended(self, slot: ChildRecord, incarnation: ChildRun, end: Exit) -> None:
        """Decide what follows, report it, do it."""
        if slot.incarnation is not incarnation:
            return
        slot.incarnation = slot.ladder = None
        slot.deadline = slot.start_deadline = math.inf
        slot.last_exit = end
        if end.reason not in (ExitReason.KILLED, ExitReason.UNSTOPPED):
            slot.repair_allowed = True if killed_in(end.error) else None  # None: it had ended before it could be killed
        if incarnation.hook_error is not None:
            self.hooks.report(slot, "on_exit", incarnation.hook_error)
        if isinstance(end.error, ChildrenUnstopped):
            self.control.adopt_leftovers(slot, end.error)
        served = 0.0 if incarnation.serving_since is None else trio.current_time() - incarnation.serving_since
        if served >= slot.spec.backoff.reset_after:
            slot.restarts = 0
        decision = decide(slot, end, stopping=self.stopping, dynamic=self.settings.dynamic)
        if decision is Decision.RESTART:
            decision = self._consequences.count_attempt(slot)
        self._report_end(slot, end, decision)
        self.hooks.decide(slot, restarts=decision in (Decision.RESTART, Decision.RESTART_WITH_GROUP))
        self._consequences.apply(slot, end, decision)

    def child_gone(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """An unstopped task ended after all: what was to follow its end follows now."""
        slot.zombies.discard(incarnation)
        if slot.zombies or self.slots.get(slot.name) is not slot:
            return
        self._emit(ChildEndedLate(actor=slot.name, supervisor=self.name, incarnation=incarnation.number))
        slot.reports.clear()
        if self.stopping or slot.state is not ChildState.UNSTOPPED:
            return
        ends_for_good = slot.goal is DesiredState.UP and slot.spec.restart is Restart.TEMPORARY
        if slot.goal is DesiredState.GONE or ends_for_good or self.settings.dynamic:
            self.hooks.finish(slot, "ended late")
            self.forget(slot)
        elif slot.goal is DesiredState.DOWN:
            slot.enter(ChildState.DOWN, trio.current_time())
        elif slot.last_exit is not None and not comes_back_late(slot.spec.restart, slot.last_exit):
            self._consequences.apply(slot, slot.last_exit, Decision.STAY_DOWN)
        elif slot.last_exit is not None:
            self._consequences.apply(slot, slot.last_exit, self._consequences.count_attempt(slot))

    def _report_end(self, slot: ChildRecord, end: Exit, decision: Decision) -> None:
        quiet = end.reason in (ExitReason.NORMAL, ExitReason.SHUTDOWN, ExitReason.IGNORED)
        event = ChildEnded if quiet and decision is not Decision.GIVE_UP else ChildExited
        self._emit(
            event(
                actor=slot.name,
                supervisor=self.name,
                incarnation=end.incarnation,
                reason=end.reason.value,
                error=end.summary,
                last_message=end.last_message,
                lived=end.lived,
                decision=decision,
            )
        )

    def forget(self, slot: ChildRecord) -> None:
        """No longer list a child; one that does not stop is listed until it is gone."""
        slot.goal = DesiredState.GONE
        self.highest_number_forgotten = max(self.highest_number_forgotten, slot.number)
        if not slot.zombies:
            self.slots.remove(slot.name)

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
            alive = sum(slot.alive for slot in self.slots.values())
            self._emit(SupervisorStopping(actor=self.name, why=why, children=alive))
        self._budget = min(self._budget, budget)
        for slot in self.slots.values():
            self.control.shorten(slot, self._budget)
            if kill:
                self.control.cancel(slot, why)
        self.wake()

    def _cancel_pending(self, now: float) -> None:
        for slot in self.slots.values():
            if slot.state in PENDING:
                slot.enter(ChildState.DOWN, now)
            if slot.start_reply is not None:
                slot.start_reply.fail(
                    AdministrationError(RefusalReason.SHUTTING_DOWN, self.name, slot.name, "the supervisor stops")
                )
                slot.start_reply = None

    def _conclude(self) -> None:
        self.ended = True
        for slot in self.slots.values():
            self.unstopped.extend(slot.reports)
            self.leftovers.extend(slot.zombies)
            for reply in slot.stop_replies:
                reply.resolve(None)
        took = trio.current_time() - self._stopping_since
        left = tuple(report.name for report in self.unstopped)
        self._emit(SupervisorStopped(actor=self.name, took=took, unstopped=left))
