from __future__ import annotations

import itertools
import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.beats import Beats, WorkerState
from runtime.watchdog.verdict import (
    Action,
    Ages,
    Diagnose,
    LeaveProcess,
    LoopBlocked,
    Repair,
    RepairKind,
    Snapshot,
    StaleLimits,
    StaleReason,
    WorkerSample,
    all_stale,
    beat_ages,
    judge,
    take_snapshot,
    worker_age,
)

NOW = 10_000.0
LIMITS = StaleLimits()
STATES = ("fresh", "stale", "absent")


def overdue(by: float, name: str = "activation") -> WorkerSample:
    return WorkerSample(name, next_due=NOW - by)


def snapshot(loop: str, worker: str, healthcheck: str) -> Snapshot:
    """Stale here is beyond every limit, and below the diagnostic's."""
    stamp = {"fresh": NOW - 1, "stale": NOW - 100, "absent": None}
    workers = {"fresh": (overdue(-300),), "stale": (overdue(100),), "absent": ()}
    return Snapshot(NOW, event_loop=stamp[loop], healthcheck=stamp[healthcheck], workers=workers[worker])


def name_of(action: Action) -> str:
    return action.kind.value if isinstance(action, Repair) else type(action).__name__


# loop, worker, healthcheck -> what is done. The whole table, written out.
TABLE = {
    ("fresh", "fresh", "fresh"): [],
    ("fresh", "fresh", "stale"): ["healthcheck"],
    ("fresh", "fresh", "absent"): [],
    ("fresh", "stale", "fresh"): ["worker"],
    ("fresh", "stale", "stale"): ["worker", "healthcheck"],
    ("fresh", "stale", "absent"): ["worker"],
    ("fresh", "absent", "fresh"): [],
    ("fresh", "absent", "stale"): ["healthcheck"],
    ("fresh", "absent", "absent"): [],
    ("stale", "fresh", "fresh"): ["LoopBlocked"],
    ("stale", "fresh", "stale"): ["LoopBlocked"],
    ("stale", "fresh", "absent"): ["LoopBlocked"],
    ("stale", "stale", "fresh"): ["LoopBlocked"],
    ("stale", "stale", "stale"): ["LoopBlocked", "LeaveProcess"],
    ("stale", "stale", "absent"): ["LoopBlocked", "LeaveProcess"],
    ("stale", "absent", "fresh"): ["LoopBlocked"],
    ("stale", "absent", "stale"): ["LoopBlocked", "LeaveProcess"],
    ("stale", "absent", "absent"): ["LoopBlocked", "LeaveProcess"],
    ("absent", "fresh", "fresh"): [],
    ("absent", "fresh", "stale"): ["healthcheck"],
    ("absent", "fresh", "absent"): [],
    ("absent", "stale", "fresh"): ["worker"],
    ("absent", "stale", "stale"): ["worker", "healthcheck"],
    ("absent", "stale", "absent"): ["worker"],
    ("absent", "absent", "fresh"): [],
    ("absent", "absent", "stale"): ["healthcheck"],
    ("absent", "absent", "absent"): [],
}


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(itertools.product(STATES, repeat=3))


# S-806
@pytest.mark.parametrize(("beats", "expected"), TABLE.items(), ids=lambda value: "-".join(value) or "nothing")
def test_every_combination_of_fresh_stale_and_absent(beats: tuple[str, str, str], expected: list[str]) -> None:
    state = snapshot(*beats)
    assert [name_of(action) for action in judge(state, LIMITS)] == expected
    assert all_stale(beat_ages(state), LIMITS) == ("LeaveProcess" in expected)


# S-811
@pytest.mark.parametrize(("beats", "expected"), TABLE.items(), ids=lambda value: "-".join(value) or "nothing")
@pytest.mark.parametrize("spike", [None, 10.0, 300.0, 301.0])
def test_a_diagnostic_needs_a_very_stale_worker_and_a_recent_spike(
    beats: tuple[str, str, str], expected: list[str], spike: float | None
) -> None:
    """The table again with a worker stale for longer than 120 s, crossed with the age of the spike."""
    state = attrs.evolve(snapshot(*beats), last_pool_wait_spike=None if spike is None else NOW - spike)
    assert "Diagnose" not in [name_of(action) for action in judge(state, LIMITS)], "stale, but not beyond 120 s"
    if beats[1] == "stale":
        state = attrs.evolve(state, workers=(overdue(121),))
    found = [name_of(action) for action in judge(state, LIMITS)]
    wanted = beats[1] == "stale" and spike is not None and spike <= 300
    assert ("Diagnose" in found) == wanted
    assert [name for name in found if name != "Diagnose"] == expected


