"""The middle and the slow end of many durations, as two lines of a report."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.result import Result, figure
from benchmarks.rounds import percentile

MILLISECONDS = 1e3


def spread(what: str, seconds: Sequence[float], *, at_most: float | None = None) -> list[Result]:
    """p50 and p99 in milliseconds; `at_most`, in milliseconds, judges the p99."""
    count = len(seconds)
    return [
        figure(f"{what}: p50 of {count}", percentile(seconds, 0.5) * MILLISECONDS, "ms"),
        figure(f"{what}: p99 of {count}", percentile(seconds, 0.99) * MILLISECONDS, "ms", at_most=at_most),
    ]
