"""The page of figures is the figures of the run, misses first."""

from __future__ import annotations

from typing import Any

import pytest

from tools.benchmark_page import page


def line(**changes: object) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "a lease",
        "value": 33.0,
        "unit": "us",
        "yardstick": "a pool",
        "yardstick_value": 99.0,
        "ratio": 1 / 3,
        "ratio_means": "× the cost",
        "target": "≤ 0.5 ×",
        "limit": 0.5,
        "met": True,
    }
    return found | changes


def report(**changes: object) -> dict[str, Any]:
    return {
        "began_at": 1e9,
        "seconds": 7.0,
        "quick": False,
        "failed": {},
        "cpus": 2,
        "load": 0.1,
        "python": "3.11.7",
        "versions": {"trio": "0.35.0"},
        "groups": {"leases": [line(), line(name="slow", met=False)]},
        **changes,
    }


def test_every_line_is_there_and_every_miss_is_told_first() -> None:
    text = page([report()])
    assert "1 of 2 targets.\n\n- leases: slow: 33 us, 0.333 × the cost of a pool; target ≤ 0.5 ×" in text
    assert "| a lease | 33 us | a pool: 99 us | 0.333 × the cost | ≤ 0.5 × | met |" in text
    assert "| slow | 33 us | a pool: 99 us | 0.333 × the cost | ≤ 0.5 × | **missed** |" in text
    assert "leases: 2001-09-09, 2 CPUs, load 0.1 at the begin, 7 s, Python 3.11.7, trio 0.35.0." in text


@pytest.mark.parametrize("changes", [{"quick": True}, {"failed": {"leases": "OSError"}}])
def test_a_run_that_means_nothing_makes_no_page(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a whole run"):
        page([report(**changes)])
