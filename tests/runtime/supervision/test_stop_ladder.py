"""The rungs of a stop, on a clock made of numbers."""

from __future__ import annotations

import math

from runtime.supervision.stop_ladder import MINIMUM_GRACE, Rung, StopLadder, Unstopped


# S-602
def test_it_asks_then_cancels_then_reports() -> None:
    ladder = StopLadder(100.0, shutdown=5.0, kill_grace=1.0)
    assert (ladder.rung, ladder.deadline) == (Rung.ASKED, 105.0)
    assert not ladder.climb(104.9)
    assert ladder.climb(105.0)
    assert (ladder.rung, ladder.deadline) == (Rung.CANCELLED, 106.0)
    assert not ladder.climb(105.9)
    assert ladder.climb(106.0)
    assert (ladder.rung, ladder.deadline) == (Rung.UNSTOPPED, math.inf)
    assert not ladder.climb(1e9)


def test_no_time_to_ask_means_cancelling_at_once() -> None:
    assert StopLadder(100.0, shutdown=0.0, kill_grace=1.0).rung is Rung.CANCELLED


def test_the_budget_cuts_both_times_and_keeps_the_grace_inside() -> None:
    ladder = StopLadder(100.0, shutdown=5.0, kill_grace=1.0, budget=103.0)
    assert ladder.deadline == 102.0
    ladder.climb(102.0)
    assert ladder.deadline == 103.0


# S-604
def test_a_spent_budget_leaves_a_healthy_child_one_turn() -> None:
    ladder = StopLadder(100.0, shutdown=5.0, kill_grace=1.0, budget=90.0)
    assert (ladder.rung, ladder.deadline) == (Rung.CANCELLED, 100.0 + MINIMUM_GRACE)


def test_an_endless_shutdown_waits_for_its_budget_only() -> None:
    assert StopLadder(100.0, shutdown=math.inf, kill_grace=1.0).deadline == math.inf
    assert StopLadder(100.0, shutdown=math.inf, kill_grace=1.0, budget=130.0).deadline == 129.0


def test_cancelling_early_skips_the_rest_of_the_asking_once() -> None:
    ladder = StopLadder(100.0, shutdown=5.0, kill_grace=1.0)
    assert ladder.cancel(101.0)
    assert ladder.deadline == 102.0
    assert not ladder.cancel(101.5)
    assert ladder.deadline == 102.0


# S-604
def test_shortening_brings_the_deadline_forward_and_never_back() -> None:
    ladder = StopLadder(100.0, shutdown=50.0, kill_grace=1.0)
    ladder.shorten(101.0, 111.0)
    assert ladder.deadline == 110.0
    ladder.shorten(101.0, 200.0)
    assert ladder.deadline == 110.0
    ladder.shorten(105.0, 90.0)
    assert ladder.deadline == 105.0


def test_shortening_a_cancelled_child_leaves_it_one_turn() -> None:
    ladder = StopLadder(100.0, shutdown=0.0, kill_grace=10.0)
    ladder.shorten(101.0, 50.0)
    assert ladder.deadline == 101.0 + MINIMUM_GRACE


def test_a_report_names_the_path_from_above() -> None:
    report = Unstopped("a", 3, "Work", 6.0, "stack")
    assert report.below("nodes").below("top").name == "top/nodes/a"
