"""How measurements take turns, so that a busy machine, a warm cache or a full heap favours none of them."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Mapping, Sequence

Measurement = Callable[[], float]


def medians(measurements: Mapping[str, Measurement], rounds: int) -> dict[str, float]:
    """The median of each measurement over `rounds`; every round takes all of them in a new random order.

    One round more is run first and not counted, unless a single round is wanted: that proves only that everything runs.
    """
    uncounted = 1 if rounds > 1 else 0
    found: dict[str, list[float]] = {name: [] for name in measurements}
    for number in range(uncounted + rounds):
        names = list(measurements)
        random.shuffle(names)
        for name in names:
            gc.collect()
            seconds = measurements[name]()
            if number >= uncounted:
                found[name].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked) // 1) - 1))]
