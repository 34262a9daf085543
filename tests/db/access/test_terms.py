"""Time adds up; the best tariff is used up first; nothing is lost and nothing turns dear."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.access.terms import add_period, remaining, running_tariff, take_period

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RANKS = {"basic": 10, "plus": 20, "max": 30}


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


@pytest.mark.parametrize(
    ("rule", "before", "tariff", "days", "after", "runs"),
    [
        ("the first purchase starts now", {}, "basic", 30, {"basic": 30}, "basic"),
        ("the same tariff adds", {"basic": 10}, "basic", 30, {"basic": 40}, "basic"),
        ("what has ended does not count", {"basic": -5}, "basic", 30, {"basic": 30}, "basic"),
        ("an upgrade starts at once", {"basic": 10}, "plus", 30, {"plus": 30, "basic": 40}, "plus"),
        ("a downgrade follows", {"plus": 10}, "basic", 30, {"plus": 10, "basic": 40}, "plus"),
        ("the better shifts the lesser", {"plus": 10, "basic": 40}, "plus", 30, {"plus": 40, "basic": 70}, "plus"),
        ("the lesser leaves the better", {"plus": 10, "basic": 40}, "basic", 30, {"plus": 10, "basic": 70}, "plus"),
        ("in the middle", {"max": 5, "basic": 15}, "plus", 10, {"max": 5, "plus": 15, "basic": 25}, "max"),
    ],
)
def test_rule(rule: str, before: dict[str, int], tariff: str, days: int, after: dict[str, int], runs: str) -> None:
    ends = {name: day(number) for name, number in before.items()}
    result = add_period(ends, RANKS, NOW, tariff, timedelta(days=days))
    assert result == {name: day(number) for name, number in after.items()}, rule
    assert running_tariff(result, RANKS, NOW) == runs


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(RANKS)), st.integers(1, 400), st.integers(0, 200)), min_size=1, max_size=12
    )
)
def test_the_end_always_moves_to_the_later_of_now_and_the_end_plus_the_period(
    purchases: list[tuple[str, int, int]],
) -> None:
    ends: dict[str, datetime] = {}
    now = NOW
    for tariff, days, wait in purchases:
        now += timedelta(days=wait)
        before = max([now, *ends.values()])
        ends = add_period(ends, RANKS, now, tariff, timedelta(days=days))
        assert max(ends.values()) == before + timedelta(days=days)
        # No tariff is used longer than it was paid for: better ones end first.
        ordered = sorted(ends, key=RANKS.__getitem__, reverse=True)
        assert [ends[name] for name in ordered] == sorted(ends.values())


def test_an_end_that_equals_now_has_passed() -> None:
    ends = {"basic": NOW, "plus": NOW}
    assert running_tariff(ends, RANKS, NOW) is None
    assert remaining(ends, RANKS, NOW) == {}
    assert add_period(ends, RANKS, NOW, "basic", timedelta(days=30)) == {"basic": day(30)}
    assert take_period(ends, RANKS, NOW, "basic", timedelta(days=30)) == ({}, timedelta(0))


def test_the_tariff_that_runs_follows_when_the_better_one_runs_out() -> None:
    ends = {"plus": day(10), "basic": day(40)}
    assert [running_tariff(ends, RANKS, day(number)) for number in (0, 9, 10, 39, 40)] == [
        "plus",
        "plus",
        "basic",
        "basic",
        None,
    ]


@pytest.mark.parametrize(
    ("rule", "before", "tariff", "days", "after", "taken"),
    [
        ("an unused period goes whole", {"basic": 30}, "basic", 30, {"basic": 0}, 30),
        ("another period of the same stays", {"basic": 60}, "basic", 30, {"basic": 30}, 30),
        ("what was used is not taken", {"basic": 10}, "basic", 30, {"basic": 0}, 10),
        ("what follows comes earlier", {"plus": 20, "basic": 50}, "plus", 30, {"plus": 0, "basic": 30}, 20),
        ("what goes before stays", {"plus": 20, "basic": 50}, "basic", 30, {"plus": 20, "basic": 20}, 30),
        ("nothing left, nothing taken", {"plus": 20}, "basic", 30, {"plus": 20}, 0),
    ],
)
def test_taking_back(
    rule: str, before: dict[str, int], tariff: str, days: int, after: dict[str, int], taken: int
) -> None:
    ends = {name: day(number) for name, number in before.items()}
    assert take_period(ends, RANKS, NOW, tariff, timedelta(days=days)) == (
        {name: day(number) for name, number in after.items()},
        timedelta(days=taken),
    ), rule


PURCHASES = st.lists(
    st.tuples(st.sampled_from(sorted(RANKS)), st.integers(1, 400), st.integers(0, 200)), min_size=1, max_size=12
)


@given(PURCHASES, st.sampled_from(sorted(RANKS)), st.integers(1, 400), st.integers(0, 300))
def test_taking_back_moves_the_end_by_what_was_left_of_that_tariff_and_nothing_else(
    purchases: list[tuple[str, int, int]], tariff: str, days: int, wait: int
) -> None:
    ends: dict[str, datetime] = {}
    now = NOW
    for bought, period, pause in purchases:
        now += timedelta(days=pause)
        ends = add_period(ends, RANKS, now, bought, timedelta(days=period))
    now += timedelta(days=wait)
    before = remaining(ends, RANKS, now)
    result, taken = take_period(ends, RANKS, now, tariff, timedelta(days=days))
    assert taken == min(timedelta(days=days), before.get(tariff, timedelta(0)))
    after = remaining(result, RANKS, now)
    assert {name: after.get(name, timedelta(0)) for name in before} == {
        name: left - taken if name == tariff else left for name, left in before.items()
    }


@given(PURCHASES, st.sampled_from(sorted(RANKS)), st.integers(1, 400))
def test_adding_and_taking_back_at_once_leaves_every_tariff_what_it_had(
    purchases: list[tuple[str, int, int]], tariff: str, days: int
) -> None:
    ends: dict[str, datetime] = {}
    now = NOW
    for bought, period, pause in purchases:
        now += timedelta(days=pause)
        ends = add_period(ends, RANKS, now, bought, timedelta(days=period))
    more = add_period(ends, RANKS, now, tariff, timedelta(days=days))
    result, taken = take_period(more, RANKS, now, tariff, timedelta(days=days))
    assert taken == timedelta(days=days)
    assert remaining(result, RANKS, now) == remaining(ends, RANKS, now)


@given(PURCHASES)
def test_what_remains_of_all_tariffs_adds_up_to_the_end(purchases: list[tuple[str, int, int]]) -> None:
    ends: dict[str, datetime] = {}
    now = NOW
    for bought, period, pause in purchases:
        now += timedelta(days=pause)
        ends = add_period(ends, RANKS, now, bought, timedelta(days=period))
    assert sum(remaining(ends, RANKS, now).values(), timedelta(0)) == max(ends.values()) - now
