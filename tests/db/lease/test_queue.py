"""Who is next, and who is told early: rules of the queue, without clock or I/O."""

from __future__ import annotations

import heapq
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.lease.queue import BATCH_SHARE, CoDel, Lane, LeaseQueue, QueuedRequest

ANY_LANE = st.sampled_from(list(Lane))


def waiter(label: str = "w", lane: Lane = Lane.INTERACTIVE, since: float = 0.0) -> QueuedRequest[str]:
    return QueuedRequest(label, lane, since, since + 10, label)


def filled(*waiters: QueuedRequest[str], limit: int = 100) -> LeaseQueue[str]:
    queue: LeaseQueue[str] = LeaseQueue(limit=limit)
    for each in waiters:
        assert queue.put(each)
    return queue


def served(queue: LeaseQueue[str], now: float = 0.0) -> list[str]:
    order = []
    while (found := queue.take(now)) is not None:
        order.append(found.payload)
    return order


def test_a_lane_is_first_in_first_out() -> None:
    assert served(filled(*(waiter(str(n)) for n in range(5)))) == ["0", "1", "2", "3", "4"]


def test_the_system_lane_goes_first() -> None:
    queue = filled(waiter("batch", Lane.BATCH), waiter("user"), waiter("health", Lane.SYSTEM))
    assert served(queue) == ["health", "user", "batch"]


def test_only_the_system_lane_is_served_from_what_is_reserved() -> None:
    queue = filled(waiter("user"), waiter("health", Lane.SYSTEM))
    first = queue.take(0, system_only=True)
    assert first is not None
    assert first.payload == "health"
    assert queue.take(0, system_only=True) is None
    assert len(queue) == 1


def test_batch_work_gets_its_share_and_no_more() -> None:
    users = [waiter(f"u{n}") for n in range(12)]
    batch = [waiter(f"b{n}", Lane.BATCH) for n in range(12)]
    order = served(filled(*users, *batch))
    assert [label[0] for label in order[: BATCH_SHARE * 3]] == ["u", "u", "u", "b"] * 3
    assert len(order) == 24


def test_a_waiter_that_gave_up_is_skipped_and_not_counted() -> None:
    gone = waiter("gone")
    queue = filled(waiter("first"), gone, waiter("last"))
    queue.discard(gone)
    queue.discard(gone)
    assert len(queue) == 2
    assert served(queue) == ["first", "last"]


def test_one_that_could_not_be_served_keeps_its_turn() -> None:
    queue = filled(waiter("first"), waiter("second"))
    first = queue.take(0)
    assert first is not None
    queue.put_first(first)
    assert served(queue) == ["first", "second"]


def test_the_bound_refuses_the_next_but_never_the_system_lane() -> None:
    queue = filled(waiter("1"), waiter("2", Lane.BATCH), limit=2)
    assert not queue.put(waiter("3"))
    assert queue.put(waiter("health", Lane.SYSTEM))
    assert not queue.put(waiter("4", Lane.BATCH))
    assert len(queue) == 3


def test_room_comes_back_when_somebody_gives_up() -> None:
    first = waiter("1")
    queue = filled(first, limit=1)
    queue.discard(first)
    assert queue.put(waiter("2"))


def test_those_who_gave_up_do_not_pile_up_behind_one_who_waits() -> None:
    queue = filled(waiter("patient"))
    for number in range(5_000):
        gone = waiter(str(number))
        assert queue.put(gone)
        queue.discard(gone)
    assert len(queue._lanes[Lane.INTERACTIVE]) < 100
    assert queue.put(waiter("last"))
    assert served(queue) == ["patient", "last"]


def test_draining_empties_all_lanes_or_all_but_the_system_lane() -> None:
    queue = filled(waiter("user"), waiter("health", Lane.SYSTEM), waiter("batch", Lane.BATCH))
    assert {w.payload for w in queue.drain(keep_system=True)} == {"user", "batch"}
    assert [w.payload for w in queue.drain()] == ["health"]
    assert len(queue) == 0


def test_a_burst_that_passes_within_the_interval_sheds_nobody() -> None:
    queue = filled(*(waiter(str(n)) for n in range(50)))
    for tick in range(1, 10):
        assert queue.hopeless(tick / 10) == []
        queue.take(tick / 10)
    assert not queue.codel.slow


