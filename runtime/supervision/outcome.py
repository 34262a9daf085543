"""What follows from the end of a child: the decision (pure), and carrying it out.

Restart, restart with the group, park, give up, refuse the start, stay down; and answering those who wait for the child.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from runtime.child import AutoShutdown, Exit, ExitReason, GiveUp, Restart, Strategy
from runtime.events import Event
from runtime.restart_limits import IntensityWindow, delay
from runtime.supervision.child_run import ChildrenUnstopped, EndedInOrder, TreeNursery, fatal_in
from runtime.supervision.children import COMING_UP, PENDING, ChildIndex, ChildRecord, ChildState, DesiredState
from runtime.supervision.errors import (
    ChildStartFailed,
    RepairIntensityExceeded,
    RestartIntensityExceeded,
)
from runtime.supervision.events import ChildHookFailed, ChildParked, ChildRestarting, Decision, SupervisorGaveUp

Emit = Callable[[Event], None]


@attrs.frozen
class SupervisorFlags:
    """How a supervisor behaves."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 5
    period: float = 60.0
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    shutdown_budget: float = math.inf
    dynamic: bool = False


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


class RunningSupervisor(Protocol):
    """What carrying out a decision needs of the supervisor: its control loop."""

    name: str
    settings: SupervisorFlags
    slots: ChildIndex
    hooks: ChildHooks

    @property
    def stopping(self) -> bool:
        """Whether it starts nothing any more."""
        ...

    def arm(self, slot: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        ...

    def forget(self, slot: ChildRecord) -> None:
        """No longer list a child."""
        ...

    def shut_down(self, why: str, *, error: BaseException | None = None) -> None:
        """Stop all children in reverse start order, then end, with `error` if there is one."""
        ...


def decide(slot: ChildRecord, end: Exit, *, stopping: bool, dynamic: bool) -> Decision:
    """What follows this end, before any limit is counted: RESTART still has to pass the restart intensity."""
    if fatal_in(end.error) is not None:
        return Decision.SHUT_DOWN_TREE
    forgotten = dynamic or slot.spec.restart is Restart.TEMPORARY
    if stopping:
        return Decision.STOPPED
    if slot.goal is not DesiredState.UP:
        return Decision.FORGET if dynamic or slot.goal is DesiredState.GONE else Decision.STOPPED
    if slot.recycle and end.reason is not ExitReason.UNSTOPPED:
        return Decision.FORGET if slot.spec.restart is Restart.TEMPORARY else Decision.RESTART_WITH_GROUP
    if not slot.proven and end.reason is not ExitReason.IGNORED:
        return Decision.REFUSE_START
    if end.reason is ExitReason.UNSTOPPED:
        return Decision.PARK
    if end.reason is ExitReason.IGNORED or not _restarts(slot.spec.restart, end):
        return Decision.FORGET if forgotten else Decision.STAY_DOWN
    return Decision.RESTART


def _restarts(restart: Restart, end: Exit) -> bool:
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return end.abnormal
        case Restart.TEMPORARY:
            return False


def comes_back_late(restart: Restart, end: Exit) -> bool:
    """Whether a child that was unstopped is restarted now that its task is gone."""
    gave_up = isinstance(end.error, ChildrenUnstopped) and isinstance(end.error.__cause__, EndedInOrder)
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and not gave_up)


def ends_supervisor(mode: AutoShutdown, ended: ChildRecord, slots: list[ChildRecord]) -> bool:
    """Whether the final end of `ended`, by itself, shuts its supervisor down; `slots` are all children without it."""
    if not ended.spec.significant:
        return False
    match mode:
        case AutoShutdown.NEVER:
            return False
        case AutoShutdown.ANY_SIGNIFICANT:
            return True
        case AutoShutdown.ALL_SIGNIFICANT:
            return not any(slot.spec.significant and (slot.alive or slot.state in COMING_UP) for slot in slots)