# S-801
@pytest.mark.parametrize(
    ("ages", "exits"),
    [
        ((60.0, 90.0, 90.0), False),
        ((60.1, 90.0, 90.0), False),
        ((60.0, 90.1, 90.1), False),
        ((60.1, 90.1, 90.0), False),
        ((60.1, 90.0, 90.1), False),
        ((60.1, 90.1, 90.1), True),
    ],
)
def test_the_limits_are_60_90_90_and_a_beat_at_its_limit_is_fresh(
    ages: tuple[float, float, float], exits: bool
) -> None:
    loop, worker, healthcheck = ages
    state = Snapshot(NOW, event_loop=NOW - loop, healthcheck=NOW - healthcheck, workers=(overdue(worker),))
    assert any(isinstance(action, LeaveProcess) for action in judge(state, LIMITS)) is exits


# S-804
@pytest.mark.parametrize(("age", "exits"), [(60.1, False), (90.0, False), (90.1, True)])
def test_an_absent_beat_takes_the_age_of_the_loop_against_its_own_limit(age: float, exits: bool) -> None:
    state = Snapshot(NOW, event_loop=NOW - age)
    assert any(isinstance(action, LeaveProcess) for action in judge(state, LIMITS)) is exits


# S-808
def test_a_block_is_reported_long_before_it_is_stale() -> None:
    assert judge(Snapshot(NOW, event_loop=NOW - 5), LIMITS) == []
    assert judge(Snapshot(NOW, event_loop=NOW - 6), LIMITS) == [LoopBlocked(6.0, stale=False)]
    assert judge(Snapshot(NOW, event_loop=NOW - 61), LIMITS) == [LoopBlocked(61.0, stale=True)]


P, K = WorkerState.PAUSED, WorkerState.PARKED


# S-802
@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        (WorkerSample("w"), (0, None)),
        (WorkerSample("w", next_due=NOW + 500, progressed_at=NOW - 5000), (0, None)),
        (WorkerSample("w", next_due=NOW - 70), (70, StaleReason.OVERDUE)),
        (WorkerSample("w", handling_since=NOW - 14, progressed_at=NOW - 14, limit=15), (0, None)),
        (WorkerSample("w", handling_since=NOW - 16, progressed_at=NOW - 16, limit=15), (16, StaleReason.STUCK)),
        (WorkerSample("w", handling_since=NOW - 500, progressed_at=NOW - 2, limit=15), (0, None)),
        (WorkerSample("w", handling_since=NOW - 500, progressed_at=NOW - 40, limit=15), (40, StaleReason.STUCK)),
        # While it works, the due time of the round before says nothing.
        (WorkerSample("w", next_due=NOW - 900, handling_since=NOW - 1, progressed_at=NOW - 1, limit=15), (0, None)),
        (WorkerSample("w", waiting_since=NOW - 95), (95, StaleReason.STARVED)),
        (WorkerSample("w", next_due=NOW - 200, waiting_since=NOW - 95), (200, StaleReason.OVERDUE)),
        (WorkerSample("w", next_due=NOW - 20, waiting_since=NOW - 95), (95, StaleReason.STARVED)),
        (WorkerSample("w", state=P, next_due=NOW - 900), None),
        (WorkerSample("w", state=K, handling_since=NOW - 900, limit=1, waiting_since=NOW - 900), None),
    ],
)
def test_when_a_worker_is_fresh_overdue_stuck_starved_or_left_out(
    worker: WorkerSample, expected: tuple[float, StaleReason | None] | None
) -> None:
    assert worker_age(worker, Snapshot(NOW)) == expected


# S-802
def test_the_worker_beat_is_the_stalest_of_all_active_workers() -> None:
    workers = (
        overdue(-100, "fresh"),
        overdue(91, "late"),
        overdue(95, "later"),
        WorkerSample("paused", state=P, next_due=0),
        WorkerSample("parked", state=K, next_due=0),
    )
    state = Snapshot(NOW, event_loop=NOW, workers=workers)
    assert beat_ages(state) == Ages(0.0, 95.0, None, "later", StaleReason.OVERDUE)
    assert judge(state, LIMITS) == [
        Repair(RepairKind.WORKER, "late", StaleReason.OVERDUE, 91.0),
        Repair(RepairKind.WORKER, "later", StaleReason.OVERDUE, 95.0),
    ]


# S-803
def test_with_every_worker_paused_or_parked_the_worker_beat_is_absent() -> None:
    state = Snapshot(NOW, event_loop=NOW, workers=(WorkerSample("a", state=P), WorkerSample("b", state=K)))
    assert beat_ages(state).worker is None


