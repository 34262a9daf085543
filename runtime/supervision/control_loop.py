"""One life of a supervisor: its control loop, and what it does about the end of a child."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Mapping

import attrs
import trio

from runtime.child import AutoShutdown, Exit, ExitReason, Restart, StopCause, Strategy
from runtime.supervision.child_run import ChildRun, TreeNursery, fatal_in, killed_in
from runtime.supervision.children import (
    PENDING,
    ChildIndex,
    ChildRecord,
    ChildState,
    DesiredState,
    next_starts,
    next_stops,
)
from runtime.supervision.errors import (
    AdministrationError,
    ChildrenUnstopped,
    RefusalReason,
)
from runtime.supervision.events import (
    ChildEnded,
    ChildEndedLate,
    ChildExited,
    ChildStarted,
    Decision,
    SupervisorStopped,
    SupervisorStopping,
)
from runtime.supervision.outcome import ChildOutcome, comes_back_late, decide
from runtime.supervision.start_stop import ChildHooks, Emit, StartStop
from runtime.supervision.stop_ladder import Unstopped


@attrs.frozen
class SupervisorFlags:
    """How a supervisor behaves."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 5
    period: float = 60.0
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    shutdown_budget: float = math.inf
    dynamic: bool = False


class Phase(enum.Enum):
    """Where a supervisor stands."""

    BOOTING = enum.auto()
    SERVING = enum.auto()
    STOPPING = enum.auto()


