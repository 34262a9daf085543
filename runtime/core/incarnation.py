"""One incarnation of an actor: its instance, its hooks, its tasks, its timers and what it monitors."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeVar, TypeVarTuple

import attrs
import trio

from runtime.child import StopCause, StopReason
from runtime.core import beats
from runtime.core.actor import Actor
from runtime.core.ask import AskStage, CallContext, Deferred, PendingAsk, current_call_context
from runtime.core.checks import refuse_wrong_arguments
from runtime.core.context import Context
from runtime.core.message_loop import serve
from runtime.core.ref import AT_ONCE_PER_SECOND, Monitor, MonitorKind
from runtime.core.spawned import ChildSupervisor, current_spawner
from runtime.core.timers import Timers
from runtime.correlation import correlation_id, current_actor
from runtime.error_text import error_text, leaves
from runtime.errors import SpawnRefused, StillRunning
from runtime.events import Event
from runtime.message import Message, Request

if TYPE_CHECKING:
    from runtime.core.address import Address


@attrs.frozen
class StopCutOff(Event):
    """An actor's last words (`on_stop`) took longer than they may, and were interrupted."""

    level: ClassVar[int] = logging.WARNING

    incarnation: int
    took: float

    def line(self) -> str:
        """Whose, after how long, and which setting gives more time."""
        return (
            f"{self.actor} was cut off in its on_stop after {self.took:.1f} s (incarnation {self.incarnation}; setting "
            "shutdown, within the time that the whole stop may take)"
        )


class ActorTask:
    """A handle to a task started with `context.start_task`."""

    __slots__ = ("_done", "name", "scope")

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = trio.CancelScope()
        self._done = trio.Event()

    def cancel(self) -> None:
        """End it at its next checkpoint. That is not a crash. Harmless when it has ended."""
        self.scope.cancel(reason=f"task {self.name} was cancelled by its actor")

    @property
    def is_done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    async def wait(self) -> None:
        """Wait for its end. Never raises its error: a crash of the task is a crash of the actor."""
        await self._done.wait()

    def mark_done(self) -> None:
        """For the runtime: the task has ended."""
        self._done.set()


def was_asked_for(error: BaseException) -> bool:
    """Whether this is a cancellation that a scope around the calling task has asked for, on its way there.

    Any other Cancelled belongs to a scope that is closed, or to another task: somebody kept it and raised it again. Passed on,
    it would end what has not been cancelled: the nursery of the whole tree.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)) and _is_cancelled()
    return isinstance(error, trio.Cancelled) and _is_cancelled()


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf


_NEVER = (-math.inf, 0)

R = TypeVar("R")
Args = TypeVarTuple("Args")

CHILDRENS_SHARE: float = 0.5
"""How much of an actor's time to stop its children may use; the rest is for its own `on_stop`."""
TASKS_PATIENCE: float = 0.1
"""Seconds that asks which waited for a crashed actor wait on while its tasks end; by then most have, and more is known."""


