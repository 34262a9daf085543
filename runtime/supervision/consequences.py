"""What follows from the end of a child, once it is decided: restart, park, give up, answer who waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from runtime.backoff import delay
from runtime.child import Exit, ExitReason, GiveUp, Strategy
from runtime.incarnation import fatal_in
from runtime.intensity import IntensityWindow
from runtime.supervision.decision import ends_supervisor, taken_along
from runtime.supervision.errors import (
    ChildrenUnstopped,
    ChildStartFailed,
    EndedInOrder,
    RepairIntensityExceeded,
    RestartIntensityExceeded,
)
from runtime.supervision.ground import Ground
from runtime.supervision.hooks import Emit
from runtime.supervision.slot import PENDING, ChildState, Goal, Slot
from runtime.supervision_events import ChildRestarting, Decision, SupervisorGaveUp

if TYPE_CHECKING:
    from runtime.supervision.life import Life


class Consequences:
    """Carries out decisions on the children of one life of a supervisor, inside its control loop."""

    def __init__(self, life: Life, ground: Ground, emit: Emit, chance: Callable[[], float]) -> None:
        self._life = life
        self._ground = ground
        self._emit = emit
        self._chance = chance
        self._window = IntensityWindow(life.settings.intensity, life.settings.period)

    def count_attempt(self, slot: Slot) -> Decision:
        """Charge one restart attempt to whom it belongs; what follows instead if it is one too many.

        Who was killed on purpose charges nobody's attempts; a repair was counted when the child was killed.
        """
        if slot.spec.give_up is GiveUp.NEVER:
            return Decision.RESTART
        parks = slot.spec.give_up is GiveUp.PARK
        allowed = slot.repair_allowed
        if allowed is None:
            allowed = (slot.window if parks else self._window).attempt(trio.current_time())
        if allowed:
            return Decision.RESTART
        return Decision.PARK if parks else Decision.GIVE_UP

    def apply(self, slot: Slot, end: Exit, decision: Decision) -> None:
        """Do what was decided."""
        now = trio.current_time()
        down = ChildState.UNSTOPPED if slot.zombies else ChildState.DOWN
        unasked = slot.goal is Goal.UP and not slot.recycle
        match decision:
            case Decision.RESTART:
                self._restart(slot, end, now)
                return
            case Decision.RESTART_WITH_GROUP:
                slot.recycle = False
                slot.enter(ChildState.RESTARTING, now)
                self._life.control.arm(slot)
                return
            case Decision.SHUT_DOWN_TREE:
                slot.enter(down, now)
                self._shut_down_tree(slot, end)
            case Decision.GIVE_UP:
                slot.enter(down, now)
                self._give_up(slot, end)
            case Decision.PARK:
                self._park(slot, end, now)
            case Decision.REFUSE_START:
                slot.enter(down, now, end.summary)
                self._refuse_start(slot, end)
            case Decision.STOPPED | Decision.STAY_DOWN | Decision.FORGET:
                slot.enter(down, now, end.summary if slot.zombies else "")
                if not self._life.stopping or decision is Decision.FORGET:
                    self._life.hooks.finish(slot, self._why_final(slot, end))
        slot.recycle = slot.in_group = False
        if end.reason is ExitReason.IGNORED:
            slot.proven = True
        self._answer(slot, end)
        if decision is Decision.FORGET or (slot.goal is Goal.GONE and not self._life.stopping):
            self._life.forget(slot)
        if unasked and decision in (Decision.STAY_DOWN, Decision.FORGET) and end.reason is not ExitReason.IGNORED:
            self._check_auto_shutdown(slot)

    def _why_final(self, slot: Slot, end: Exit) -> str:
        if slot.goal is not Goal.UP:
            return "terminated"
        return f"{end.reason.value}: {end.summary}" if end.summary else end.reason.value

    def _restart(self, slot: Slot, end: Exit, now: float) -> None:
        slot.restarts += 1
        wait = delay(slot.spec.backoff, slot.restarts, self._chance())
        slot.not_before = now + wait
        slot.enter(ChildState.RESTARTING, now)
        strategy = self._life.settings.strategy
        slot.in_group = strategy is not Strategy.ONE_FOR_ONE
        group = taken_along(strategy, slot, list(self._life.slots.values())) if slot.in_group else []
        for other in group:
            other.in_group = True
            other.not_before = max(other.not_before, slot.not_before)
            if other.alive:
                other.recycle = True
                other.reason = f"{slot.name} {end.reason.value}"
            elif other.state not in PENDING:
                other.enter(ChildState.RESTARTING, now)
            self._life.control.arm(other)
        self._life.control.arm(slot)
        self._emit(
            ChildRestarting(
                actor=slot.name,
                supervisor=self._life.name,
                restart=slot.restarts,
                delay=wait,
                group=tuple(other.name for other in group),
            )
        )

    def _park(self, slot: Slot, end: Exit, now: float) -> None:
        if slot.zombies:
            reason = "it ignores cancellation; nothing is started beside it"
            slot.enter(ChildState.UNSTOPPED, now, reason)
        else:
            window, what = (slot.window, "restarts")
            if slot.repair_allowed is False and slot.repairs is not None:
                window, what = slot.repairs, "repairs"
            reason = f"more than {window.intensity} {what} within {window.period:g} s; its last end: {end.summary}"
            slot.enter(ChildState.PARKED, now, reason)
        self._life.hooks.park(slot, reason)

    def _refuse_start(self, slot: Slot, end: Exit) -> None:
        failure = ChildStartFailed(f"{slot.name} did not start: {end.summary}")
        failure.__cause__ = end.error
        if slot.start_reply is None:
            self._life.shut_down(f"{slot.name} did not start", error=end.error or failure)
        else:
            slot.start_reply.fail(failure)
            slot.start_reply = None
            slot.goal = Goal.GONE if slot.tentative else Goal.DOWN
            self._life.hooks.finish(slot, str(failure))

    def _give_up(self, slot: Slot, end: Exit) -> None:
        now = trio.current_time()
        error: EndedInOrder
        if slot.repair_allowed is False and slot.repairs is not None:
            repairs = slot.repairs.count(now)
            error = RepairIntensityExceeded(self._life.name, slot.name, repairs, slot.repairs.period, end.summary)
        else:
            count = self._window.count(now)
            error = RestartIntensityExceeded(self._life.name, slot.name, count, self._life.settings.period, end.summary)
        self._emit(SupervisorGaveUp(actor=self._life.name, child=slot.name, reason=str(error)))
        self._life.shut_down(f"it gave up because of {slot.name}", error=error)

    def _shut_down_tree(self, slot: Slot, end: Exit) -> None:
        error = fatal_in(end.error)
        assert error is not None, "decided on it"
        self._ground.report_fatal(error)
        slot.goal = Goal.DOWN
        if slot.start_reply is not None:
            slot.start_reply.fail(error)
            slot.start_reply = None

    def _check_auto_shutdown(self, slot: Slot) -> None:
        if self._life.stopping or not slot.spec.significant:
            return
        others = [other for other in self._life.slots.values() if other is not slot]
        if ends_supervisor(self._life.settings.auto_shutdown, slot, others):
            self._life.shut_down(f"its significant child {slot.name} ended")

    def _answer(self, slot: Slot, end: Exit) -> None:
        if slot.start_reply is not None:
            if end.reason is ExitReason.IGNORED:
                slot.start_reply.resolve(None)
            else:
                slot.start_reply.fail(ChildStartFailed(f"{slot.name} was stopped while it started"))
            slot.start_reply = None
        replies, slot.stop_replies = slot.stop_replies, []
        for reply in replies:
            if slot.zombies:
                reply.fail(ChildrenUnstopped(self._life.name, slot.reports))
            else:
                reply.resolve(None)