class ControlLoop:
    """The state of a running supervisor. Only its control loop changes it, apart from administrative calls, which
    do so synchronously and wake the loop.

    The loop never waits for a child: it waits for the next thing that happened or the next deadline.
    """

    def __init__(
        self,
        name: str,
        settings: SupervisorFlags,
        slots: Mapping[str, ChildRecord],
        ground: TreeNursery,
        *,
        emit: Emit,
        chance: Callable[[], float],
        on_started: Callable[[], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.slots = ChildIndex(slots)
        self.phase = Phase.BOOTING
        self.error: BaseException | None = None
        """What ends the supervisor, if it is not asked to."""
        self.ended = False
        """All children are down; nothing can be asked of it any more."""
        self.highest_number_forgotten = 0
        """Incarnations of a new child are counted from here, so that no number of a forgotten namesake comes back."""
        self.leftovers: list[ChildRun] = []
        self.unstopped: list[Unstopped] = []
        self.hooks = ChildHooks(name, emit)
        self.control = StartStop(name, ground, emit, self.hooks, self)
        self._emit = emit
        self._on_started = on_started
        self._consequences = ChildOutcome(self, ground, emit, chance)
        self._inbox: deque[Callable[[], None]] = deque()
        self._wakeup = trio.Event()
        self._budget = math.inf
        self._stop_detail = ""
        self._stopping_since = 0.0

    # The control loop

    async def run(self) -> None:
        """Start the children, look after them, and return when all are down. Must be called in a shielded scope."""
        try:
            while not self._turn():
                deadline = self.control.next_deadline()
                with trio.move_on_at(deadline):
                    await self._wakeup.wait()
                self._wakeup = trio.Event()
        except BaseException:
            await self._kill_everything()
            raise
        self._conclude()

    def post(self, handle: Callable[[], None]) -> None:
        """Let the loop call `handle`, after everything that was posted before."""
        self._inbox.append(handle)
        self._wakeup.set()

    @property
    def stopping(self) -> bool:
        """Whether the supervisor starts nothing any more."""
        return self.phase is Phase.STOPPING

    def wake(self) -> None:
        """Let the loop look at the children again."""
        self._wakeup.set()

    def _turn(self) -> bool:
        while True:
            while self._inbox:
                self._inbox.popleft()()
            now = trio.current_time()
            self.control.take_due(now)
            ended = self._advance(now)
            if not self._inbox:
                return ended

    def _advance(self, now: float) -> bool:
        stopping = self.stopping
        for slot in next_stops(self.slots, stopping=stopping, parallel=self.settings.dynamic):
            self._ask_to_stop(slot)
        if stopping:
            return not self.slots.alive
        for slot in next_starts(self.slots, now):
            self.control.start(slot, now)
        if self.phase is Phase.BOOTING and not self.slots.unproven:
            self.phase = Phase.SERVING
            self._on_started()
        return False

    def _ask_to_stop(self, slot: ChildRecord) -> None:
        if self.stopping:
            self.control.ask_to_stop(slot, StopCause.SHUTDOWN, self._stop_detail, self._budget)
        elif slot.goal is not DesiredState.UP:
            self.control.ask_to_stop(slot, StopCause.TERMINATED, "terminated")
        else:
            self.control.ask_to_stop(slot, StopCause.RESTART, slot.reason or "restarted together with a sibling")

    async def _kill_everything(self) -> None:
        """A bug in the loop: nobody would look after the children any more, so none may outlive it."""
        alive = [slot for slot in self.slots.values() if slot.incarnation is not None]
        grace = max((slot.spec.kill_grace for slot in alive), default=0.0)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
            for slot in alive:
                assert slot.incarnation is not None
                slot.incarnation.kill(f"supervisor {self.name} failed")
            for slot in alive:
                assert slot.incarnation is not None
                await slot.incarnation.wait_gone()

    # What became of a child

    def child_serves(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """Its start is over."""
        if slot.incarnation is not incarnation:
            return
        now = trio.current_time()
        slot.proven = True
        slot.in_group = slot.recycle
        slot.start_deadline = math.inf
        if slot.state is ChildState.STARTING:
            slot.enter(ChildState.RUNNING, now)
        self.control.arm(slot)
        self._emit(
            ChildStarted(
                actor=slot.name,
                supervisor=self.name,
                incarnation=incarnation.number,
                took=now - incarnation.began_at,
            )
        )
        if slot.start_reply is not None:
            slot.start_reply.resolve(incarnation.number)
            slot.start_reply = None
        slot.tentative = False

    def child_ended(self, slot: ChildRecord, incarnation: ChildRun, end: Exit) -> None:
        """Decide what follows, report it, do it."""
        if slot.incarnation is not incarnation:
            return
        slot.incarnation = slot.ladder = None
        slot.deadline = slot.start_deadline = math.inf
        slot.last_exit = end
        if end.reason not in (ExitReason.KILLED, ExitReason.UNSTOPPED):
            slot.repair_allowed = True if killed_in(end.error) else None  # None: it had ended before it could be killed
        if incarnation.hook_error is not None:
            self.hooks.report(slot, "on_exit", incarnation.hook_error)
        if isinstance(end.error, ChildrenUnstopped):
            self.control.adopt_leftovers(slot, end.error)
        served = 0.0 if incarnation.serving_since is None else trio.current_time() - incarnation.serving_since
        if served >= slot.spec.backoff.reset_after:
            slot.restarts = 0
        decision = decide(slot, end, stopping=self.stopping, dynamic=self.settings.dynamic)
        if decision is Decision.RESTART:
            decision = self._consequences.count_attempt(slot)
        self._report_end(slot, end, decision)
        self.hooks.decide(slot, restarts=decision in (Decision.RESTART, Decision.RESTART_WITH_GROUP))
        self._consequences.apply(slot, end, decision)

    def child_gone(self, slot: ChildRecord, incarnation: ChildRun) -> None:
        """An unstopped task ended after all: what was to follow its end follows now."""
        slot.zombies.discard(incarnation)
        if slot.zombies or self.slots.get(slot.name) is not slot:
            return
        self._emit(ChildEndedLate(actor=slot.name, supervisor=self.name, incarnation=incarnation.number))
        slot.reports.clear()
        if self.stopping or slot.state is not ChildState.UNSTOPPED:
            return
        ends_for_good = slot.goal is DesiredState.UP and slot.spec.restart is Restart.TEMPORARY
        if slot.goal is DesiredState.GONE or ends_for_good or self.settings.dynamic:
            self.hooks.finish(slot, "ended late")
            self.forget(slot)
        elif slot.goal is DesiredState.DOWN:
            slot.enter(ChildState.DOWN, trio.current_time())
        elif slot.last_exit is not None and not comes_back_late(slot.spec.restart, slot.last_exit):
            self._consequences.apply(slot, slot.last_exit, Decision.STAY_DOWN)
        elif slot.last_exit is not None:
            self._consequences.apply(slot, slot.last_exit, self._consequences.count_attempt(slot))

    def _report_end(self, slot: ChildRecord, end: Exit, decision: Decision) -> None:
        quiet = end.reason in (ExitReason.NORMAL, ExitReason.SHUTDOWN, ExitReason.IGNORED)
        event = ChildEnded if quiet and decision is not Decision.GIVE_UP else ChildExited
        self._emit(
            event(
                actor=slot.name,
                supervisor=self.name,
                incarnation=end.incarnation,
                reason=end.reason.value,
                error=end.summary,
                last_message=end.last_message,
                lived=end.lived,
                decision=decision,
            )
        )

    def forget(self, slot: ChildRecord) -> None:
        """No longer list a child; one that does not stop is listed until it is gone."""
        slot.goal = DesiredState.GONE
        self.highest_number_forgotten = max(self.highest_number_forgotten, slot.number)
        if not slot.zombies:
            self.slots.remove(slot.name)

    # The end of the supervisor

    def shut_down(
        self, why: str, *, error: BaseException | None = None, budget: float = math.inf, kill: bool = False
    ) -> None:
        """Stop all children in reverse start order, then end, with `error` if there is one.

        May be repeated: an earlier `budget` (an absolute time) shortens, `kill` interrupts all children at once.
        """
        now = trio.current_time()
        if error is not None and (self.error is None or (fatal_in(error) and not fatal_in(self.error))):
            self.error = error
        if not self.stopping:
            self.phase = Phase.STOPPING
            self._stop_detail = why
            self._stopping_since = now
            self._budget = now + self.settings.shutdown_budget
            self._cancel_pending(now)
            alive = sum(slot.alive for slot in self.slots.values())
            self._emit(SupervisorStopping(actor=self.name, why=why, children=alive))
        self._budget = min(self._budget, budget)
        for slot in self.slots.values():
            self.control.shorten(slot, self._budget)
            if kill:
                self.control.cancel(slot, why)
        self.wake()

    def _cancel_pending(self, now: float) -> None:
        for slot in self.slots.values():
            if slot.state in PENDING:
                slot.enter(ChildState.DOWN, now)
            if slot.start_reply is not None:
                slot.start_reply.fail(
                    AdministrationError(RefusalReason.SHUTTING_DOWN, self.name, slot.name, "the supervisor stops")
                )
                slot.start_reply = None

    def _conclude(self) -> None:
        self.ended = True
        for slot in self.slots.values():
            self.unstopped.extend(slot.reports)
            self.leftovers.extend(slot.zombies)
            for reply in slot.stop_replies:
                reply.resolve(None)
        took = trio.current_time() - self._stopping_since
        left = tuple(report.name for report in self.unstopped)
        self._emit(SupervisorStopped(actor=self.name, took=took, unstopped=left))
