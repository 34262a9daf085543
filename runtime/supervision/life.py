"""One life of a supervisor: its control loop, and what it does about the end of a child."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable

import attrs
import trio

from runtime.backoff import delay
from runtime.child import AutoShutdown, Exit, ExitReason, GiveUp, Restart, StopCause, Strategy
from runtime.incarnation import Incarnation, fatal_in
from runtime.intensity import IntensityWindow
from runtime.stop_ladder import Unstopped
from runtime.supervision.child_control import ChildControl
from runtime.supervision.decision import decide, ends_supervisor, taken_along
from runtime.supervision.errors import (
    AdministrationError,
    Answer,
    ChildrenUnstopped,
    ChildStartFailed,
    RestartIntensityExceeded,
)
from runtime.supervision.ground import Ground
from runtime.supervision.hooks import Emit, Hooks
from runtime.supervision.schedule import next_starts, next_stops
from runtime.supervision.slot import PENDING, ChildState, Goal, Slot
from runtime.supervision_events import (
    ChildEnded,
    ChildEndedLate,
    ChildExited,
    ChildRestarting,
    ChildStarted,
    Decision,
    SupervisorGaveUp,
    SupervisorStopped,
    SupervisorStopping,
)


@attrs.frozen
class SupervisorSettings:
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


class Life:
    """The state of a running supervisor. Only its control loop changes it, apart from administrative calls, which
    do so synchronously and wake the loop.

    The loop never waits for a child: it waits for the next thing that happened or the next deadline.
    """

    def __init__(
        self,
        name: str,
        settings: SupervisorSettings,
        slots: dict[str, Slot],
        ground: Ground,
        *,
        emit: Emit,
        chance: Callable[[], float],
        on_started: Callable[[], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.slots = slots
        self.phase = Phase.BOOTING
        self.error: BaseException | None = None
        """What ends the supervisor, if it is not asked to."""
        self.ended = False
        """All children are down; nothing can be asked of it any more."""
        self.highest_number_forgotten = 0
        """Incarnations of a new child are counted from here, so that no number of a forgotten namesake comes back."""
        self.leftovers: list[Incarnation] = []
        self.unstopped: list[Unstopped] = []
        self.hooks = Hooks(name, emit)
        self.control = ChildControl(name, ground, emit, self.hooks, self)
        self._emit = emit
        self._chance = chance
        self._ground = ground
        self._on_started = on_started
        self._window = IntensityWindow(settings.intensity, settings.period)
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
        stopping = self.phase is Phase.STOPPING
        for slot in next_stops(self.slots.values(), stopping=stopping, parallel=self.settings.dynamic):
            self._ask_to_stop(slot)
        if stopping:
            return not any(slot.alive for slot in self.slots.values())
        for slot in next_starts(self.slots, now):
            self.control.start(slot, now)
        if self.phase is Phase.BOOTING and all(slot.proven or slot.goal is not Goal.UP for slot in self.slots.values()):
            self.phase = Phase.SERVING
            self._on_started()
        return False

    def _ask_to_stop(self, slot: Slot) -> None:
        if self.phase is Phase.STOPPING:
            self.control.ask_to_stop(slot, StopCause.SHUTDOWN, self._stop_detail, self._budget)
        elif slot.goal is not Goal.UP:
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

    def child_serves(self, slot: Slot, incarnation: Incarnation) -> None:
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

    def child_ended(self, slot: Slot, incarnation: Incarnation, end: Exit) -> None:
        """Decide what follows, report it, do it."""
        if slot.incarnation is not incarnation:
            return
        slot.incarnation = slot.ladder = None
        slot.deadline = slot.start_deadline = math.inf
        slot.last_exit = end
        if incarnation.hook_error is not None:
            self.hooks.report(slot, "on_exit", incarnation.hook_error)
        if isinstance(end.error, ChildrenUnstopped):
            self.control.adopt_leftovers(slot, end.error)
        if incarnation.serving_since is not None:
            # Its ChildStarted may have been posted in the same turn and never been looked at.
            slot.proven = True
            if trio.current_time() - incarnation.serving_since >= slot.spec.backoff.reset_after:
                slot.restarts = 0
        decision = decide(slot, end, stopping=self.phase is Phase.STOPPING, dynamic=self.settings.dynamic)
        if decision is Decision.RESTART:
            decision = self._count_attempt(slot)
        self._report_end(slot, end, decision)
        self._apply(slot, end, decision)

    def child_gone(self, slot: Slot, incarnation: Incarnation) -> None:
        """An unstopped task ended after all: what was to follow its end follows now."""
        slot.zombies.discard(incarnation)
        if slot.zombies or self.slots.get(slot.name) is not slot:
            return
        self._emit(ChildEndedLate(actor=slot.name, supervisor=self.name, incarnation=incarnation.number))
        slot.reports.clear()
        if self.phase is Phase.STOPPING or slot.state is not ChildState.UNSTOPPED:
            return
        if slot.goal is Goal.GONE or slot.spec.restart is Restart.TEMPORARY or self.settings.dynamic:
            self.hooks.finish(slot, "ended late")
            self.forget(slot)
        elif slot.goal is Goal.DOWN:
            slot.enter(ChildState.DOWN, trio.current_time())
        elif slot.last_exit is not None:
            self._apply(slot, slot.last_exit, self._count_attempt(slot))

    # Deciding

    def _count_attempt(self, slot: Slot) -> Decision:
        now = trio.current_time()
        match slot.spec.give_up:
            case GiveUp.NEVER:
                return Decision.RESTART
            case GiveUp.PARK:
                return Decision.RESTART if slot.window.attempt(now) else Decision.PARK
            case GiveUp.ESCALATE:
                return Decision.RESTART if self._window.attempt(now) else Decision.GIVE_UP

    def _report_end(self, slot: Slot, end: Exit, decision: Decision) -> None:
        quiet = end.reason in (ExitReason.NORMAL, ExitReason.SHUTDOWN, ExitReason.IGNORED)
        event = ChildEnded if quiet and decision is not Decision.GIVE_UP else ChildExited
        self._emit(
            event(
                actor=slot.name,
                supervisor=self.name,
                incarnation=end.incarnation,
                reason=end.reason.value,
                error=describe_end(end),
                last_message=end.last_message,
                lived=end.lived,
                decision=decision,
            )
        )

    def _apply(self, slot: Slot, end: Exit, decision: Decision) -> None:
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
                self.control.arm(slot)
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
                slot.enter(down, now, describe_end(end))
                self._refuse_start(slot, end)
            case Decision.STOPPED | Decision.STAY_DOWN | Decision.FORGET:
                slot.enter(down, now, describe_end(end) if slot.zombies else "")
                if self.phase is not Phase.STOPPING or decision is Decision.FORGET:
                    self.hooks.finish(slot, describe_end(end) or end.reason.value)
        slot.recycle = slot.in_group = False
        if end.reason is ExitReason.IGNORED:
            slot.proven = True
        self._answer(slot, end)
        if decision is Decision.FORGET or (slot.goal is Goal.GONE and self.phase is not Phase.STOPPING):
            self.forget(slot)
        if unasked and decision in (Decision.STAY_DOWN, Decision.FORGET) and end.reason is not ExitReason.IGNORED:
            self._check_auto_shutdown(slot)

    def _restart(self, slot: Slot, end: Exit, now: float) -> None:
        slot.restarts += 1
        wait = delay(slot.spec.backoff, slot.restarts, self._chance())
        slot.not_before = now + wait
        slot.enter(ChildState.RESTARTING, now)
        group = taken_along(self.settings.strategy, slot, list(self.slots.values()))
        slot.in_group = self.settings.strategy is not Strategy.ONE_FOR_ONE
        for other in group:
            other.in_group = True
            other.not_before = max(other.not_before, slot.not_before)
            if other.alive:
                other.recycle = True
                other.reason = f"{slot.name} {end.reason.value}"
            elif other.state not in PENDING:
                other.enter(ChildState.RESTARTING, now)
            self.control.arm(other)
        self.control.arm(slot)
        self._emit(
            ChildRestarting(
                actor=slot.name,
                supervisor=self.name,
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
            allowed, period = slot.window.intensity, slot.window.period
            reason = f"more than {allowed} restarts within {period:g} s; its last end: {describe_end(end)}"
            slot.enter(ChildState.PARKED, now, reason)
        self.hooks.park(slot, reason)

    def _refuse_start(self, slot: Slot, end: Exit) -> None:
        failure = ChildStartFailed(f"{slot.name} did not start: {describe_end(end)}")
        failure.__cause__ = end.error
        if slot.start_reply is None:
            self.shut_down(f"{slot.name} did not start", error=end.error or failure)
        else:
            slot.start_reply.fail(failure)
            slot.start_reply = None
            slot.goal = Goal.GONE if slot.tentative else Goal.DOWN
            self.hooks.finish(slot, str(failure))

    def _give_up(self, slot: Slot, end: Exit) -> None:
        count = self._window.count(trio.current_time())
        error = RestartIntensityExceeded(self.name, slot.name, count, self.settings.period, describe_end(end))
        self._emit(SupervisorGaveUp(actor=self.name, child=slot.name, reason=str(error)))
        self.shut_down(f"it gave up because of {slot.name}", error=error)

    def _shut_down_tree(self, slot: Slot, end: Exit) -> None:
        error = fatal_in(end.error)
        assert error is not None, "decided on it"
        self._ground.report_fatal(error)
        slot.goal = Goal.DOWN
        if slot.start_reply is not None:
            slot.start_reply.fail(error)
            slot.start_reply = None

    def _check_auto_shutdown(self, slot: Slot) -> None:
        others = [other for other in self.slots.values() if other is not slot]
        if self.phase is not Phase.STOPPING and ends_supervisor(self.settings.auto_shutdown, slot, others):
            self.shut_down(f"its significant child {slot.name} ended")

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
                reply.fail(ChildrenUnstopped(self.name, slot.reports))
            else:
                reply.resolve(None)

    def forget(self, slot: Slot) -> None:
        """No longer list a child; one that does not stop is listed until it is gone."""
        slot.goal = Goal.GONE
        self.highest_number_forgotten = max(self.highest_number_forgotten, slot.number)
        if not slot.zombies:
            self.slots.pop(slot.name, None)

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
        if self.phase is not Phase.STOPPING:
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
                    AdministrationError(Answer.SHUTTING_DOWN, self.name, slot.name, "the supervisor stops")
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


def describe_end(end: Exit) -> str:
    """The end of a child in a few words: the detail, or the error's type and text."""
    if end.detail:
        return end.detail
    if end.error is None:
        return "" if end.reason is not ExitReason.CRASHED else "crashed"
    return f"{type(end.error).__name__}: {end.error}".rstrip(": ")
