from __future__ import annotations

from runtime.arrivals import Arrivals


def test_a_message_came_when_the_last_mark_before_it_was_set() -> None:
    arrivals = Arrivals(limit=10)
    for position, time in ((1, 10.0), (4, 20.0), (5, 30.0)):
        arrivals.mark(position, time)
    assert [arrivals.since(first) for first in (1, 2, 3, 4, 5, 6)] == [10.0, 10.0, 10.0, 20.0, 30.0, 30.0]


def test_the_marks_of_what_no_longer_waits_are_forgotten() -> None:
    arrivals = Arrivals(limit=3)
    fullness = []
    for position in (1, 2, 3):
        fullness.append(arrivals.is_full)
        arrivals.mark(position, float(position))
    fullness.append(arrivals.is_full)
    arrivals.forget_before(3)
    fullness.append(arrivals.is_full)
    assert fullness == [False, False, False, True, False]
    assert arrivals.since(3) == 3.0


def test_the_last_mark_is_never_forgotten() -> None:
    arrivals = Arrivals(limit=3)
    arrivals.mark(1, 5.0)
    arrivals.forget_before(100)
    assert arrivals.since(100) == 5.0
