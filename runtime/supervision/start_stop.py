"""What a supervisor does to one child: start it, ask it to stop, cancel it, leave it alone; the deadlines of all that;
and the
calls into a child's hooks, none of which may harm the supervisor.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from runtime.child import Exit, StopCause, StopReason
from runtime.events import Event
from runtime.supervision.child_run import ChildRun, TreeNursery
from runtime.supervision.children import PENDING, ChildRecord, ChildState
from runtime.supervision.errors import ChildrenUnstopped
from runtime.supervision.events import ChildHookFailed, ChildParked, ChildUnstopped
from runtime.supervision.stop_ladder import Rung, StopLadder, Unstopped

Emit = Callable[[Event], None]


class ChildHooks:
    """Tells children what becomes of them; an exception of theirs is reported and goes no further."""

    def __init__(self, supervisor: str, emit: Emit) -> None:
        self._supervisor = supervisor
        self._emit = emit

    def decide(self, slot: ChildRecord, *, restarts: bool) -> None:
        """What follows its end."""
        self.call(slot, "on_decided", lambda: slot.child.on_decided(restarts=restarts))

    def park(self, slot: ChildRecord, reason: str) -> None:
        """No further incarnation until an operator restarts it."""
        self._emit(ChildParked(actor=slot.name, supervisor=self._supervisor, reason=reason))
        self.call(slot, "on_parked", lambda: slot.child.on_parked(reason))

    def finish(self, slot: ChildRecord, reason: str) -> None:
        """No further incarnation is planned. Told once."""
        if not slot.finished:
            slot.finished = True
            self.call(slot, "on_final", lambda: slot.child.on_final(reason))

    def call(self, slot: ChildRecord, hook: str, call: Callable[[], None]) -> None:
        """Call into the child."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # a child's bug must not stop the supervision of its siblings
            self.report(slot, hook, error)

    def report(self, slot: ChildRecord, hook: str, error: Exception) -> None:
        """A hook raised."""
        text = f"{type(error).__name__}: {error}"
        self._emit(ChildHookFailed(actor=slot.name, supervisor=self._supervisor, hook=hook, error=text))


class RunObserver(Protocol):
    """Who is told what became of a child: the supervisor's control loop."""

    def post(self, handle: Callable[[], None]) -> None:
        """Call `handle` in the control loop, soon, in order."""
        ...

    def child_serves(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """Its start is over."""
        ...

    def child_ended(self, slot: ChildRecord, incarnation: ChildRun, end: Exit) -> None:
        """It ended, or was left alone."""
        ...

    def child_gone(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """A task that had been left alone ended after all."""
        ...


class StartStop:
    """The hands of a supervisor. Nothing here waits; a deadline that passes is taken by `take_due`."""

    def __init__(
        self, supervisor: str, ground: TreeNursery, emit: Emit, hooks: ChildHooks, listener: RunObserver
    ) -> None:
        self._supervisor = supervisor
        self._ground = ground
        self._emit = emit
        self._hooks = hooks
        self._listener = listener
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
            on_serving=lambda incarnation: self._tell(self._listener.child_serves, slot, incarnation),
            on_end=lambda incarnation, end: self._listener.post(
                functools.partial(self._listener.child_ended, slot, incarnation, end)
            ),
        )
        self.arm(slot)
        self._ground.spawn(slot.incarnation)

    def _tell(self, handle: Callable[[ChildRecord, ChildRun], None], slot: ChildRecord, incarnation: ChildRun) -> None:
        self._listener.post(functools.partial(handle, slot, incarnation))

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
        self._listener.child_ended(
            slot, incarnation, incarnation.abandon(f"it ignores cancellation since {waited:g} s")
        )

    def adopt_leftovers(self, slot: ChildRecord, error: ChildrenUnstopped) -> None:
        """Take over what a nested supervisor could not stop: it may not come back before that is gone."""
        slot.reports.extend(report.below(slot.name) for report in error.reports)
        for incarnation in error.incarnations:
            self._adopt(slot, incarnation)

    def _adopt(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        slot.zombies.add(incarnation)
        incarnation.when_gone(lambda gone: self._tell(self._listener.child_gone, slot, gone))
