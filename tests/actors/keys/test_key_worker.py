"""The parts that activation and removal share."""

from __future__ import annotations

import pytest

from actors.pool.database_worker import outage_delay


@pytest.mark.parametrize(
    ("waited", "expected"),
    [(-5, 1.0), (0, 1.0), (2, 1.0), (10, 5.0), (60, 30.0), (120, 60.0), (86_400, 60.0)],
)
def test_a_key_that_waits_for_its_node_is_retried_after_half_its_wait_within_bounds(
    waited: float, expected: float
) -> None:
    assert outage_delay(waited, jitter=lambda: 0.5) == pytest.approx(expected)


def test_retries_are_spread_by_a_fifth_either_way() -> None:
    assert outage_delay(60, jitter=lambda: 0.0) == pytest.approx(24.0)
    assert outage_delay(60, jitter=lambda: 1.0) == pytest.approx(36.0)
