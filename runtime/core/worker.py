"""Periodic workers: actors that look for work at an interval, at once when woken, and never twice at a time."""

from __future__ import annotations

import inspect
import random
from abc import abstractmethod
from collections.abc import Mapping

import attrs
import trio
from attrs.validators import ge, gt, instance_of, lt

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.core.address import Address
from runtime.core.beats import WorkerBeat, WorkerState
from runtime.core.incarnation import ActorTask
from runtime.core.iteration_budget import Budget
from runtime.core.ref import AddressState
from runtime.core.timers import Timer
from runtime.log.logs import get_logger
from runtime.message import Control, Message, WakeUp
from runtime.metrics import SECONDS, counter, histogram

__all__ = ["Budget", "Iteration", "PeriodicWorker", "watch_mailbox"]

ITERATIONS = counter(
    "atlas_worker_iterations_total", "Iterations ended: in order, or cut off at their budget.", labels=("worker", "end")
)
ITEMS = counter("atlas_worker_items_total", "Items handled by periodic workers.", labels=("worker", "outcome"))
ITERATION_SECONDS = histogram(
    "atlas_worker_iteration_seconds", "How long an iteration took.", buckets=SECONDS, labels=("worker",)
)

_log = get_logger("atlas.worker")


@attrs.frozen
class Iteration:
    """What an iteration reports."""

    done: int = 0
    """Items handled."""
    more: bool = False
    """There is more to do: look again at once, not at the next tick."""
    note: str = ""
    """One phrase for operators."""


@attrs.frozen
class Tick(Message):
    """Time to look. A worker's own timer, so it waits while the worker is suspended and dies with the incarnation."""


@attrs.frozen(eq=False)
class IterationEnded(Control):
    """From the iteration's task to its worker. In the control lane: no full mailbox may keep it out."""

    budget: Budget
    iteration: Iteration
    seconds: float
    cut_off: bool