class Incarnation:
    """Everything that dies with an incarnation. The address makes one for each call of `run`."""

    __slots__ = (
        "_at_once",
        "_children",
        "_monitors",
        "_scope",
        "_start_scope",
        "_stop_scope",
        "_subscriptions",
        "_tasks",
        "_tasks_ended",
        "actor",
        "address",
        "call",
        "current_ask",
        "deferred",
        "failed_task",
        "failure",
        "number",
        "stop_reason",
        "task",
        "timers",
    )

    def __init__(self, address: Address, number: int, actor: Actor) -> None:
        self.address = address
        self.number = number
        self.actor = actor
        self.call = CallContext(address, number, blocks_actor=True)
        self.timers = Timers()
        self.stop_reason: StopReason | None = None
        self.failure: BaseException | None = None
        self.failed_task: str | None = None
        """The task that the failure came from, if it was one."""
        self.current_ask: PendingAsk | None = None
        """The request being handled, unless what is handled was told."""
        self.deferred: Deferred[object] | None = None
        """Made by the handler that runs now."""
        self.task: trio.lowlevel.Task | None = None
        self._subscriptions: list[type[Message]] | None = None
        self._children: tuple[ChildSupervisor, ActorTask] | None = None
        """Once it has spawned: what supervises its children, and the task in which that runs."""
        self._monitors: list[Monitor] = []
        self._at_once = _NEVER
        self._scope = trio.CancelScope()
        self._tasks: dict[ActorTask, None] = {}
        self._tasks_ended: trio.Event | None = None
        self._start_scope: trio.CancelScope | None = None
        self._stop_scope: trio.CancelScope | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Run the hooks and the message loop to the end. Raises what the incarnation died of, once all its tasks have ended."""
        self.task = trio.lowlevel.current_task()
        call_token = current_call_context.set(self.call)
        actor_token = current_actor.set(self.address.name)
        # What it does from here on belongs to no request of the task that started it. To read a variable that was set is
        # several times as fast as to fall back to its default, and every tell reads it.
        correlation_id.set("")
        try:
            with self._scope:
                await self._noting_failure(self._run_hooks, task_status)
            if self.failure is None:
                # Outside of that scope: a task that crashes now does not interrupt it. A kill does.
                await self._noting_failure(self._say_last_words)
        finally:
            await self._end_tasks()
            current_actor.reset(actor_token)
            current_call_context.reset(call_token)
            self.task = None
            if isinstance(self.failure, StillRunning):
                # Also in the place of a cancellation: no other incarnation may begin beside what is left of this one.
                self._raise_failure()
        if self.failure is not None:
            self._raise_failure()

    def _raise_failure(self) -> NoReturn:
        assert self.failure is not None, "it has died of something"
        try:
            raise self.failure
        finally:
            self.failure = None  # its traceback holds this very frame

    async def _run_hooks(self, task_status: trio.TaskStatus[None]) -> None:
        actor, kind = self.actor, type(self.actor)
        actor.context = Context(self)
        self._show_handling("on_start")
        if self.number == 1:
            refuse_wrong_arguments(actor, self.address.name, self.address.stop_timeout)
        await actor.on_start()
        self.address.start_done(self)
        task_status.started()
        if kind.after_start is not Actor.after_start and self.stop_reason is None:
            self._show_handling("after_start")
            with trio.CancelScope() as self._start_scope:
                await actor.after_start()
            self._start_scope = None
        await serve(self)

    async def _say_last_words(self) -> None:
        actor = self.actor
        if self._children is not None:
            await self._stop_children(*self._children)
        if type(actor).on_stop is Actor.on_stop:
            return
        reason = self.stop_reason
        assert reason is not None, "the message loop ends when the actor is to stop"
        self._show_handling("on_stop")
        began = trio.current_time()
        limit = min(reason.deadline, began + self.address.stop_timeout)
        self._stop_scope = scope = trio.CancelScope(deadline=limit)
        try:
            with scope:
                await actor.on_stop(reason)
        finally:
            # Not caught here, though it was this limit, if a kill came at the same moment: as the end of the ladder does.
            if scope.cancelled_caught or (scope.cancel_called and sys.exc_info()[0] is trio.Cancelled):
                took = trio.current_time() - began
                self.address.services.events.emit(StopCutOff(self.address.name, self.number, took))

    async def _noting_failure(self, hook: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """What it raises, but for a cancellation that was asked for, is what the incarnation dies of; raised at its end."""
        try:
            await hook(*args)
        except BaseException as error:
            if was_asked_for(error):
                self.address.incarnation_failed(self, None)
                raise
            self.fail(error)

    def _show_handling(self, hook: str) -> None:
        """Show the hook as what is handled."""
        address = self.address
        address.handling = beats.current = (address.name, hook, address.read_clock())
        address.is_busy = True

    def fail(self, error: BaseException, task: str | None = None) -> None:
        """The incarnation dies of `error`, raised by its task of that name if there is one.

        What waits for it is told now, not when its tasks have ended.
        """
        if self.failure is None or isinstance(error, StillRunning):
            if self.failure is not None:
                error.__cause__ = self.failure
            self.failure = error
            self.failed_task = task
            self.address.incarnation_failed(self, error)
        self._scope.cancel(reason=f"{self.address.name} crashed")

    def stop(self, reason: StopReason) -> None:
        """End after the current message. A start that goes on after the handshake is cut short."""
        if self.stop_reason is None or reason.deadline < self.stop_reason.deadline:
            self.stop_reason = reason
            if self._stop_scope is not None:
                self._stop_scope.deadline = min(self._stop_scope.deadline, reason.deadline)
        if self._start_scope is not None:
            self._start_scope.cancel(reason="asked to stop while starting")

    def start_task(
        self,
        function: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        name: str | None,
        *,
        inherit_deadline: bool,
    ) -> ActorTask:
        """See Context.start_task."""
        if self.task is None:
            raise RuntimeError(f"{self.address.name!r} does not run yet or any more: it cannot start a task")
        task = ActorTask(name or getattr(function, "__name__", None) or type(function).__name__)
        deadline = math.inf
        if inherit_deadline and (caller := current_call_context.get()) is not None and caller.address is self.address:
            deadline = caller.deadline
        call = CallContext(self.address, self.number, blocks_actor=False, deadline=deadline)
        full_name = f"{self.address.name}/{task.name}"
        self._tasks[task] = None
        # An idle actor should not pay for a nursery, and one cannot be opened in the middle of a handler. So the tasks
        # hang in trio's own nursery and the promises of one are kept here: no exception leaves `_run_task`, and
        # `run` does not end before them.
        trio.lowlevel.spawn_system_task(
            self._run_task, task, call, function, args, name=full_name, context=contextvars.copy_context()
        )
        return task

    @trio.lowlevel.enable_ki_protection  # as for the run of a child
    async def _run_task(
        self, task: ActorTask, call: CallContext, function: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        current_call_context.set(call)
        current_actor.set(self.address.name)
        try:
            with task.scope:
                failpoints = self.address.services.failpoints
                if failpoints.enabled:
                    failpoints.visit(self.address.name, f"task:{task.name}")
                await function(*args)
        except BaseException as error:
            if was_asked_for(error):
                raise
            self.fail(error, task.name)  # a crash of the task is a crash of the actor; see start_task
        finally:
            del self._tasks[task]
            task.mark_done()
            if self._tasks_ended is not None and not self._tasks:
                self._tasks_ended.set()

    async def _end_tasks(self) -> None:
        if not self._tasks:
            return
        self._tasks_ended = trio.Event()
        for task in tuple(self._tasks):
            task.scope.cancel(reason=f"{self.address.name} has ended")
        with trio.CancelScope(shield=True):
            with trio.move_on_after(TASKS_PATIENCE):
                await self._tasks_ended.wait()
                return
            self.address.tasks_outlive_it()
            await self._tasks_ended.wait()

    def monitor(self, watched: Address, kind: MonitorKind) -> Monitor:
        """See Context.monitor."""
        monitor = Monitor(self.address, watched, kind)
        message = monitor.due_already()
        if message is None:
            self._monitors.append(monitor)
            monitor.watch()
        elif self._may_report_at_once():
            self.address.mailbox.put(message)
        else:
            self.timers.add(1.0, message)
        return monitor

    def _may_report_at_once(self) -> bool:
        """Not so after many times within a second: a handler that places a monitor for each report would handle nothing else."""
        second, count = self._at_once
        now = trio.current_time()
        if now - second >= 1.0:
            second, count = now, 0
        self._at_once = (second, count + 1)
        return count < AT_ONCE_PER_SECOND

    def subscribe(self, kind: type[Message]) -> None:
        """See Context.subscribe."""
        if self.actor.handlers.get(kind) is None:
            raise TypeError(
                f"{type(self.actor).__name__} has no handler for {kind.__name__}, which it subscribes to: what would be "
                "published could only be a dead letter"
            )
        self._subscriptions = self._subscriptions or []
        self._subscriptions.append(kind)
        self.address.services.topics.subscribe(kind, self.address)

    def defer(self, message: Request[R]) -> Deferred[R]:
        """See Context.defer."""
        ask = self.current_ask
        if ask is not None and ask.message is not message:
            raise RuntimeError(
                f"{self.address.name!r} can only defer the request it handles now, not another {type(message).__name__}"
            )
        deferred: Deferred[R] = Deferred(ask)
        if ask is not None:
            ask.stage = AskStage.DEFERRED
            self.deferred = deferred  # type: ignore[assignment]  # only compared by identity
        return deferred

    @property
    def has_tasks(self) -> bool:
        """Whether tasks of the actor run; that of its children's supervisor is one."""
        return bool(self._tasks)

    def children(self) -> ChildSupervisor:
        """What supervises the actors that this incarnation spawns; made at the first call.

        It runs as a task of the incarnation, so they end with it, and its end by itself (they crashed too often) is a crash.
        Raises SpawnRefused when the actor stops, or runs in no supervision tree.
        """
        if self._children is None:
            name = self.address.name
            if self.task is None or self.stop_reason is not None:
                raise SpawnRefused(f"{name!r} stops, or does not run yet: it can spawn no actor")
            # Of its own task: any other may be the one that calls.
            spawner = self.task.context.get(current_spawner)
            if spawner is None:
                raise SpawnRefused(f"{name!r} runs in no supervision tree: no supervisor is there for what it spawns")
            supervisor, task = spawner.for_children_of(self), ActorTask("children")
            call = CallContext(self.address, self.number, blocks_actor=False)
            context = self.task.context.copy()
            context.run(correlation_id.set, "")  # it serves no request of those under which it begins
            self._tasks[task] = None
            trio.lowlevel.spawn_system_task(
                self._run_task, task, call, supervisor.run, (), name=f"{name}/children", context=context
            )
            self._children = supervisor, task
        return self._children[0]

    async def _stop_children(self, supervisor: ChildSupervisor, task: ActorTask) -> None:
        """Let them stop in order, within half of the time, before the actor's own last words."""
        reason = self.stop_reason
        assert reason is not None, "the message loop ends when the actor is to stop"
        now = trio.current_time()
        limit = now + (reason.deadline - now) * CHILDRENS_SHARE
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN, f"{self.address.name} stops", limit))
        await task.wait()

    def discard(self) -> None:
        """Cancel its monitors: other actors keep nothing of this incarnation."""
        for monitor in self._monitors:
            monitor.cancel()
        self._monitors.clear()

        for kind in self._subscriptions or ():
            self.address.services.topics.unsubscribe(kind, self.address)

    def stack(self) -> list[str]:
        """Where the message loop stands, outermost first, as `file:line function`; empty when it does not run."""
        task = self.task
        if task is None:
            return []
        with contextlib.suppress(RuntimeError):
            return [
                f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in task.iter_await_frames()
            ]
        return []


def how_it_ended(run: Incarnation | None, error: BaseException | None) -> str:
    """For the errors of those whose requests it had seen: `crashed with …`, `was killed`, `was stopped`."""
    if error is not None:
        return f"crashed with {error_text(error)}"
    return "was killed" if run is None or run.stop_reason is None else "was stopped"