def taken_along(strategy: Strategy, slot: ChildRecord, slots: list[ChildRecord]) -> list[ChildRecord]:
    """The siblings that a restart of `slot` takes along, in start order; `slots` are all children in that order.

    Not those that an operator terminated, that are parked or that do not stop: a sibling's crash does not undo an
    operator's decision.
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return []
        case Strategy.ONE_FOR_ALL:
            affected = [other for other in slots if other is not slot]
        case Strategy.REST_FOR_ONE:
            affected = slots[slots.index(slot) + 1 :]
    out = (ChildState.PARKED, ChildState.UNSTOPPED)
    return [other for other in affected if other.goal is DesiredState.UP and other.state not in out]


class ChildOutcome:
    """Carries out decisions on the children of one life of a supervisor, inside its control loop."""

    def __init__(self, life: RunningSupervisor, ground: TreeNursery, emit: Emit, chance: Callable[[], float]) -> None:
        self._life = life
        self._ground = ground
        self._emit = emit
        self._chance = chance
        self._window = IntensityWindow(life.settings.intensity, life.settings.period)

    def count_attempt(self, slot: ChildRecord) -> Decision:
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

    def apply(self, slot: ChildRecord, end: Exit, decision: Decision) -> None:
        """Do what was decided."""
        now = trio.current_time()
        down = ChildState.UNSTOPPED if slot.zombies else ChildState.DOWN
        unasked = slot.goal is DesiredState.UP and not slot.recycle
        match decision:
            case Decision.RESTART:
                self._restart(slot, end, now)
                return
            case Decision.RESTART_WITH_GROUP:
                slot.recycle = False
                slot.enter(ChildState.RESTARTING, now)
                self._life.arm(slot)
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
        if decision is Decision.FORGET or (slot.goal is DesiredState.GONE and not self._life.stopping):
            self._life.forget(slot)
        if unasked and decision in (Decision.STAY_DOWN, Decision.FORGET) and end.reason is not ExitReason.IGNORED:
            self._check_auto_shutdown(slot)

    def _why_final(self, slot: ChildRecord, end: Exit) -> str:
        if slot.goal is not DesiredState.UP:
            return "terminated"
        return f"{end.reason.value}: {end.summary}" if end.summary else end.reason.value

    def _restart(self, slot: ChildRecord, end: Exit, now: float) -> None:
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
            self._life.arm(other)
        self._life.arm(slot)
        self._emit(
            ChildRestarting(
                actor=slot.name,
                supervisor=self._life.name,
                restart=slot.restarts,
                delay=wait,
                group=tuple(other.name for other in group),
            )
        )

    def _park(self, slot: ChildRecord, end: Exit, now: float) -> None:
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

    def _refuse_start(self, slot: ChildRecord, end: Exit) -> None:
        failure = ChildStartFailed(f"{slot.name} did not start: {end.summary}")
        failure.__cause__ = end.error
        if slot.start_reply is None:
            self._life.shut_down(f"{slot.name} did not start", error=end.error or failure)
        else:
            slot.start_reply.fail(failure)
            slot.start_reply = None
            slot.goal = DesiredState.GONE if slot.tentative else DesiredState.DOWN
            self._life.hooks.finish(slot, str(failure))

    def _give_up(self, slot: ChildRecord, end: Exit) -> None:
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

    def _shut_down_tree(self, slot: ChildRecord, end: Exit) -> None:
        error = fatal_in(end.error)
        assert error is not None, "decided on it"
        self._ground.report_fatal(error)
        slot.goal = DesiredState.DOWN
        if slot.start_reply is not None:
            slot.start_reply.fail(error)
            slot.start_reply = None

    def _check_auto_shutdown(self, slot: ChildRecord) -> None:
        if self._life.stopping or not slot.spec.significant:
            return
        others = [other for other in self._life.slots.values() if other is not slot]
        if ends_supervisor(self._life.settings.auto_shutdown, slot, others):
            self._life.shut_down(f"its significant child {slot.name} ended")

    def _answer(self, slot: ChildRecord, end: Exit) -> None:
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