def _positive_range(_: object, attribute: attrs.Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    low, high = value
    if not 0 <= low <= high:
        raise ValueError(f"{attribute.name} must be (least, most) seconds with 0 ≤ least ≤ most, not {value}")


@attrs.define(eq=False)
class PeriodicWorker(Actor):
    """Calls `iterate` every `interval` seconds, and at once when woken.

    Role: a loop that converges; what to do is the subclass's `iterate`. Owns: the schedule, nothing that may not die with
    it. Receives: WakeUp (from any sender), Suspend and Resume (handled by the runtime: a suspended worker finishes its
    iteration and starts no other). Sends: nothing.
    On crash: an exception in `iterate` is the worker's crash; its supervisor decides. The next incarnation waits the
    start jitter again, unless it is woken.
    Invariants: iterations never overlap; one takes no longer than `budget` seconds in all; control messages are handled
    while it runs; a wake-up during an iteration, or before one, means exactly one more, however many they were; the
    worker beat is kept.

    Subclasses that override a hook call the base's: `await super().on_start()`, and likewise `on_stop`.
    """

    interval: float = attrs.field(kw_only=True, validator=gt(0))
    """Seconds from the end of one iteration to the start of the next."""
    start_jitter: tuple[float, float] = attrs.field(default=(5.0, 60.0), kw_only=True, validator=_positive_range)
    """The first iteration starts after a random number of seconds between these two, so that nothing aligns."""
    tick_jitter: float = attrs.field(default=0.1, kw_only=True, validator=[ge(0), lt(1)])
    """Each wait is longer or shorter by up to this fraction of `interval`."""
    budget: float = attrs.field(default=15.0, kw_only=True, validator=gt(0))
    """Seconds that one iteration may take in all; past that it is cancelled."""
    page_size: int = attrs.field(default=100, kw_only=True, validator=[instance_of(int), ge(1)])
    """Items to claim at a time."""
    yield_every: int = attrs.field(default=20, kw_only=True, validator=[instance_of(int), ge(1)])
    """Counted items between two turns of the loop."""

    _beat: WorkerBeat = attrs.field(init=False, repr=False)
    _timer: Timer | None = attrs.field(init=False, default=None, repr=False)
    _running: Budget | None = attrs.field(init=False, default=None, repr=False)
    _task: ActorTask | None = attrs.field(init=False, default=None, repr=False)
    _again: bool = attrs.field(init=False, default=False)
    _iterations: int = attrs.field(init=False, default=0)
    _last: IterationEnded | None = attrs.field(init=False, default=None, repr=False)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("on_start", "on_stop"):
            hook = cls.__dict__.get(name)
            # Forgetting it would leave a worker that never does anything and looks healthy.
            if hook is not None and "super" not in hook.__code__.co_names:
                raise TypeError(f"{cls.__module__}.{cls.__qualname__}.{name} must call super().{name}(…)")
        iterate = cls.__dict__.get("iterate")
        if iterate is not None and not inspect.iscoroutinefunction(inspect.unwrap(iterate)):
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}.iterate must be `async def`")

    @abstractmethod
    async def iterate(self, budget: Budget) -> Iteration:
        """Look for work and do it.

        Runs as a task of the actor, beside its handlers. Hold no lease across other waits, ask `budget.is_spent` between
        pages, count items with `await budget.count()`. Cancelled when the budget is used up: then, if anything was
        counted, the next iteration follows at once, else at the next tick.
        """
        raise NotImplementedError

    # --- hooks -------------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Plan the first iteration."""
        self._beat = self.context.services.beats.worker(self.context.name)
        watch_mailbox(self._beat, self.context.ref.address)
        self._plan(random.uniform(*self.start_jitter))  # noqa: S311  spreads load, guards nothing

    async def on_stop(self, reason: StopReason) -> None:
        """Let the iteration that runs come to an end: its budget is spent from now on."""
        if self._running is not None and self._task is not None:
            self._running.stop()
            await self._task.wait()
        # Whoever stopped it does not expect another iteration.
        self._beat.idle_until(float("inf"))

    def inspect(self) -> Mapping[str, object]:
        """The schedule, and what the last iteration did."""
        now = trio.current_time()
        last = self._last
        return {
            "interval": self.interval,
            "running": self._running is not None,
            "next_in": None if self._timer is None else max(0.0, self._timer.due - now),
            "woken": self._again,
            "iterations": self._iterations,
            "last": None
            if last is None
            else {
                "done": last.iteration.done,
                "failed": last.budget.failed,
                "more": last.iteration.more,
                "note": last.iteration.note,
                "seconds": last.seconds,
                "cut_off": last.cut_off,
            },
        }

    # --- messages ----------------------------------------------------------------------------------------------------

    @handler
    async def wake_up(self, message: WakeUp) -> None:
        """Look at once: now, or after the iteration that runs."""
        if self._running is None:
            self._plan(0.0)
        else:
            self._again = True

    @handler
    async def tick(self, message: Tick) -> None:
        """Start an iteration."""
        if self._running is not None:
            return
        self._timer = None
        self._again = False
        self._running = Budget(self.budget, self.page_size, self.yield_every, self._beat)
        self._beat.begin(self.budget)
        self._task = self.context.start_task(self._iterate, self._running, name="iterate", inherit_deadline=False)

    @handler
    async def iteration_ended(self, message: IterationEnded) -> None:
        """Note the result and plan the next iteration."""
        if message.budget is not self._running:
            return  # of an incarnation before this one
        self._running, self._task, self._last = None, None, message
        self._iterations += 1
        if not message.cut_off:
            self._beat.progress()
        iteration, name = message.iteration, self.context.ref.address.metric_label
        ITERATIONS.labels(name, "cut off" if message.cut_off else "in order").inc()
        ITEMS.labels(name, "done").inc(iteration.done)
        ITEMS.labels(name, "failed").inc(message.budget.failed)
        ITERATION_SECONDS.labels(name).observe(message.seconds)
        self._say(message)
        spread = self.interval * self.tick_jitter
        wait = self.interval + random.uniform(-spread, spread)  # noqa: S311  as above
        self._plan(0.0 if iteration.more or self._again else wait)

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def _iterate(self, budget: Budget) -> None:
        began = trio.current_time()
        iteration: Iteration | None = None
        with trio.CancelScope(deadline=budget.deadline) as scope:
            iteration = await self.iterate(budget)
        if scope.cancelled_caught:
            iteration = Iteration(budget.done, more=budget.done > 0, note="cut off")
        elif iteration is None:
            raise TypeError(f"{type(self).__name__}.iterate must return an Iteration")
        seconds = trio.current_time() - began
        self.context.ref.tell(IterationEnded(budget, iteration, seconds, scope.cancelled_caught))

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.context.after(seconds, Tick())
        self._beat.idle_until(self._beat.due_in(seconds))

    def _say(self, ended: IterationEnded) -> None:
        iteration = ended.iteration
        facts: dict[str, object] = {"done": iteration.done, "seconds": round(ended.seconds, 3)}
        if ended.budget.failed:
            facts["failed"] = ended.budget.failed
        if iteration.note:
            facts["note"] = iteration.note
        if ended.cut_off:
            _log.warning(f"the iteration was cut off at its budget of {self.budget:g} s", **facts)
        elif iteration.done or ended.budget.failed:
            _log.info("iteration", **facts)
        else:
            _log.debug("iteration", **facts)


def watch_mailbox(beat: WorkerBeat, address: Address) -> None:
    """Let the beat know, at each tick of the watchdog, what the actor behind `address` cannot say while it is stuck.

    Paused and parked actors are left out of the worker beat, and so is one that is down or starting: its supervisor bounds
    that, and brings it back. A mailbox whose oldest message waits too long is starved.
    """

    def probe() -> tuple[WorkerState, float]:
        if address.state in (AddressState.PARKED, AddressState.DEAD):
            return WorkerState.PARKED, 0.0
        if address.state is not AddressState.UP:
            return WorkerState.DOWN, 0.0
        if not address.mailbox.serve_user:
            return WorkerState.PAUSED, 0.0
        # What waited for a start has a full limit to be handled from then on.
        return WorkerState.ACTIVE, min(address.mailbox.statistics().oldest_age, address.up_for)

    beat.probe = probe
