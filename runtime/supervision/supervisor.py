"""Supervisors: they start children in order, restart what ends against the rules, and stop everything in reverse.

A supervisor is a Child itself, so supervisors nest. The semantics are OTP's (`supervisor.erl`) plus backoff, parking,
needs and a stop ladder that ends; each deviation has its record in docs/adr/01xx.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Generic, ParamSpec

import trio

from runtime.child import IDLE, Activity, AutoShutdown, ChecksItself, ChildSpec, Exit, StopReason, Strategy
from runtime.core.spawned import current_spawner
from runtime.error_text import error_text
from runtime.errors import unwrap_group
from runtime.events import Event
from runtime.log.logs import log_unheard
from runtime.restart_limits import IntensityWindow
from runtime.supervision import administration
from runtime.supervision.child_run import (
    ChildrenUnstopped,
    EndedInOrder,
    TreeNursery,
    current_tree_nursery,
    open_tree_nursery,
)
from runtime.supervision.children import ChildCounts, ChildInfo, ChildRecord, ChildState
from runtime.supervision.control_loop import ControlLoop
from runtime.supervision.errors import (
    AdministrationError,
    ChildStartFailed,
    RefusalReason,
    RepairIntensityExceeded,
    RestartIntensityExceeded,
    SpecError,
)
from runtime.supervision.outcome import ChildHooks, SupervisorFlags
from runtime.supervision.spec_checks import check_combination, check_needs, start_order
from runtime.supervision.stop_ladder import Unstopped

__all__ = [
    "AdministrationError",
    "ChildCounts",
    "ChildInfo",
    "ChildStartFailed",
    "ChildState",
    "ChildrenUnstopped",
    "DynamicSupervisor",
    "EndedInOrder",
    "RefusalReason",
    "RepairIntensityExceeded",
    "RestartIntensityExceeded",
    "SpecError",
    "Supervisor",
    "SupervisorFlags",
    "TreeNursery",
    "Unstopped",
    "open_tree_nursery",
]

P = ParamSpec("P")


inherited_emit: ContextVar[Callable[[Event], None] | None] = ContextVar("atlasinherited_emit", default=None)
"""What the supervisors below report to, unless they were given something of their own."""


class _SupervisorBase:
    """All of a supervisor but the way a child is added."""

    def __init__(
        self,
        name: str,
        specs: Sequence[ChildSpec],
        settings: SupervisorFlags,
        *,
        emit: Callable[[Event], None] | None,
        chance: Callable[[], float],
    ) -> None:
        self.name = name
        self.settings = settings
        self._given_emit = emit
        self._report = emit if emit is not None else log_unheard
        self._chance = chance
        self._hooks = ChildHooks(name, self._emit)
        for spec in specs:
            check_combination(spec, settings.strategy, settings.auto_shutdown)
        self._loop: ControlLoop | None = None
        self._static = {spec.name: self._make_record(spec, static=True) for spec in start_order(specs)}
        self._highest_forgotten = 0
        self._stop_before_run: StopReason | None = None
        self._unstopped: tuple[Unstopped, ...] = ()

    def _emit(self, event: Event) -> None:
        """To its own `emit`, else to the one of the supervisor above it, else to the log."""
        self._report(event)

    def _forgotten(self, record: ChildRecord) -> None:
        """A child is not listed any more; for a supervisor that keeps something of its children."""

    def _make_record(self, spec: ChildSpec, *, static: bool) -> ChildRecord:
        child = spec.start()
        if not callable(getattr(child, "run", None)):
            raise SpecError(f"the spec {spec.name!r} made no child: its start returned {type(child).__name__}")
        if child.name != spec.name:
            raise SpecError(f"the spec {spec.name!r} made a child named {child.name!r}; the names must be the same")
        if static and isinstance(child, ChecksItself):
            try:
                child.check()
            except TypeError as error:
                raise SpecError(f"the spec {spec.name!r} is of no use: {error}") from error
        window = IntensityWindow(self.settings.intensity, self.settings.period)
        # A child of this name may have been forgotten; its numbers are not used again.
        number = self._loop.highest_number_forgotten if self._loop is not None else 0
        return ChildRecord(spec=spec, child=child, own_attempts=window, static=static, incarnation=number)

    # As a child

    async def run(
        self,
        incarnation: int = 1,  # the protocol's signature; its children have numbers of their own
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start all children in order, report `started()`, look after them; return when asked to stop, in order.

        Raises what made the first start of a child fail; a child's `errors.Fatal`; RestartIntensityExceeded; and
        ChildrenUnstopped if nothing else. A cancellation from outside becomes an ordered shutdown within
        `shutdown_budget`, and then goes on as a cancellation; a nested supervisor that is killed kills its children.

        The outermost supervisor opens the tree's nursery unless it is run inside `open_tree_nursery()`.
        """
        tree_nursery = current_tree_nursery()
        if tree_nursery is not None:
            await self._run_on(tree_nursery, task_status)
            return
        async with open_tree_nursery() as tree_nursery:
            await self._run_on(tree_nursery, task_status)

    async def _run_on(self, tree_nursery: TreeNursery, task_status: trio.TaskStatus[None]) -> None:
        if self._loop is not None:
            raise RuntimeError(f"supervisor {self.name} is running already")
        self._report = self._given_emit or inherited_emit.get() or log_unheard
        # The children's tasks begin in this context.
        token = inherited_emit.set(self._report)
        from runtime.supervision.spawning import TREE_SPAWNER  # it is built on this module

        spawner_token = current_spawner.set(TREE_SPAWNER)
        try:
            await self._run_loop(tree_nursery, task_status)
        finally:
            current_spawner.reset(spawner_token)
            inherited_emit.reset(token)

    async def _run_loop(self, tree_nursery: TreeNursery, task_status: trio.TaskStatus[None]) -> None:
        now = trio.current_time()
        for record in self._static.values():
            record.reset(now)
        loop = ControlLoop(
            self.name,
            self.settings,
            self._static,
            tree_nursery,
            emit=self._emit,
            chance=self._chance,
            on_started=task_status.started,
            on_forgotten=self._forgotten,
        )
        loop.highest_number_forgotten = self._highest_forgotten
        self._unstopped = ()
        self._loop = loop
        is_root = tree_nursery.on_fatal is None
        try:
            if is_root:
                tree_nursery.on_fatal = lambda error: loop.shut_down(error_text(error), error=error)
                tree_nursery.root = self
            if (reason := self._stop_before_run) is not None:
                loop.shut_down(reason.detail or reason.cause.value, budget=reason.deadline)
            with _unwrapped():
                async with trio.open_nursery() as outer:
                    outer.start_soon(self._turn_cancellation_into_shutdown, loop, is_root)
                    with trio.CancelScope(shield=True):
                        await loop.run()
                    outer.cancel_scope.cancel()
        finally:
            self._loop = None
            self._stop_before_run = None
            self._highest_forgotten = max(
                [loop.highest_number_forgotten, *(s.incarnation for s in loop.children.values())]
            )
            self._unstopped = tuple(loop.unstopped)
            if is_root:
                tree_nursery.on_fatal = tree_nursery.root = None
            for record in loop.children.values():
                if is_root or not record.static:
                    self._hooks.tell_final(record, f"supervisor {self.name} stopped")
        unstopped = ChildrenUnstopped(self.name, loop.unstopped, loop.unstopped_runs) if loop.unstopped else None
        if unstopped is not None and (loop.error is None or not is_root):
            raise unstopped from loop.error
        if loop.error is not None:
            raise loop.error
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _turn_cancellation_into_shutdown(self, loop: ControlLoop, is_root: bool) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            # Not raised on: `_run_on` checks for the cancellation again once all children are down.
            if self._loop is loop and not loop.ended:
                loop.shut_down("cancelled from outside", kill=not is_root)

    def request_stop(self, reason: StopReason) -> None:
        """Stop all children in reverse start order and end, before `reason.deadline`. Repeating it may shorten."""
        if self._loop is None:
            self._stop_before_run = reason
        else:
            self._loop.shut_down(reason.detail or reason.cause.value, budget=reason.deadline)

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the protocol's signature
        """Forget a request to stop that came too late; its children were told when they ended."""
        self._stop_before_run = None

    def on_decided(self, *, restarts: bool) -> None:
        """Its children share its fate; those that had ended for good keep theirs."""
        for record in self._static.values():
            if not record.told_final:
                self._hooks.tell_decided(record, restarts=restarts)

    def on_parked(self, reason: str) -> None:
        """Its children stay down with it."""
        for record in self._static.values():
            if not record.told_final:
                self._hooks.call(record, "on_parked", functools.partial(record.child.on_parked, reason))

    def on_final(self, reason: str) -> None:
        """Its children will not come back either."""
        for record in self._static.values():
            self._hooks.tell_final(record, reason)

    def last_activity(self) -> Activity:
        """A supervisor handles no messages."""
        return IDLE

    # Administration

    @property
    def unstopped(self) -> tuple[Unstopped, ...]:
        """The children that could not be stopped: so far while it runs, all of them after its end."""
        if self._loop is None:
            return self._unstopped
        return tuple(report for record in self._loop.children.values() for report in record.reports)

    def which_children(self) -> tuple[ChildInfo, ...]:
        """All children in start order; () while the supervisor is down."""
        return administration.which(self._loop) if self._loop is not None else ()

    def find_child(self, name: str) -> ChildInfo | None:
        """One child; None if it is not listed, and while the supervisor is down."""
        record = None if self._loop is None else self._loop.children.get(name)
        return None if record is None else record.info()

    def count_children(self) -> ChildCounts:
        """How many children there are and live; zeros while the supervisor is down."""
        return administration.count(self._loop) if self._loop is not None else ChildCounts(0, 0, 0, 0)

    async def terminate_child(self, name: str, *, keep: bool = False) -> None:
        """Stop a child by its ladder, or call off its restart; it stays listed and down, unless it is temporary.

        With `keep` a temporary child stays listed as well, for the restart_child that follows. Returns when it is down.
        Raises AdministrationError not_found, ChildrenUnstopped if it does not stop.
        """
        await administration.terminate(self._running(name), name, keep=keep).wait()

    async def restart_child(self, name: str) -> int | None:
        """Start a child that is down or parked; returns its incarnation once it serves, None if it declined to run.

        Raises AdministrationError running, restarting, not_found, shutting_down; ChildStartFailed if the start fails,
        and the child stays down.
        """
        return await administration.restart(self._running(name), name).wait()

    def delete_child(self, name: str) -> None:
        """Forget a child that is down or parked. Raises AdministrationError running, restarting, not_found."""
        administration.delete(self._running(name), name)

    def kill_child(self, name: str, reason: str, *, counts: bool = True) -> None:
        """Interrupt a child at its next checkpoint; its Exit says KILLED and its restart policy treats it as a crash.

        A starting child fails its start by it; a stopping one stops at once and is not restarted because of it; a
        child that waits for its restart has nothing to kill (AdministrationError restarting). Raises not_found and
        not_running as well. With `counts=False` the restart that follows is no restart attempt: for a kill on purpose.
        """
        administration.kill(self._running(name), name, reason, counts=counts)

    def repair_child(self, name: str, reason: str, *, intensity: int, period: float) -> None:
        """Kill a child that does not move any more, so that its restart policy brings it back.

        That restart is no restart attempt: it is charged to the child's own repairs alone. More than `intensity` of them
        within `period` seconds are what too many attempts are: its `give_up` decides. Raises what kill_child raises.
        """
        administration.repair(self._running(name), name, reason, intensity=intensity, period=period)

    def _running(self, child: str) -> ControlLoop:
        if self._loop is None:
            raise AdministrationError(
                RefusalReason.NOT_RUNNING, self.name, child, f"supervisor {self.name} is not running"
            )
        return self._loop


