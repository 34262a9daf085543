"""Administrative calls: which and count, start, terminate, restart, delete and kill a child.

Each answers at once or returns the Reply that its caller waits for; none waits itself, whatever the children are doing.
"""

from __future__ import annotations

import difflib

import trio

from runtime.child import Restart
from runtime.restart_limits import IntensityWindow
from runtime.supervision.child_run import ChildrenUnstopped
from runtime.supervision.children import (
    PENDING,
    ChildCounts,
    ChildInfo,
    ChildRecord,
    ChildState,
    DesiredState,
    PendingReply,
)
from runtime.supervision.control_loop import ControlLoop
from runtime.supervision.errors import AdministrationError, ChildStartFailed, RefusalReason


def which(life: ControlLoop) -> tuple[ChildInfo, ...]:
    """All children, in start order."""
    return tuple(slot.info() for slot in life.slots.values())


def count(life: ControlLoop) -> ChildCounts:
    """How many children there are and live."""
    slots = list(life.slots.values())
    supervisors = sum(slot.spec.kind == "supervisor" for slot in slots)
    active = sum(slot.alive and slot.state is not ChildState.STARTING for slot in slots)
    return ChildCounts(specs=len(slots), active=active, supervisors=supervisors, workers=len(slots) - supervisors)


def start(life: ControlLoop, slot: ChildRecord) -> PendingReply[int]:
    """Add a child at the end of the start order and start it; if that fails, it is not kept."""
    refuse_start(life, slot.name)
    slot.tentative = True
    slot.enter(ChildState.WAITING, trio.current_time())
    slot.start_reply = reply = PendingReply[int]()
    life.slots.add(slot)
    life.wake()
    return reply


def refuse_start(life: ControlLoop, name: str) -> None:
    """Raises AdministrationError if a child of this name could not be added now."""
    _refuse_while_stopping(life, name)
    present = life.slots.get(name)
    if present is not None:
        listed = present.state in (ChildState.DOWN, ChildState.PARKED)
        answer = RefusalReason.ALREADY_PRESENT if listed else RefusalReason.ALREADY_STARTED
        raise AdministrationError(answer, life.name, name, f"{name} is {_state(present)}")


def restart(life: ControlLoop, name: str) -> PendingReply[int]:
    """Start a child that is down or parked; if that fails, it stays down."""
    slot = _find(life, name)
    _refuse_dynamic(life, name, "a child of a template is started with start_child")
    _refuse_while_stopping(life, name)
    _refuse_unless_down(life, slot)
    slot.goal = DesiredState.UP
    slot.proven = False
    slot.restarts = 0
    slot.not_before = 0.0
    slot.window.clear()
    slot.repairs = None
    slot.enter(ChildState.WAITING, trio.current_time())
    slot.start_reply = reply = PendingReply[int]()
    life.wake()
    return reply


def terminate(life: ControlLoop, name: str, *, keep: bool = False) -> PendingReply[None]:
    """Stop a child by its ladder and keep it down; a pending restart is called off.

    Temporary children are forgotten, unless `keep`.
    """
    slot = _find(life, name)
    reply = PendingReply[None]()
    forgotten = slot.tentative or life.settings.dynamic or (_is_temporary(slot) and not keep)
    slot.goal = DesiredState.GONE if forgotten else DesiredState.DOWN
    if slot.alive:
        slot.stop_replies.append(reply)
        life.wake()
    elif slot.zombies:
        reply.fail(ChildrenUnstopped(life.name, slot.reports))
    else:
        _put_down(life, slot)
        reply.resolve(None)
    return reply


def delete(life: ControlLoop, name: str) -> None:
    """Forget a child that is down or parked."""
    slot = _find(life, name)
    _refuse_dynamic(life, name, "a child of a template is forgotten when it ends")
    _refuse_unless_down(life, slot)
    life.hooks.finish(slot, "deleted")
    life.forget(slot)
    life.wake()


def kill(life: ControlLoop, name: str, reason: str, *, counts: bool = True) -> None:
    """Interrupt a child now; its restart policy decides what follows, unless it is being stopped anyway.

    The restart that follows is an attempt if it `counts`.
    """
    slot = _find(life, name)
    if slot.alive:
        life.control.cancel(slot, reason)
        if not counts and slot.repair_allowed is None:
            slot.repair_allowed = True
        life.wake()
    elif slot.state is ChildState.RESTARTING:
        raise AdministrationError(RefusalReason.RESTARTING, life.name, name, f"{name} is down and will be started")
    elif not slot.zombies:
        raise AdministrationError(RefusalReason.NOT_RUNNING, life.name, name, f"{name} is {_state(slot)}")


def repair(life: ControlLoop, name: str, reason: str, *, intensity: int, period: float) -> None:
    """Kill a child that does not move; the restart that follows is counted among its repairs, not as an attempt."""
    slot = _find(life, name)
    kill(life, name, reason)
    if slot.alive:
        window = slot.repairs = slot.repairs or IntensityWindow(intensity, period)
        window.intensity, window.period = intensity, period
        slot.repair_allowed = window.attempt(trio.current_time())


def _put_down(life: ControlLoop, slot: ChildRecord) -> None:
    now = trio.current_time()
    if slot.state in PENDING or slot.state is ChildState.PARKED:
        slot.enter(ChildState.DOWN, now)
        slot.in_group = False
        life.hooks.finish(slot, "terminated")
    if slot.start_reply is not None:
        slot.start_reply.fail(ChildStartFailed(f"{slot.name} was terminated before it started"))
        slot.start_reply = None
    if slot.goal is DesiredState.GONE:
        life.forget(slot)
    life.wake()


def _find(life: ControlLoop, name: str) -> ChildRecord:
    slot = life.slots.get(name)
    if slot is None:
        nearest = difflib.get_close_matches(name, life.slots, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise AdministrationError(RefusalReason.NOT_FOUND, life.name, name, f"there is no child {name}{hint}")
    return slot


def _refuse_dynamic(life: ControlLoop, name: str, explanation: str) -> None:
    if life.settings.dynamic:
        raise AdministrationError(RefusalReason.SIMPLE_ONE_FOR_ONE, life.name, name, explanation)


def _refuse_while_stopping(life: ControlLoop, name: str) -> None:
    if life.stopping:
        raise AdministrationError(RefusalReason.SHUTTING_DOWN, life.name, name, "it stops and starts nothing any more")


def _refuse_unless_down(life: ControlLoop, slot: ChildRecord) -> None:
    if slot.state in (ChildState.DOWN, ChildState.PARKED) and not slot.zombies:
        return
    coming_back = slot.state is ChildState.RESTARTING or (slot.state is ChildState.STARTING and slot.proven)
    answer = RefusalReason.RESTARTING if coming_back else RefusalReason.RUNNING
    raise AdministrationError(answer, life.name, slot.name, f"{slot.name} is {_state(slot)}; terminate it first")


def _state(slot: ChildRecord) -> str:
    seconds = trio.current_time() - slot.since
    return f"{slot.state.value} since {seconds:.1f} s"


def _is_temporary(slot: ChildRecord) -> bool:
    return slot.spec.restart is Restart.TEMPORARY