def test_a_queue_that_stands_still_is_noticed_and_sheds_whoever_waited_too_long() -> None:
    queue = filled(waiter("old", since=0.0), waiter("health", Lane.SYSTEM, since=0.0))
    ticks = [n / 10 for n in range(1, 40)]
    shed_at = {now: [w.payload for w in queue.hopeless(now)] for now in ticks}
    assert ["old"] in shed_at.values()
    assert 1.0 < min(now for now, shed in shed_at.items() if shed) < 3.0
    assert not queue.codel.slow, "nobody waits any more"
    assert [w.payload for w in queue] == ["health"]


def test_one_short_wait_ends_the_overload() -> None:
    codel = CoDel(target=0.1, interval=1.0)
    for tick in range(25):
        codel.observe(0.5, tick / 10)
    assert codel.shed_after == pytest.approx(0.2)
    codel.observe(0.05, 2.6)
    assert codel.shed_after == math.inf


def test_an_overload_back_after_a_lull_is_known_at_once_a_later_one_is_proved_anew() -> None:
    codel = CoDel(target=0.1, interval=1.0)
    for tick in range(25):
        codel.observe(0.5, tick / 10)
    codel.observe(0.05, 2.5)
    codel.observe(0.15, 2.6)
    assert codel.shed_after == math.inf, "not long yet"
    codel.observe(0.21, 2.7)
    assert codel.shed_after == pytest.approx(0.2)
    codel.observe(0.05, 2.8)
    codel.observe(0.5, 9.0)
    assert codel.shed_after == math.inf, "a burst"


def test_long_waits_far_apart_are_no_overload() -> None:
    codel = CoDel(target=0.1, interval=1.0)
    for hour in range(5):
        codel.observe(0.5, hour * 3600.0)
    assert not codel.slow


def test_an_overload_with_lulls_is_served_at_capacity_and_the_rest_is_told_early() -> None:
    """Ten connections, 10 ms of work each, asked for 1.5 × what they can do, with a pause of 0.2 s now and then."""
    chance = random.Random(1)
    queue: LeaseQueue[str] = LeaseQueue(limit=500)
    free, served_in_all, lull = 10, 0, 3.0
    shed: list[float] = []
    events: list[tuple[float, int, str]] = [(0.0, 0, "asks"), (0.1, 1, "ticks")]
    numbers = itertools.count(2)
    while events[0][0] < 30.0:
        now, _, what = heapq.heappop(events)
        if what == "asks":
            queue.put(waiter(since=now))
            due = now + chance.expovariate(1500)
            if due > lull:
                due, lull = due + 0.2, lull + chance.uniform(1.5, 4.5)
            heapq.heappush(events, (due, next(numbers), "asks"))
        elif what == "ticks":
            hopeless = queue.hopeless(now)
            shed += [now - each.since for each in hopeless if now > 3.0]  # by then it is known to be slow
            heapq.heappush(events, (now + 0.1, next(numbers), "ticks"))
        else:
            free += 1
        while free and queue.take(now) is not None:
            free, served_in_all = free - 1, served_in_all + 1
            heapq.heappush(events, (now + 0.01, next(numbers), "done"))
    assert served_in_all > 0.95 * 1000 * 30
    assert len(shed) > 5_000
    assert sorted(shed)[int(0.99 * len(shed))] < 0.3


@given(st.lists(st.tuples(ANY_LANE, st.booleans()), max_size=60))
def test_everybody_who_stayed_is_served_once_and_in_the_order_of_the_lane(arrivals: list[tuple[Lane, bool]]) -> None:
    waiters = [waiter(str(n), lane) for n, (lane, _) in enumerate(arrivals)]
    queue = filled(*waiters)
    for each, (_, leaves) in zip(waiters, arrivals, strict=True):
        if leaves:
            queue.discard(each)
    stayed = [each for each, (_, leaves) in zip(waiters, arrivals, strict=True) if not leaves]
    assert len(queue) == len(stayed)
    order = served(queue)
    assert sorted(order) == sorted(each.payload for each in stayed)
    for lane in Lane:
        mine = {each.payload for each in stayed if each.lane is lane}
        assert [label for label in order if label in mine] == sorted(mine, key=int)
    assert len(queue) == 0