class Supervisor(_SupervisorBase):
    """A supervisor of declared children. `period` and `shutdown_budget` in seconds.

    More than `intensity` restart attempts within `period` (a failed start is one) end it, unless the child's `give_up`
    says otherwise: children with give_up = park count alone, those with never do not count.
    `emit` gets every event, crash reports among them. Without one they go where those of the supervisor above go, and of
    the outermost into the log: this process's, or the stdlib's `logging` where that was not started.
    `chance` gives numbers in [0, 1) for the jitter.

    Raises SpecError for specs that contradict each other and ValueError for an impossible intensity or period.
    """

    def __init__(
        self,
        name: str,
        specs: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = 5,
        period: float = 60.0,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        *,
        shutdown_budget: float = float("inf"),
        emit: Callable[[Event], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        settings = SupervisorFlags(strategy, intensity, period, auto_shutdown, shutdown_budget)
        super().__init__(name, specs, settings, emit=emit, chance=chance)

    async def start_child(self, spec: ChildSpec) -> int | None:
        """Add a child at the end of the start order and start it.

        Returns its incarnation once it serves, None if it declined to run (it is then listed, unless temporary).
        Raises AdministrationError already_present, already_started, shutting_down; SpecError; ChildStartFailed if the
        start fails, and the spec is not kept. A caller that is cancelled does not stop the start.
        """
        loop = self._running(spec.name)
        check_combination(spec, self.settings.strategy, self.settings.auto_shutdown)
        check_needs(spec, loop.children)
        administration.refuse_start(loop, spec.name)
        return await administration.start(loop, self._make_record(spec, static=False)).wait()


class DynamicSupervisor(_SupervisorBase, Generic[P]):
    """A supervisor of any number of children made from one template: OTP's simple_one_for_one.

    `template(*args)` makes the spec of one child, with a name that no living child has. Children are forgotten when
    they end for good and are stopped all at once; restart_child and delete_child answer simple_one_for_one.
    """

    def __init__(
        self,
        name: str,
        template: Callable[P, ChildSpec],
        intensity: int = 5,
        period: float = 60.0,
        *,
        shutdown_budget: float = float("inf"),
        emit: Callable[[Event], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        settings = SupervisorFlags(intensity=intensity, period=period, shutdown_budget=shutdown_budget, dynamic=True)
        super().__init__(name, (), settings, emit=emit, chance=chance)
        self._template = template

    async def start_child(self, *args: P.args, **kwargs: P.kwargs) -> int | None:
        """Start a child from the template; returns its incarnation once it serves, None if it declined to run.

        Raises AdministrationError already_started, shutting_down; ChildStartFailed if the start fails.
        """
        spec = self._template(*args, **kwargs)
        loop = self._running(spec.name)
        check_combination(spec, self.settings.strategy, self.settings.auto_shutdown)
        check_needs(spec, loop.children)
        administration.refuse_start(loop, spec.name)
        return await administration.start(loop, self._make_record(spec, static=False)).wait()


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Let the one error of a block out of the group that a nursery puts around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrap_group(group)
        if error is group:
            raise
        raise error from None
