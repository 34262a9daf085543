"""Administrative calls: which and count, start, terminate, restart, delete and kill a child.

Each answers at once or returns the Reply that its caller waits for; none waits itself, whatever the children are doing.
"""

from __future__ import annotations

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
from runtime.wording import nearest


def which(loop: ControlLoop) -> tuple[ChildInfo, ...]:
    """All children, in start order."""
    return tuple(record.info() for record in loop.children.values())


def count(loop: ControlLoop) -> ChildCounts:
    """How many children there are and live."""
    children = list(loop.children.values())
    supervisors = sum(record.spec.kind == "supervisor" for record in children)
    active = sum(record.is_alive and record.state is not ChildState.STARTING for record in children)
    return ChildCounts(specs=len(children), active=active, supervisors=supervisors, workers=len(children) - supervisors)


def start(loop: ControlLoop, record: ChildRecord) -> PendingReply[int]:
    """Add a child at the end of the start order and start it; if that fails, it is not kept."""
    refuse_start(loop, record.name)
    record.forget_if_start_fails = True
    record.set_state(ChildState.WAITING, trio.current_time())
    record.start_reply = reply = PendingReply[int]()
    loop.children.add(record)
    loop.wake()
    return reply


def refuse_start(loop: ControlLoop, name: str) -> None:
    """Raises AdministrationError if a child of this name could not be added now."""
    _refuse_while_stopping(loop, name)
    present = loop.children.get(name)
    if present is not None:
        listed = present.state in (ChildState.DOWN, ChildState.PARKED)
        answer = RefusalReason.ALREADY_PRESENT if listed else RefusalReason.ALREADY_STARTED
        raise AdministrationError(answer, loop.name, name, f"{name} is {_state(present)}")


def restart(loop: ControlLoop, name: str) -> PendingReply[int]:
    """Start a child that is down or parked; if that fails, it stays down."""
    record = _find(loop, name)
    _refuse_dynamic(loop, name, "a child of a template is started with start_child")
    _refuse_while_stopping(loop, name)
    _refuse_unless_down(loop, record)
    record.desired = DesiredState.UP
    record.has_served = False
    record.restarts = 0
    record.not_before = 0.0
    record.own_attempts.clear()
    record.repairs = None
    record.set_state(ChildState.WAITING, trio.current_time())
    record.start_reply = reply = PendingReply[int]()
    loop.wake()
    return reply


def terminate(loop: ControlLoop, name: str, *, keep: bool = False, forget: bool = False) -> PendingReply[None]:
    """Stop a child by its ladder and keep it down; a pending restart is called off.

    Temporary children are forgotten, unless `keep`; others with `forget`.
    """
    record = _find(loop, name)
    reply = PendingReply[None]()
    forgotten = forget or record.forget_if_start_fails or loop.settings.dynamic or (_is_temporary(record) and not keep)
    record.desired = DesiredState.GONE if forgotten else DesiredState.DOWN
    if record.is_alive:
        record.stop_replies.append(reply)
        loop.wake()
    elif record.unstopped_runs:
        reply.fail(ChildrenUnstopped(loop.name, record.reports))
    else:
        _keep_down(loop, record)
        reply.resolve(None)
    return reply


def delete(loop: ControlLoop, name: str) -> None:
    """Forget a child that is down or parked."""
    record = _find(loop, name)
    _refuse_dynamic(loop, name, "a child of a template is forgotten when it ends")
    _refuse_unless_down(loop, record)
    loop.hooks.tell_final(record, "deleted")
    loop.forget(record)
    loop.wake()


def kill(loop: ControlLoop, name: str, reason: str, *, counts: bool = True) -> None:
    """Interrupt a child now; its restart policy decides what follows, unless it is being stopped anyway.

    The restart that follows is an attempt if it `counts`.
    """
    record = _find(loop, name)
    if record.is_alive:
        loop.control.cancel(record, reason)
        if not counts and record.repair_allowed is None:
            record.repair_allowed = True
        loop.wake()
    elif record.state is ChildState.RESTARTING:
        raise AdministrationError(RefusalReason.RESTARTING, loop.name, name, f"{name} is down and will be started")
    elif not record.unstopped_runs:
        raise AdministrationError(RefusalReason.NOT_RUNNING, loop.name, name, f"{name} is {_state(record)}")


def repair(loop: ControlLoop, name: str, reason: str, *, intensity: int, period: float) -> None:
    """Kill a child that does not move; the restart that follows is counted among its repairs, not as an attempt."""
    record = _find(loop, name)
    kill(loop, name, reason)
    if record.is_alive:
        window = record.repairs = record.repairs or IntensityWindow(intensity, period)
        window.intensity, window.period = intensity, period
        record.repair_allowed = window.attempt(trio.current_time())


def _keep_down(loop: ControlLoop, record: ChildRecord) -> None:
    now = trio.current_time()
    if record.state in PENDING or record.state is ChildState.PARKED:
        record.set_state(ChildState.DOWN, now)
        record.starts_in_turn = False
        loop.hooks.tell_final(record, "terminated")
    if record.start_reply is not None:
        record.start_reply.fail(ChildStartFailed(f"{record.name} was terminated before it started"))
        record.start_reply = None
    if record.desired is DesiredState.GONE:
        loop.forget(record)
    loop.wake()


def _find(loop: ControlLoop, name: str) -> ChildRecord:
    record = loop.children.get(name)
    if record is None:
        meant = nearest(name, loop.children)
        hint = f"; did you mean {meant}?" if meant else ""
        raise AdministrationError(RefusalReason.NOT_FOUND, loop.name, name, f"there is no child {name}{hint}")
    return record


def _refuse_dynamic(loop: ControlLoop, name: str, explanation: str) -> None:
    if loop.settings.dynamic:
        raise AdministrationError(RefusalReason.SIMPLE_ONE_FOR_ONE, loop.name, name, explanation)


def _refuse_while_stopping(loop: ControlLoop, name: str) -> None:
    if loop.stopping:
        raise AdministrationError(RefusalReason.SHUTTING_DOWN, loop.name, name, "it stops and starts nothing any more")


def _refuse_unless_down(loop: ControlLoop, record: ChildRecord) -> None:
    if record.state in (ChildState.DOWN, ChildState.PARKED) and not record.unstopped_runs:
        return
    coming_back = record.state is ChildState.RESTARTING or (record.state is ChildState.STARTING and record.has_served)
    answer = RefusalReason.RESTARTING if coming_back else RefusalReason.RUNNING
    raise AdministrationError(answer, loop.name, record.name, f"{record.name} is {_state(record)}; terminate it first")


def _state(record: ChildRecord) -> str:
    seconds = trio.current_time() - record.since
    return f"{record.state.value} since {seconds:.1f} s"


def _is_temporary(record: ChildRecord) -> bool:
    return record.spec.restart is Restart.TEMPORARY
