"""What follows from the end of a child: the decision (pure), and carrying it out.

Restart, restart with the group, park, give up, refuse the start, stay down; and answering those who wait for the child.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from runtime.child import (
    AutoShutdown,
    Exit,
    ExitReason,
    GiveUp,
    NotesForgotten,
    Restart,
    Strategy,
    as_auto_shutdown,
    as_strategy,
)
from runtime.error_text import error_text, summarise
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
    """How a supervisor behaves. Raises ValueError for what is no strategy, intensity, period or auto_shutdown."""

    strategy: Strategy = attrs.field(default=Strategy.ONE_FOR_ONE, converter=as_strategy)
    intensity: int = 5
    period: float = 60.0
    auto_shutdown: AutoShutdown = attrs.field(default=AutoShutdown.NEVER, converter=as_auto_shutdown)
    shutdown_budget: float = math.inf
    dynamic: bool = False
    spawned: bool = False
    """Its children come and go by name: one that ends for good is forgotten, and all are stopped at once."""

    def __attrs_post_init__(self) -> None:
        IntensityWindow(
            self.intensity, self.period
        )  # refuses what no window can have, also where there is no child yet


class ChildHooks:
    """Tells children what becomes of them; an exception of theirs is reported and goes no further."""

    def __init__(self, supervisor: str, emit: Emit) -> None:
        self._supervisor = supervisor
        self._emit = emit

    def tell_decided(self, record: ChildRecord, *, restarts: bool) -> None:
        """What follows its end."""
        self.call(record, "on_decided", lambda: record.child.on_decided(restarts=restarts))

    def tell_parked(self, record: ChildRecord, reason: str) -> None:
        """No further incarnation until an operator restarts it."""
        self._emit(ChildParked(actor=record.name, supervisor=self._supervisor, reason=reason))
        self.call(record, "on_parked", lambda: record.child.on_parked(reason))

    def tell_final(self, record: ChildRecord, reason: str) -> None:
        """No further incarnation is planned. Told once."""
        if not record.told_final:
            record.told_final = True
            self.call(record, "on_final", lambda: record.child.on_final(reason))

    def tell_forgotten(self, record: ChildRecord) -> None:
        """It is not listed any more. Told if the child wants to know."""
        child = record.child
        if isinstance(child, NotesForgotten):
            self.call(record, "on_forgotten", child.on_forgotten)

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C is not the hook's
    def call(self, record: ChildRecord, hook: str, call: Callable[[], None]) -> None:
        """Call into the child."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # a child's bug must not stop the supervision of its siblings
            self.report_failure(record, hook, error)

    def report_failure(self, record: ChildRecord, hook: str, error: BaseException) -> None:
        """A hook raised."""
        where = summarise(error).where
        text = f"{error_text(error)} at {where}" if where else error_text(error)
        self._emit(ChildHookFailed(actor=record.name, supervisor=self._supervisor, hook=hook, error=text))


class RunningSupervisor(Protocol):
    """What carrying out a decision needs of the supervisor: its control loop."""

    name: str
    settings: SupervisorFlags
    children: ChildIndex
    hooks: ChildHooks

    @property
    def stopping(self) -> bool:
        """Whether it starts nothing any more."""
        ...

    def schedule(self, record: ChildRecord) -> None:
        """Look at the child again at the earliest of its deadlines."""
        ...

    def forget(self, record: ChildRecord) -> None:
        """No longer list a child."""
        ...

    def shut_down(self, why: str, *, error: BaseException | None = None) -> None:
        """Stop all children in reverse start order, then end, with `error` if there is one."""
        ...


def decide(record: ChildRecord, end: Exit, *, stopping: bool, dynamic: bool, spawned: bool = False) -> Decision:
    """What follows this end, before any limit is counted: RESTART still has to pass the restart intensity."""
    if fatal_in(end.error) is not None:
        return Decision.SHUT_DOWN_TREE
    forgotten = dynamic or spawned or record.spec.restart is Restart.TEMPORARY
    if stopping:
        return Decision.STOPPED
    if record.desired is not DesiredState.UP:
        return Decision.FORGET if dynamic or record.desired is DesiredState.GONE else Decision.STOPPED
    if record.stops_for_group and end.reason is not ExitReason.UNSTOPPED:
        return Decision.FORGET if record.spec.restart is Restart.TEMPORARY else Decision.RESTART_WITH_GROUP
    if not record.has_served and end.reason is not ExitReason.IGNORED:
        return Decision.REFUSE_START
    if end.reason is ExitReason.UNSTOPPED:
        return Decision.PARK
    if end.reason is ExitReason.IGNORED or not _restarts(record.spec.restart, end):
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


