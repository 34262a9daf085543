from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ExitReason, StopReason
from runtime.core.beats import Beats, WorkerState
from runtime.core.ref import Ref
from runtime.core.services import Services
from runtime.core.worker import Budget, Iteration, IterationEnded, PeriodicWorker
from runtime.events import EventBus
from runtime.message import Inspect, Resume, Suspend, WakeUp
from runtime.metrics import METRICS
from runtime.testing.system import ActorSystem, OnCrash, actor_system
from runtime.watchdog.verdict import RepairKind, StaleLimits, StaleReason, judge, take_snapshot

Work = Callable[[Budget], Awaitable[Iteration]]


class Log:
    """When iterations began and ended, and a way to wait for the next one."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self.running = 0
        self._changed = trio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until_began(self, count: int) -> None:
        while len(self.began) < count:
            await self._changed.wait()

    async def until_ended(self, count: int) -> None:
        while len(self.ended) < count:
            await self._changed.wait()


async def nothing(_: Budget) -> Iteration:
    return Iteration()


@attrs.define(eq=False)
class Worker(PeriodicWorker):
    """Does what a test says, and detonates if it ever runs twice at once."""

    log: Log
    work: Work = nothing

    async def iterate(self, budget: Budget) -> Iteration:
        self.log.running += 1
        assert self.log.running == 1, "two iterations at a time"
        self.log.began.append(trio.current_time())
        self.log.notify()
        try:
            return await self.work(budget)
        finally:
            self.log.running -= 1
            self.log.ended.append(trio.current_time())
            self.log.notify()


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    """A system whose beats follow trio's clock. Each test asks for the virtual clock itself, or would not get it."""
    async with actor_system(Services(beats=Beats(trio.current_time), events=EventBus(log=None))) as running:
        yield running


async def inspected(ref: Ref) -> dict[str, object]:
    actor = (await ref.ask(Inspect(), within=5))["actor"]
    assert isinstance(actor, dict)
    return actor


