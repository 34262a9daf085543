"""Durations are told in two units at most, and no precision that nobody needs."""

from __future__ import annotations

import pytest

from runtime.wording import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.25, "250 ms"),
        (2.5, "2.50 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (18600, "5 h 10 min"),
        (86400 * 12 + 3 * 3600 + 59, "12 d 3 h"),
    ],
)
def test_a_duration_is_told_in_the_units_that_fit_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
