"""What the end of a child means. Pure."""

from __future__ import annotations

from runtime.child import AutoShutdown, Exit, ExitReason, Restart, Strategy
from runtime.incarnation import fatal_in
from runtime.supervision.errors import ChildrenUnstopped, EndedInOrder
from runtime.supervision.slot import ON_ITS_WAY_UP, ChildState, Goal, Slot
from runtime.supervision_events import Decision


def decide(slot: Slot, end: Exit, *, stopping: bool, dynamic: bool) -> Decision:
    """What follows this end, before any limit is counted: RESTART still has to pass the restart intensity."""
    if fatal_in(end.error) is not None:
        return Decision.SHUT_DOWN_TREE
    forgotten = dynamic or slot.spec.restart is Restart.TEMPORARY
    if stopping:
        return Decision.STOPPED
    if slot.goal is not Goal.UP:
        return Decision.FORGET if dynamic or slot.goal is Goal.GONE else Decision.STOPPED
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


def ends_supervisor(mode: AutoShutdown, ended: Slot, slots: list[Slot]) -> bool:
    """Whether the final end of `ended`, by itself, shuts its supervisor down; `slots` are all children without it."""
    if not ended.spec.significant:
        return False
    match mode:
        case AutoShutdown.NEVER:
            return False
        case AutoShutdown.ANY_SIGNIFICANT:
            return True
        case AutoShutdown.ALL_SIGNIFICANT:
            return not any(slot.spec.significant and (slot.alive or slot.state in ON_ITS_WAY_UP) for slot in slots)


def taken_along(strategy: Strategy, slot: Slot, slots: list[Slot]) -> list[Slot]:
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
    return [other for other in affected if other.goal is Goal.UP and other.state not in out]