# S-707
async def test_the_first_iteration_waits_the_start_jitter_the_others_the_jittered_interval(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    started = trio.current_time()
    logs = [Log() for _ in range(20)]
    for number, log in enumerate(logs):
        await system.start(Worker(log, interval=100), name=f"w{number}")
    for log in logs:
        await log.until_began(6)
    firsts = [log.began[0] - started for log in logs]
    assert all(5 <= first <= 61 for first in firsts)
    assert max(firsts) - min(firsts) > 5, "they are spread"
    gaps = [later - earlier for log in logs for earlier, later in zip(log.began, log.began[1:], strict=False)]
    assert all(90 <= gap <= 110.1 for gap in gaps)
    assert len({round(gap, 3) for gap in gaps}) > 10, "every tick is jittered"


# S-708
async def test_a_wake_up_runs_at_once_and_clears_the_start_jitter(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()
    ref = await system.start(Worker(log, interval=100, tick_jitter=0))
    began = trio.current_time()
    ref.tell(WakeUp())
    await log.until_began(2)
    assert log.began == [began, began + 100]


# S-708 S-709
async def test_wake_ups_are_one_and_never_overlap_an_iteration(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log, gate = Log(), trio.Event()

    async def work(_: Budget) -> Iteration:
        await gate.wait()
        return Iteration()

    ref = await system.start(Worker(log, work, interval=100))
    for _ in range(10):
        ref.tell(WakeUp())
    await log.until_began(1)
    for _ in range(10):
        ref.tell(WakeUp())
        await trio.testing.wait_all_tasks_blocked()
    gate.set()
    await log.until_ended(2)
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(50)
    assert len(log.began) == 2, "ten wake-ups amid an iteration mean one more"
    assert log.began[1] == log.began[0]


# S-710
async def test_more_means_again_at_once_and_lets_others_run(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log, pages = Log(), [True, True, True, False]

    async def work(_: Budget) -> Iteration:
        return Iteration(done=100, more=pages.pop(0))

    ref = await system.start(Worker(log, work, interval=100))
    ref.tell(WakeUp())
    await log.until_ended(4)
    await trio.sleep(50)
    assert len(log.began) == 4
    assert log.began[0] == log.began[3]


# S-712
async def test_it_answers_and_stops_while_an_iteration_runs(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log, seen = Log(), list[bool]()

    async def work(budget: Budget) -> Iteration:
        for _ in iter(lambda: budget.is_spent, True):
            await trio.sleep(0.5)
        seen.append(budget.is_spent)
        return Iteration()

    ref = await system.start(Worker(log, work, interval=100, budget=1000))
    ref.tell(WakeUp())
    await log.until_began(1)
    state = await inspected(ref)
    assert (state["running"], state["next_in"]) == (True, None)
    began = trio.current_time()
    ended = await system.stop(ref)
    assert ended.reason is ExitReason.SHUTDOWN
    assert seen == [True], "the iteration was told, and came to an end by itself"
    assert trio.current_time() - began <= 0.5


async def test_an_iteration_that_does_not_end_is_cancelled_by_the_stop(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(_: Budget) -> Iteration:
        await trio.sleep_forever()

    ref = await system.start(Worker(log, work, interval=100, budget=1000))
    ref.tell(WakeUp())
    await log.until_began(1)
    began = trio.current_time()
    await system.stop(ref, within=3)
    assert trio.current_time() - began == 3
    assert log.running == 0


# S-712
async def test_suspended_it_finishes_its_iteration_and_starts_no_other_until_resumed(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log, gate = Log(), trio.Event()

    async def work(_: Budget) -> Iteration:
        await gate.wait()
        return Iteration(more=True)

    ref = await system.start(Worker(log, work, interval=100))
    ref.tell(WakeUp())
    await log.until_began(1)
    ref.tell(Suspend())
    await trio.testing.wait_all_tasks_blocked()
    gate.set()
    await log.until_ended(1)
    ref.tell(WakeUp())
    await trio.sleep(1000)
    assert len(log.began) == 1
    beats = system.services.beats
    beats.sample()
    states = [beats.worker("worker").state]
    resumed = trio.current_time()
    ref.tell(Resume())
    await log.until_began(2)
    assert log.began[1] == resumed, "the wake-up was kept"
    beats.sample()
    states.append(beats.worker("worker").state)
    assert states == [WorkerState.PAUSED, WorkerState.ACTIVE]


# S-711
async def test_the_total_budget_is_enforced_and_without_progress_it_waits_for_a_tick(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(_: Budget) -> Iteration:
        await trio.sleep_forever()

    ref = await system.start(Worker(log, work, interval=100, tick_jitter=0, budget=15))
    ref.tell(WakeUp())
    await log.until_began(2)
    assert log.ended[0] - log.began[0] == 15
    assert log.began[1] - log.ended[0] == 100
    last = (await inspected(ref))["last"]
    assert last == {"done": 0, "failed": 0, "more": False, "note": "cut off", "seconds": 15.0, "cut_off": True}


# S-711
async def test_cut_off_amid_progress_it_goes_on_at_once(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(budget: Budget) -> Iteration:
        while True:
            await budget.count()
            await trio.sleep(1)

    ref = await system.start(Worker(log, work, interval=100, budget=15))
    ref.tell(WakeUp())
    await log.until_began(2)
    assert log.began[1] == log.ended[0]


# S-713
async def test_an_exception_in_an_iteration_is_the_workers_crash(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(_: Budget) -> Iteration:
        raise RuntimeError("broken")

    ref = await system.start(Worker(log, work, interval=100), on_crash=OnCrash.RESTART)
    ref.tell(WakeUp())
    ended = await system.exited(ref)
    assert ended.reason is ExitReason.CRASHED
    assert str(ended.error) == "broken"
    crashed = trio.current_time()
    await system.exited(ref, 2)
    assert 5 <= log.began[1] - crashed <= 61, "the next incarnation waits the start jitter again"


async def test_an_iteration_that_returns_nothing_is_a_crash_with_the_reason(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0

    async def work(_: Budget) -> Iteration:
        return None  # type: ignore[return-value]  # what is tested

    ref = await system.start(Worker(Log(), work, interval=100), on_crash=OnCrash.STOP)
    ref.tell(WakeUp())
    assert "Worker.iterate must return an Iteration" in str((await system.exited(ref)).error)


async def test_a_result_of_an_earlier_incarnation_ends_nothing(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log, gate = Log(), trio.Event()

    async def work(_: Budget) -> Iteration:
        await gate.wait()
        return Iteration()

    ref = await system.start(Worker(log, work, interval=100))
    ref.tell(WakeUp())
    await log.until_began(1)
    foreign = Budget(1, 1, 1, system.services.beats.worker("other"))
    ref.tell(IterationEnded(foreign, Iteration(more=True), 0.0, cut_off=False))
    await trio.testing.wait_all_tasks_blocked()
    assert (await inspected(ref))["running"] is True
    gate.set()
    await log.until_ended(1)
    await trio.testing.wait_all_tasks_blocked()
    assert (await inspected(ref))["iterations"] == 1


async def test_the_beat_is_kept_fresh_while_idle_and_while_it_progresses(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(budget: Budget) -> Iteration:
        for _ in range(300):
            await trio.sleep(1)
            budget.progress()
        await trio.sleep(500)
        return Iteration()

    beats, limits = system.services.beats, StaleLimits()
    ref = await system.start(Worker(log, work, interval=5000, start_jitter=(200, 200), budget=1000))
    beat = beats.worker("worker")
    assert beat.next_due == trio.current_time() + 200
    await trio.sleep(199)
    assert judge(take_snapshot(beats), limits) == []
    await log.until_began(1)
    assert beat.handling_since == trio.current_time()
    beat.limit = 15.0
    await trio.sleep(299)
    assert judge(take_snapshot(beats), limits) == [], "it progresses"
    await trio.sleep(95)
    (repair,) = judge(take_snapshot(beats), limits)
    assert (repair.kind, repair.name, repair.why) == (RepairKind.WORKER, "worker", StaleReason.STUCK)  # type: ignore[union-attr]  # one action, a repair
    await log.until_ended(1)
    await trio.testing.wait_all_tasks_blocked()
    assert judge(take_snapshot(beats), limits) == []
    await system.stop(ref)
    assert beat.next_due == math.inf


async def test_a_parked_worker_is_left_out_of_the_beat(
    system: ActorSystem, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    ref = await system.start(Worker(Log(), interval=100), on_crash=OnCrash.STOP)
    await system.kill(ref)
    beats = system.services.beats
    beats.sample()
    assert beats.worker("worker").state is WorkerState.PARKED


async def test_what_it_did_is_counted(system: ActorSystem, autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    log = Log()

    async def work(budget: Budget) -> Iteration:
        for number in range(5):
            with budget.isolate(f"item {number}"):
                if number == 3:
                    raise ValueError("rotten")
                await budget.count()
        return Iteration(done=budget.done, note="five looked at")

    ref = await system.start(Worker(log, work, interval=100), name="counted")
    ref.tell(WakeUp())
    await log.until_ended(1)
    await trio.testing.wait_all_tasks_blocked()
    state = await inspected(ref)
    assert state["last"] == {
        "done": 4,
        "failed": 1,
        "more": False,
        "note": "five looked at",
        "seconds": 0.0,
        "cut_off": False,
    }
    text = METRICS.render()
    assert 'atlas_worker_items_total{worker="counted",outcome="done"} 4' in text
    assert 'atlas_worker_items_total{worker="counted",outcome="failed"} 1' in text
    assert 'atlas_worker_iterations_total{worker="counted",end="in order"} 1' in text


# S-714
def test_a_subclass_that_forgets_super_is_refused_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.on_start must call super\(\)\.on_start"):

        @attrs.define(eq=False)
        class Forgetful(PeriodicWorker):
            async def on_start(self) -> None:
                pass

    @attrs.define(eq=False)
    class Careful(PeriodicWorker):
        async def on_stop(self, reason: StopReason) -> None:
            await super().on_stop(reason)

        async def iterate(self, budget: Budget) -> Iteration:
            return Iteration(done=budget.done)

    assert Careful(interval=1).budget == 15


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0},
        {"interval": 1, "start_jitter": (5, 1)},
        {"interval": 1, "start_jitter": (-1, 1)},
        {"interval": 1, "tick_jitter": 1.0},
        {"interval": 1, "budget": 0},
        {"interval": 1, "page_size": 0},
        {"interval": 1, "yield_every": 0},
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(name for name in reversed(wrong))):
        Worker(Log(), **wrong)  # type: ignore[arg-type]  # what is tested