def ends_supervisor(mode: AutoShutdown, ended: ChildRecord, children: list[ChildRecord]) -> bool:
    """Whether the final end of `ended`, by itself, shuts its supervisor down; `children` are all the others."""
    if not ended.spec.significant:
        return False
    match mode:
        case AutoShutdown.NEVER:
            return False
        case AutoShutdown.ANY_SIGNIFICANT:
            return True
        case AutoShutdown.ALL_SIGNIFICANT:
            return not any(
                record.spec.significant and (record.is_alive or record.state in COMING_UP) for record in children
            )


def taken_along(strategy: Strategy, record: ChildRecord, children: list[ChildRecord]) -> list[ChildRecord]:
    """The siblings that a restart of `record` takes along, in start order; `children` are all children in that order.

    Not those that an operator terminated, that are parked or that do not stop: a sibling's crash does not undo an
    operator's decision.
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return []
        case Strategy.ONE_FOR_ALL:
            affected = [other for other in children if other is not record]
        case Strategy.REST_FOR_ONE:
            affected = children[children.index(record) + 1 :]
    out = (ChildState.PARKED, ChildState.UNSTOPPED)
    return [other for other in affected if other.desired is DesiredState.UP and other.state not in out]


class ChildOutcome:
    """Decides what follows the end of a child, and does it, inside the supervisor's control loop."""

    def __init__(
        self, supervisor: RunningSupervisor, tree_nursery: TreeNursery, emit: Emit, chance: Callable[[], float]
    ) -> None:
        self._supervisor = supervisor
        self._tree_nursery = tree_nursery
        self._emit = emit
        self._chance = chance
        self._window = IntensityWindow(supervisor.settings.intensity, supervisor.settings.period)

    def decide(self, record: ChildRecord, end: Exit, *, stopping: bool) -> Decision:
        """What follows this end. A restart is counted; one too many becomes PARK or GIVE_UP."""
        flags = self._supervisor.settings
        decision = decide(record, end, stopping=stopping, dynamic=flags.dynamic, spawned=flags.spawned)
        return self.count_attempt(record) if decision is Decision.RESTART else decision

    def count_attempt(self, record: ChildRecord) -> Decision:
        """Count a restart attempt against the child or the supervisor. Returns PARK or GIVE_UP if that exceeds the limit.

        The restart of a child that was killed on purpose is not counted; a repair was counted when the child was killed.
        """
        if record.spec.give_up is GiveUp.NEVER:
            return Decision.RESTART
        parks = record.spec.give_up is GiveUp.PARK
        allowed = record.repair_allowed
        if allowed is None:
            allowed = (record.own_attempts if parks else self._window).attempt(trio.current_time())
        if allowed:
            return Decision.RESTART
        return Decision.PARK if parks else Decision.GIVE_UP

    def apply(self, record: ChildRecord, end: Exit, decision: Decision) -> None:
        """Do what was decided. The caller schedules the child anew; its siblings that go with it are scheduled here."""
        now = trio.current_time()
        down = ChildState.UNSTOPPED if record.unstopped_runs else ChildState.DOWN
        unasked = record.desired is DesiredState.UP and not record.stops_for_group
        match decision:
            case Decision.RESTART:
                self._restart(record, end, now)
                return
            case Decision.RESTART_WITH_GROUP:
                record.stops_for_group = False
                record.set_state(ChildState.RESTARTING, now)
                return
            case Decision.SHUT_DOWN_TREE:
                record.set_state(down, now)
                self._shut_down_tree(record, end)
            case Decision.GIVE_UP:
                record.set_state(down, now)
                self._give_up(record, end)
            case Decision.PARK:
                self._park(record, end, now)
            case Decision.REFUSE_START:
                record.set_state(down, now, end.summary)
                self._refuse_start(record, end)
            case Decision.STOPPED | Decision.STAY_DOWN | Decision.FORGET:
                record.set_state(down, now, end.summary if record.unstopped_runs else "")
                if not self._supervisor.stopping or decision is Decision.FORGET:
                    self._supervisor.hooks.tell_final(record, self._why_final(record, end))
        record.stops_for_group = record.starts_in_turn = False
        if end.reason is ExitReason.IGNORED:
            record.has_served = True
        self._answer_callers(record, end)
        if decision is Decision.FORGET or (record.desired is DesiredState.GONE and not self._supervisor.stopping):
            self._supervisor.forget(record)
        if unasked and decision in (Decision.STAY_DOWN, Decision.FORGET) and end.reason is not ExitReason.IGNORED:
            self._check_auto_shutdown(record)

    def _why_final(self, record: ChildRecord, end: Exit) -> str:
        if record.desired is not DesiredState.UP:
            return "terminated"
        return f"{end.reason.value}: {end.summary}" if end.summary else end.reason.value

    def _restart(self, record: ChildRecord, end: Exit, now: float) -> None:
        record.restarts += 1
        wait = delay(record.spec.backoff, record.restarts, self._chance())
        strategy = self._supervisor.settings.strategy
        record.await_restart(now, not_before=now + wait, in_turn=strategy is not Strategy.ONE_FOR_ONE)
        group = taken_along(strategy, record, list(self._supervisor.children.values())) if record.starts_in_turn else []
        for other in group:
            other.starts_in_turn = True
            other.not_before = max(other.not_before, record.not_before)
            if other.is_alive:
                other.stops_for_group = True
                other.reason = f"{record.name} {end.reason.value}"
            elif other.state not in PENDING:
                other.set_state(ChildState.RESTARTING, now)
            self._supervisor.schedule(other)
        self._emit(
            ChildRestarting(
                actor=record.name,
                supervisor=self._supervisor.name,
                restart=record.restarts,
                delay=wait,
                group=tuple(other.name for other in group),
            )
        )

    def _park(self, record: ChildRecord, end: Exit, now: float) -> None:
        if record.unstopped_runs:
            reason = "it ignores cancellation; nothing is started beside it"
            record.set_state(ChildState.UNSTOPPED, now, reason)
        else:
            window, what = (record.own_attempts, "restarts")
            if record.repair_allowed is False and record.repairs is not None:
                window, what = record.repairs, "repairs"
            reason = f"more than {window.intensity} {what} within {window.period:g} s; its last end: {end.summary}"
            record.set_state(ChildState.PARKED, now, reason)
        self._supervisor.hooks.tell_parked(record, reason)

    def _refuse_start(self, record: ChildRecord, end: Exit) -> None:
        failure = ChildStartFailed(f"{record.name} did not start: {end.summary}")
        failure.__cause__ = end.error
        if record.start_reply is None:
            # What is no Exception would end more than the tree on its way out.
            error = end.error if isinstance(end.error, Exception) else failure
            self._supervisor.shut_down(f"{record.name} did not start", error=error)
        else:
            record.start_reply.fail(failure)
            record.start_reply = None
            record.desired = DesiredState.GONE if record.forget_if_start_fails else DesiredState.DOWN
            self._supervisor.hooks.tell_final(record, str(failure))

    def _give_up(self, record: ChildRecord, end: Exit) -> None:
        now = trio.current_time()
        error: EndedInOrder
        if record.repair_allowed is False and record.repairs is not None:
            repairs = record.repairs.count(now)
            error = RepairIntensityExceeded(
                self._supervisor.name, record.name, repairs, record.repairs.period, end.summary
            )
        else:
            count = self._window.count(now)
            error = RestartIntensityExceeded(
                self._supervisor.name, record.name, count, self._supervisor.settings.period, end.summary
            )
        self._emit(SupervisorGaveUp(actor=self._supervisor.name, child=record.name, reason=str(error)))
        self._supervisor.shut_down(f"it gave up because of {record.name}", error=error)

    def _shut_down_tree(self, record: ChildRecord, end: Exit) -> None:
        error = fatal_in(end.error)
        assert error is not None, "decided on it"
        self._tree_nursery.report_fatal(error)
        record.desired = DesiredState.DOWN
        if record.start_reply is not None:
            record.start_reply.fail(error)
            record.start_reply = None

    def _check_auto_shutdown(self, record: ChildRecord) -> None:
        if self._supervisor.stopping or not record.spec.significant:
            return
        others = [other for other in self._supervisor.children.values() if other is not record]
        if ends_supervisor(self._supervisor.settings.auto_shutdown, record, others):
            self._supervisor.shut_down(f"its significant child {record.name} ended")

    def _answer_callers(self, record: ChildRecord, end: Exit) -> None:
        if record.start_reply is not None:
            if end.reason is ExitReason.IGNORED:
                record.start_reply.resolve(None)
            else:
                record.start_reply.fail(ChildStartFailed(f"{record.name} was stopped while it started"))
            record.start_reply = None
        replies, record.stop_replies = record.stop_replies, []
        for reply in replies:
            if record.unstopped_runs:
                reply.fail(ChildrenUnstopped(self._supervisor.name, record.reports))
            else:
                reply.resolve(None)