def test_a_wedged_pool_is_replaced_and_is_no_part_of_the_worker_beat() -> None:
    wedged = WorkerSample("pool.main", handling_since=NOW - 95, progressed_at=NOW - 95, limit=5)
    state = Snapshot(NOW, event_loop=NOW, pools=(wedged,))
    assert judge(state, LIMITS) == [Repair(RepairKind.POOL, "pool.main", StaleReason.STUCK, 95.0)]
    assert beat_ages(state).worker is None


# S-810
def test_a_forgiven_pause_restarts_every_age() -> None:
    slept = Snapshot(
        NOW,
        event_loop=NOW - 4000,
        healthcheck=NOW - 4000,
        workers=(
            overdue(4000, "overdue"),
            WorkerSample("stuck", handling_since=NOW - 4000, progressed_at=NOW - 4000, limit=15),
            WorkerSample("starved", waiting_since=NOW - 4000),
        ),
        last_pool_wait_spike=NOW - 250,
    )
    assert LeaveProcess in map(type, judge(slept, LIMITS))
    assert judge(attrs.evolve(slept, ages_count_from=NOW), LIMITS) == []
    later = attrs.evolve(slept, now=NOW + 91, ages_count_from=NOW)
    assert LeaveProcess in map(type, judge(later, LIMITS)), "forgiven one round, not for ever"


def test_lines_name_who_why_and_since_when() -> None:
    ages = Ages(61.04, 130.0, None, "activation", StaleReason.STUCK, spike=12.0)
    assert ages.line() == (
        "event_loop 61.0 s, worker 130.0 s (activation is stuck), healthcheck absent; last pool wait spike: 12.0 s ago"
    )
    assert "none seen" in Ages(1.0, 0.0, 2.0).line()
    repair = Repair(RepairKind.WORKER, "activation", StaleReason.OVERDUE, 91.0)
    assert repair.line() == "worker activation is overdue for 91.0 s: restarting it"


def test_reading_the_slots_copies_them_all() -> None:
    now = 50.0
    beats = Beats(lambda: now)
    beats.tick()
    beats.probed()
    beats.pool_wait_spike("pool.main")
    beat = beats.worker("w")
    beat.begin(15.0)
    beat.waiting_since = 40.0
    beats.pool("p").idle_until(80.0)
    now = 60.0
    assert take_snapshot(beats, ages_count_from=5.0) == Snapshot(
        now=60.0,
        event_loop=50.0,
        healthcheck=50.0,
        workers=(WorkerSample("w", WorkerState.ACTIVE, math.inf, 50.0, 50.0, 15.0, 40.0),),
        pools=(WorkerSample("p", WorkerState.ACTIVE, 80.0, None, 50.0),),
        last_pool_wait_spike=50.0,
        ages_count_from=5.0,
    )


stamps = st.none() | st.floats(NOW - 1000, NOW)
samples = st.builds(
    WorkerSample,
    name=st.sampled_from("abc"),
    state=st.sampled_from(WorkerState),
    next_due=st.floats(NOW - 1000, NOW + 1000),
    handling_since=stamps,
    progressed_at=st.floats(NOW - 1000, NOW),
    limit=st.floats(1, 100),
    waiting_since=stamps,
)
snapshots = st.builds(
    Snapshot,
    now=st.just(NOW),
    event_loop=stamps,
    healthcheck=stamps,
    workers=st.lists(samples, max_size=3).map(tuple),
    last_pool_wait_spike=stamps,
    ages_count_from=st.just(-math.inf) | st.floats(NOW - 1000, NOW),
)


# S-806
@given(snapshots)
def test_no_exit_while_any_beat_that_can_testify_is_fresh(state: Snapshot) -> None:
    ages = beat_ages(state)
    actions = judge(state, LIMITS)
    exits = [action for action in actions if isinstance(action, LeaveProcess)]
    limits = {"event_loop": 60, "worker": 90, "healthcheck": 90}
    fresh = [name for name, limit in limits.items() if (age := getattr(ages, name)) is not None and age <= limit]
    if fresh or ages.event_loop is None:
        assert not exits
    if ages.event_loop is not None and ages.event_loop > 90 and not fresh:
        assert exits
    # While the loop stands nobody else is blamed.
    if ages.event_loop is not None and ages.event_loop > 60:
        assert not [action for action in actions if isinstance(action, Repair)]
    for action in actions:
        if isinstance(action, Diagnose):
            assert action.ages.worker is not None
            assert action.ages.worker > 120
