"""The sliding, closed window of restart attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.intensity import IntensityWindow


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
