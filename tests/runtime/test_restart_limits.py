"""Backoff: to the exact number, because chance and time are arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.restart_limits import NO_BACKOFF, Backoff, IntensityWindow, delay, longest_delay, nominal_delay

PLAIN = Backoff(initial=0.5, factor=2.0, maximum=10.0, jitter=0.2)


# S-510
@pytest.mark.parametrize(
    ("restart", "seconds"), [(1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (6, 8.0), (7, 10.0), (5000, 10.0)]
)
def test_the_first_restart_is_immediate_then_delays_double_up_to_the_maximum(restart: int, seconds: float) -> None:
    assert nominal_delay(PLAIN, restart) == seconds
    assert delay(PLAIN, restart, 0.5) == seconds


def test_jitter_moves_a_delay_by_its_share_either_way() -> None:
    assert delay(PLAIN, 3, 0.0) == pytest.approx(0.8)
    assert delay(PLAIN, 3, 0.75) == pytest.approx(1.1)
    assert longest_delay(PLAIN, 3) == pytest.approx(1.2)


@given(st.integers(1, 100), st.floats(0.0, 1.0, exclude_max=True))
def test_no_delay_is_longer_than_the_longest(restart: int, chance: float) -> None:
    assert 0.0 <= delay(PLAIN, restart, chance) <= longest_delay(PLAIN, restart)


@given(st.integers(1, 1000))
def test_nominal_delays_never_shrink(restart: int) -> None:
    assert nominal_delay(PLAIN, restart) <= nominal_delay(PLAIN, restart + 1)


def test_no_backoff_is_immediate_for_ever() -> None:
    assert [delay(NO_BACKOFF, restart, 0.9) for restart in (1, 2, 3000)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": -0.1},
        {"factor": 0.5},
        {"maximum": -1.0},
        {"jitter": 1.5},
        {"jitter": -0.5},
        {"reset_after": -1.0},
        {"initial": float("nan")},
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Backoff(**wrong)


def test_restarts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        nominal_delay(PLAIN, 0)


@pytest.mark.parametrize(
    ("intensity", "period", "attempts", "allowed"),
    [
        (0, 10.0, [0.0], [False]),
        (1, 10.0, [0.0], [True]),
        (1, 10.0, [0.0, 0.0], [True, False]),
        (2, 10.0, [0.0, 1.0, 2.0], [True, True, False]),
        # Closed: an attempt exactly one period old still counts.
        (1, 10.0, [0.0, 10.0], [True, False]),
        (1, 10.0, [0.0, 10.000001], [True, True]),
        # Sliding: what matters is the last period, not a calendar of periods.
        (2, 10.0, [0.0, 9.0, 11.0, 12.0], [True, True, True, False]),
        # A refused attempt counts as well.
        (1, 10.0, [0.0, 5.0, 11.0], [True, False, False]),
    ],
)
def test_an_attempt_is_allowed_while_at_most_intensity_lie_in_the_closed_window(
    intensity: int, period: float, attempts: list[float], allowed: list[bool]
) -> None:
    window = IntensityWindow(intensity, period)
    assert [window.attempt(at) for at in attempts] == allowed


@given(st.integers(0, 5), st.integers(1, 20), st.lists(st.integers(0, 100), max_size=40).map(sorted))
def test_the_window_agrees_with_its_definition(intensity: int, period: int, attempts: list[int]) -> None:
    window = IntensityWindow(intensity, float(period))
    for index, now in enumerate(attempts):
        inside = [at for at in attempts[: index + 1] if now - period <= at <= now]
        assert window.attempt(float(now)) is (len(inside) <= intensity)
        assert window.count(float(now)) == len(inside)


def test_clearing_forgets_all_attempts() -> None:
    window = IntensityWindow(1, 10.0)
    window.attempt(0.0)
    window.clear()
    assert window.attempt(1.0)


@pytest.mark.parametrize(("intensity", "period"), [(-1, 10.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_impossible_limits_are_refused(intensity: int, period: float) -> None:
    with pytest.raises(ValueError, match=r"intensity|period"):
        IntensityWindow(intensity, period)
