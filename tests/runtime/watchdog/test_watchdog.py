from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio
import trio.testing

from runtime.config.runtime_sections import WatchdogSettings
from runtime.core.beats import Beats, WorkerState
from runtime.events import EventBus
from runtime.metrics import METRICS
from runtime.watchdog.verdict import Repair, RepairKind, StaleLimits, StaleReason
from runtime.watchdog.watchdog import BeatFresh, BeatStale, BeatStillStale, LoopLate, Watchdog, WorkersStarve, limits_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A watchdog whose task is stepped by hand, without its thread, on a clock of its own."""

    def __init__(
        self,
        repair: Callable[[Repair], None] | None = None,
        diagnostic: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.clock = Clock()
        self.beats = Beats(self.clock)
        self.events = EventBus(log=None)
        self.repaired: list[Repair] = []
        self.dog = Watchdog(
            self.beats,
            events=self.events,
            repair=repair or self.repaired.append,
            diagnostic=diagnostic,
            where=lambda name: ("outer.py:1 run", f"{name}.py:7 iterate"),
        )

    def at(self, now: float, late: float = 0.0) -> None:
        self.clock.now = now
        self.dog.look(late)


# S-805
def test_one_stale_worker_is_reported_once_and_repaired() -> None:
    bench = Bench()
    bench.beats.worker("activation").idle_until(1000)
    bench.beats.worker("reminders").idle_until(5000)
    for second in range(1000, 1101, 5):
        bench.at(second)
    assert bench.repaired == [Repair(RepairKind.WORKER, "activation", StaleReason.OVERDUE, 95.0)]
    assert bench.events.recent() == [
        BeatStale("activation", "worker", "overdue", 95.0, ("outer.py:1 run", "activation.py:7 iterate"))
    ]
    assert bench.events.recent()[0].line() == (
        "worker activation is overdue for 95.0 s; it stands at activation.py:7 iterate; restarting it"
    )


# S-805 S-814
def test_a_repair_without_effect_is_repeated_once_per_limit_and_each_is_reported() -> None:
    bench = Bench()
    bench.beats.worker("activation").idle_until(1000)
    for second in range(1000, 1301, 5):
        bench.at(second)
    assert [repair.age for repair in bench.repaired] == [95.0, 185.0, 275.0]
    first, *again = bench.events.recent()
    assert isinstance(first, BeatStale)
    assert again == [
        BeatStillStale("activation", "worker", "overdue", 185.0, 1),
        BeatStillStale("activation", "worker", "overdue", 275.0, 2),
    ]
    assert again[0].line() == (
        "worker activation is overdue for 185.0 s and 1 repair did not help; restarting it again"
    )


# S-814
def test_stale_again_soon_after_a_repair_is_reported_and_repaired_after_a_limit() -> None:
    bench = Bench()
    bench.dog.limits = StaleLimits(healthcheck=20.0, worker=90.0)
    bench.beats.probed()
    bench.at(1021)
    bench.beats.probed()
    bench.at(1025)
    for second in range(1030, 1116, 5):
        bench.at(second)
    assert len(bench.repaired) == 2, [repair.age for repair in bench.repaired]
    kinds = [type(event) for event in bench.events.recent()]
    assert kinds == [BeatStale, BeatFresh, BeatStale, BeatStillStale]
    assert "restarting it in 66.0 s: it was repaired just before" in bench.events.recent()[2].line()


def test_an_episode_ends_when_the_beat_is_fresh_and_a_new_one_is_reported_again() -> None:
    bench = Bench()
    beat = bench.beats.worker("activation")
    beat.idle_until(1000)
    bench.at(1095)
    bench.clock.now = 1096
    beat.idle_until(1100)
    bench.at(1100)
    bench.at(1195)
    stale = BeatStale("activation", "worker", "overdue", 95.0, ("outer.py:1 run", "activation.py:7 iterate"))
    assert bench.events.recent() == [stale, BeatFresh("activation", "worker", 5.0), stale]
    assert len(bench.repaired) == 2


# S-805
def test_a_stale_health_check_and_a_wedged_pool_are_repaired() -> None:
    bench = Bench()
    bench.beats.probed()
    bench.beats.pool("pool.main").begin(5.0)
    bench.at(1000)
    bench.at(1091)
    assert [(repair.kind, repair.name) for repair in bench.repaired] == [
        (RepairKind.POOL, "pool.main"),
        (RepairKind.HEALTHCHECK, "healthcheck"),
    ]


def test_a_repair_that_fails_is_tried_again_and_harms_no_other() -> None:
    tried: list[str] = []

    def repair(action: Repair) -> None:
        tried.append(action.name)
        if action.name == "a":
            raise RuntimeError("no such child")

    bench = Bench(repair=repair)
    bench.beats.worker("a").idle_until(1000)
    bench.beats.worker("b").idle_until(1000)
    bench.at(1091)
    bench.at(1182)
    assert tried == ["a", "b", "a", "b"]


# S-807
def test_a_loop_that_stood_blames_nobody_who_lives_on_it() -> None:
    bench = Bench()
    bench.beats.worker("activation").idle_until(1000)
    bench.at(1000)
    bench.at(1100, late=99.0)
    assert bench.repaired == []
    assert bench.events.recent() == [LoopLate("watchdog", 99.0)]
    bench.at(1191)
    assert [repair.age for repair in bench.repaired] == [91.0], "it had a full limit to show life again"


# S-811
def test_starving_workers_and_a_recent_spike_make_one_complete_diagnostic() -> None:
    bench = Bench(diagnostic=lambda: ["activation holds a lease for 118 s", "fast_expiry waits for 4 s"])
    bench.beats.worker("activation").begin(15.0)
    bench.at(1030)
    bench.beats.pool_wait_spike("pool.main: fast_expiry waited 5.3 s")
    for second in range(1035, 1200, 5):
        bench.at(second)
    (starving,) = [event for event in bench.events.recent() if isinstance(event, WorkersStarve)]
    assert starving.line() == (
        "workers starve: event_loop 0.0 s, worker 125.0 s (activation is stuck), healthcheck absent; "
        "last pool wait spike: 95.0 s ago (pool.main: fast_expiry waited 5.3 s); "
        "activation holds a lease for 118 s; fast_expiry waits for 4 s"
    )


# S-811
def test_with_default_limits_a_repair_does_not_hide_that_a_worker_starves() -> None:
    def restart(repair: Repair) -> None:
        beat = bench.beats.worker(repair.name)
        bench.beats.ended(repair.name)
        beat.idle_until(bench.clock.now + 5)  # the next incarnation waits its start jitter,
        beat.begin(15.0)  # and then stands at the same place

    bench = Bench(restart)
    beat = bench.beats.worker("activation")
    beat.begin(15.0)
    bench.at(1030)
    bench.beats.pool_wait_spike("pool.main: fast_expiry waited 5.3 s")
    for second in range(1035, 1300, 5):
        bench.at(second)
    events = bench.events.recent()
    assert [event.age for event in events if isinstance(event, BeatStale)] == [95.0, 95.0, 95.0]
    (starving,) = [event for event in events if isinstance(event, WorkersStarve)]
    assert "activation was repaired and has proven no progress for 125.0 s" in starving.line()
    beat.progress()
    bench.beats.pool_wait_spike()
    bench.at(1301)
    beat.begin(15.0)
    bench.at(1302)
    assert len([event for event in bench.events.recent() if isinstance(event, WorkersStarve)]) == 1


# S-811
def test_a_worker_that_was_repaired_and_then_put_aside_starves_no_more() -> None:
    bench = Bench()
    beat = bench.beats.worker("activation")
    beat.begin(15.0)
    bench.at(1095)
    beat.probe = lambda: (WorkerState.PAUSED, 0.0)
    bench.at(1096)
    beat.probe = lambda: (WorkerState.ACTIVE, 0.0)
    beat.idle_until(5000)
    bench.beats.pool_wait_spike()
    bench.at(1300)
    assert not [event for event in bench.events.recent() if isinstance(event, WorkersStarve)]


def test_a_diagnostic_that_fails_still_tells_the_ages() -> None:
    def fail() -> Iterable[str]:
        raise RuntimeError("pool is gone")

    bench = Bench(diagnostic=fail)
    bench.beats.pool_wait_spike()
    bench.beats.worker("activation").begin(15.0)
    bench.at(1121)
    (starving,) = [event for event in bench.events.recent() if isinstance(event, WorkersStarve)]
    assert starving.diagnostic == ("no details: RuntimeError: pool is gone",)


def test_paused_parked_and_starving_are_sampled_on_the_loop() -> None:
    bench = Bench()
    state = {"paused": WorkerState.PAUSED, "parked": WorkerState.PARKED, "starved": WorkerState.ACTIVE}
    for name in state:
        beat = bench.beats.worker(name)
        beat.idle_until(math.inf)
        age = 91.0 if name == "starved" else 0.0
        beat.probe = lambda name=name, age=age: (state[name], age)
    bench.beats.worker("paused").idle_until(0)
    bench.beats.worker("parked").idle_until(0)
    bench.at(1000)
    assert bench.repaired == [Repair(RepairKind.WORKER, "starved", StaleReason.STARVED, 91.0)]


def test_the_settings_become_limits() -> None:
    assert limits_of(WatchdogSettings()) == StaleLimits()
    assert limits_of(WatchdogSettings(event_loop_stale=5, worker_critical=7)) == StaleLimits(
        event_loop=5, diagnostic_worker=7
    )


async def test_the_task_beats_and_measures_lateness_and_ends_with_its_thread() -> None:
    looked = trio.Event()

    class Signalling(Watchdog):
        def look(self, late: float = 0.0) -> None:
            super().look(late)
            looked.set()

    beats = Beats()
    dog = Signalling(beats, interval=0.02)
    async with trio.open_nursery() as nursery:
        await nursery.start(dog.run)
        thread = dog.thread
        assert thread is not None
        alive = [thread.is_alive]
        first = beats.event_loop
        assert first is not None
        with trio.fail_after(10):
            await looked.wait()
        assert (beats.event_loop or 0) > first
        dog.limits = StaleLimits(event_loop=7)
        assert thread.limits.event_loop == 7
        assert 'atlas_beat_age_seconds{beat="event_loop"}' in METRICS.render()
        nursery.cancel_scope.cancel()
    alive.append(thread.is_alive)
    assert alive == [True, False]
    assert "atlas_loop_lateness_seconds_count" in METRICS.render()
