"""What a supervisor does to one child: start, ask to stop, cancel, leave alone; and the deadlines of all that."""

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
from runtime.incarnation import Incarnation
from runtime.stop_ladder import Rung, StopLadder, Unstopped
from runtime.supervision.errors import ChildrenUnstopped
from runtime.supervision.ground import Ground
from runtime.supervision.hooks import Emit, Hooks
from runtime.supervision.slot import PENDING, ChildState, Slot
from runtime.supervision_events import ChildUnstopped


class Listener(Protocol):
    """Who is told what became of a child: the supervisor's control loop."""

    def post(self, handle: Callable[[], None]) -> None:
        """Call `handle` in the control loop, soon, in order."""
        ...

    def child_serves(self, slot: Slot, incarnation: Incarnation) -> None:
        """Its start is over."""
        ...

    def child_ended(self, slot: Slot, incarnation: Incarnation, end: Exit) -> None:
        """It ended, or was left alone."""
        ...

    def child_gone(self, slot: Slot, incarnation: Incarnation) -> None:
        """A task that had been left alone ended after all."""
        ...


class ChildControl:
    """The hands of a supervisor. Nothing here waits; a deadline that passes is taken by `take_due`."""

    def __init__(self, supervisor: str, ground: Ground, emit: Emit, hooks: Hooks, listener: Listener) -> None:
        self._supervisor = supervisor
        self._ground = ground
        self._emit = emit
        self._hooks = hooks
        self._listener = listener
        self._heap: list[tuple[float, int, Slot]] = []
        self._tickets = itertools.count()

    # Starting

    def start(self, slot: Slot, now: float) -> None:
        """Begin the next incarnation."""
        assert not slot.alive, f"{slot.name} would run twice at once"
        assert not slot.zombies, f"{slot.name} would run beside a task that did not end"
        slot.number += 1
        slot.finished = False
        slot.repair_allowed = None
        slot.asked = None
        slot.enter(ChildState.STARTING, now)
        slot.start_deadline = now + slot.spec.start_timeout
        slot.incarnation = Incarnation(
            slot.child,
            slot.number,
            on_serving=lambda incarnation: self._tell(self._listener.child_serves, slot, incarnation),
            on_end=lambda incarnation, end: self._listener.post(
                functools.partial(self._listener.child_ended, slot, incarnation, end)
            ),
        )
        self.arm(slot)
        self._ground.spawn(slot.incarnation)

    def _tell(self, handle: Callable[[Slot, Incarnation], None], slot: Slot, incarnation: Incarnation) -> None:
        self._listener.post(functools.partial(handle, slot, incarnation))

    # Stopping

    def ask_to_stop(self, slot: Slot, cause: StopCause, detail: str, budget: float = math.inf) -> None:
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

    def _ask(self, slot: Slot, reason: StopReason) -> None:
        slot.asked = reason
        self._hooks.call(slot, "request_stop", lambda: slot.child.request_stop(reason))

    def cancel(self, slot: Slot, why: str) -> None:
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

    def shorten(self, slot: Slot, budget: float) -> None:
        """Give a child that is stopping less time, and let it know: its last words are shielded from all but that."""
        if slot.ladder is None:
            return
        slot.ladder.shorten(trio.current_time(), budget)
        self.arm(slot)
        if slot.asked is not None and slot.ladder.rung is Rung.ASKED and slot.ladder.deadline < slot.asked.deadline:
            self._ask(slot, attrs.evolve(slot.asked, deadline=slot.ladder.deadline))

    # Deadlines

    def arm(self, slot: Slot) -> None:
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

    def _climb(self, slot: Slot, incarnation: Incarnation, now: float) -> None:
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

    def _leave_alone(self, slot: Slot, incarnation: Incarnation, ladder: StopLadder, now: float) -> None:
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

    def adopt_leftovers(self, slot: Slot, error: ChildrenUnstopped) -> None:
        """Take over what a nested supervisor could not stop: it may not come back before that is gone."""
        slot.reports.extend(report.below(slot.name) for report in error.reports)
        for incarnation in error.incarnations:
            self._adopt(slot, incarnation)

    def _adopt(self, slot: Slot, incarnation: Incarnation) -> None:
        slot.zombies.add(incarnation)
        incarnation.when_gone(lambda gone: self._tell(self._listener.child_gone, slot, gone))
