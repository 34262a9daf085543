"""Time adds up, the best tariff is used up first, and each grant owns its own interval: nobody loses another one's time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.access.intervals import (
    Interval,
    add_interval,
    end_intervals,
    extend_interval,
    running_tariff,
    running_until,
    take_interval,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RANKS = {"basic": 10, "plus": 20, "max": 30}
NOTHING = timedelta(0)
Left = list[tuple[str, float]]


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


class Customer:
    """Buys under event numbers 1, 2, … and lets time pass."""

    def __init__(self) -> None:
        self.known: dict[int, Interval] = {}
        self.now = NOW

    def note(self, intervals: Sequence[Interval]) -> None:
        self.known |= {each.event_id: each for each in intervals}

    def buy(self, tariff: str, days: float) -> int:
        event_id = len(self.known) + 1
        result = add_interval(self.all, RANKS, self.now, tariff, timedelta(days=days))
        self.note([attrs.evolve(each, event_id=each.event_id or event_id) for each in result])
        return event_id

    def take(self, event_id: int, most: timedelta | None = None) -> timedelta:
        intervals, taken = take_interval(self.all, RANKS, self.now, event_id, most)
        self.note(intervals)
        return taken

    @property
    def all(self) -> list[Interval]:
        return [self.known[number] for number in sorted(self.known)]

    @property
    def left(self) -> dict[int, timedelta]:
        return {number: each.left(self.now) for number, each in self.known.items()}

    @property
    def end(self) -> datetime:
        return max([self.now, *(each.ends_at for each in self.all)])

    @property
    def runs(self) -> str | None:
        return running_tariff(self.all, RANKS, self.now)

    def check(self) -> None:
        """What is granted is used, taken or still to come, and what is to come has no gaps, the best tariff first."""
        for each in self.all:
            assert each.used + (each.ends_at - each.starts_at) + each.taken == each.granted
            assert min(each.used, each.taken, each.ends_at - each.starts_at) >= NOTHING
        queue = sorted((each for each in self.all if each.ends_at > self.now), key=lambda each: each.starts_at)
        assert self.end - self.now == sum(self.left.values(), NOTHING)
        for before, after in pairwise(queue):
            assert before.ends_at == after.starts_at
            assert (RANKS[before.tariff], -before.event_id) > (RANKS[after.tariff], -after.event_id)


@pytest.mark.parametrize(
    ("rule", "bought", "ends", "runs"),
    [
        ("the first purchase starts now", [("basic", 30)], [30], "basic"),
        ("the same tariff adds", [("basic", 10), ("basic", 30)], [10, 40], "basic"),
        ("an upgrade starts at once", [("basic", 10), ("plus", 30)], [40, 30], "plus"),
        ("a downgrade follows", [("plus", 10), ("basic", 30)], [10, 40], "plus"),
        ("the better shifts the lesser", [("plus", 10), ("basic", 30), ("plus", 30)], [10, 70, 40], "plus"),
        ("the lesser leaves the better", [("plus", 10), ("basic", 30), ("basic", 30)], [10, 40, 70], "plus"),
        ("in the middle", [("max", 5), ("basic", 10), ("plus", 10)], [5, 25, 15], "max"),
    ],
)
def test_adding(rule: str, bought: Left, ends: list[float], runs: str) -> None:
    customer = Customer()
    for tariff, days in bought:
        customer.buy(tariff, days)
    customer.check()
    assert [each.ends_at for each in customer.all] == [day(number) for number in ends], rule
    assert customer.runs == runs


def test_what_has_ended_does_not_count_and_an_end_that_equals_now_has_passed() -> None:
    customer = Customer()
    customer.buy("basic", 5)
    customer.now = day(5)
    assert customer.runs is None
    assert customer.take(1) == NOTHING
    customer.buy("basic", 30)
    assert (customer.end, customer.left[1]) == (day(35), NOTHING)


def test_the_tariff_that_runs_follows_when_the_better_one_runs_out() -> None:
    customer = Customer()
    customer.buy("plus", 10)
    customer.buy("basic", 30)
    assert running_until(customer.all, "plus") == day(10)
    seen = [running_tariff(customer.all, RANKS, day(number)) for number in (0, 9, 10, 39, 40)]
    assert seen == ["plus", "plus", "basic", "basic", None]


@pytest.mark.parametrize(
    ("rule", "bought", "after", "of", "taken", "left"),
    [
        ("an unused period goes whole", [("basic", 30)], 0, 1, 30, [0]),
        ("another period of the same stays", [("basic", 30), ("basic", 30)], 0, 1, 30, [0, 30]),
        ("what was used is not taken", [("basic", 30)], 20, 1, 10, [0]),
        ("a used-up period takes nothing from the next", [("basic", 30), ("basic", 30)], 45, 1, 0, [0, 15]),
        ("the second goes, the first stays", [("basic", 30), ("basic", 30)], 10, 2, 30, [20, 0]),
        ("what follows comes earlier", [("plus", 30), ("basic", 30)], 10, 1, 20, [0, 30]),
        ("what goes before stays", [("plus", 20), ("basic", 30)], 0, 2, 30, [20, 0]),
        ("what an upgrade pushed aside", [("basic", 30), ("plus", 30)], 40, 1, 20, [0, 0]),
    ],
)
def test_taking_back(rule: str, bought: Left, after: float, of: int, taken: float, left: list[float]) -> None:
    customer = Customer()
    for tariff, days in bought:
        customer.buy(tariff, days)
    customer.now = day(after)
    end = customer.end
    assert customer.take(of) == timedelta(days=taken), rule
    customer.check()
    assert list(customer.left.values()) == [timedelta(days=number) for number in left], rule
    assert customer.end == end - timedelta(days=taken)


def test_a_part_is_taken_from_the_tail_of_its_own_interval() -> None:
    customer = Customer()
    customer.buy("basic", 30)
    customer.buy("basic", 30)
    customer.now = day(10)
    assert customer.take(1, timedelta(days=5)) == timedelta(days=5)
    assert customer.left == {1: timedelta(days=15), 2: timedelta(days=30)}


@pytest.mark.parametrize(("wait", "end"), [(0.5, 30.5), (30, 30.5), (100, 100.5)])
def test_time_that_was_not_delivered_is_added_also_to_what_is_over(wait: float, end: float) -> None:
    customer = Customer()
    customer.buy("basic", 30)
    customer.now = day(wait)
    customer.note(extend_interval(customer.all, RANKS, customer.now, 1, timedelta(days=0.5)))
    customer.check()
    assert customer.end == day(end)


def test_ending_takes_what_was_left_and_a_later_purchase_owns_all_that_follows() -> None:
    customer = Customer()
    customer.buy("basic", 30)
    customer.buy("plus", 30)
    customer.now = day(10)
    customer.note(end_intervals(customer.all, customer.now))
    customer.check()
    assert [each.taken for each in customer.all] == [timedelta(days=30), timedelta(days=20)]
    customer.buy("basic", 30)
    assert customer.take(1) == customer.take(2) == NOTHING
    assert customer.left[3] == timedelta(days=30)


def test_a_transaction_that_began_earlier_lays_out_after_one_that_began_later() -> None:
    customer = Customer()
    customer.now = day(0.25)
    customer.buy("basic", 30)
    customer.now = day(0)  # its clock stood when it began, before the other one's
    customer.buy("basic", 30)
    assert customer.end == day(60.25), "time is additive whoever comes first"
    customer.now = day(0.25)
    customer.check()


ACTION = st.one_of(
    st.tuples(st.just("buy"), st.sampled_from(sorted(RANKS)), st.integers(1, 400)),
    st.tuples(st.just("take"), st.integers(1, 12), st.integers(1, 400)),
    st.tuples(st.just("delay"), st.integers(1, 12), st.integers(1, 30)),
    st.tuples(st.just("wait"), st.integers(1, 200), st.just(0)),
    st.tuples(st.just("end"), st.just(0), st.just(0)),
)


@given(st.lists(ACTION, max_size=24))
def test_what_one_grant_owns_is_moved_by_its_own_events_and_by_time_alone(
    actions: list[tuple[str, object, int]],
) -> None:
    """Against counting hours: of the open grants the best and oldest is used, one hour after the other."""
    customer = Customer()
    counted: dict[int, list[object]] = {}  # event: [tariff, days left]

    def open_days() -> list[tuple[int, int, int]]:
        return sorted((-RANKS[str(tariff)], event, int(str(left))) for event, (tariff, left) in counted.items() if left)

    for what, subject, days in actions:
        if what == "buy":
            event = customer.buy(str(subject), days)
            counted[event] = [subject, days]
        elif what == "take" and subject in counted:
            most = min(days, int(str(counted[int(str(subject))][1])))
            assert customer.take(int(str(subject)), timedelta(days=days)) == timedelta(days=most)
            counted[int(str(subject))][1] = int(str(counted[int(str(subject))][1])) - most
        elif what == "delay" and subject in counted:
            number = int(str(subject))
            customer.note(extend_interval(customer.all, RANKS, customer.now, number, timedelta(days=days)))
            counted[number][1] = int(str(counted[number][1])) + days
        elif what == "wait":
            customer.now += timedelta(days=int(str(subject)))
            wait = int(str(subject))
            for _, event, left in open_days():
                used = min(wait, left)
                counted[event][1] = left - used
                wait -= used
        elif what == "end":
            customer.note(end_intervals(customer.all, customer.now))
            for event in counted:
                counted[event][1] = 0
        customer.check()
        assert customer.left == {event: timedelta(days=int(str(left))) for event, (_, left) in counted.items()}
