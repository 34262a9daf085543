"""What is known of a pool at this moment, as one document for operators."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import trio

from actors.pool.state import PoolState
from runtime.metrics import HistogramSeries

MAX_LISTED = 5
"""Holders, and waiters, that a summary names."""


def pool_report(book: PoolState) -> dict[str, object]:
    """Everything: state, counts, holders and waiters (oldest first), waits and holds by label. Seconds throughout.

    The keys are an interface: `atlas leases --json` prints them.
    """
    now = trio.current_time()
    return {
        **_state(book, now),
        "holders": _holders(book, now),
        "waiting": _waiting(book, now),
        "waits": [
            {"label": label, "lane": lane.name.lower(), **_histogram(series)}
            for (label, lane), series in sorted(book.waits.items())
        ],
        "holds": [{"label": label, **_histogram(series)} for label, series in sorted(book.holds.items())],
        "refused": _refused(book),
    }


def pool_summary(book: PoolState) -> dict[str, object]:
    """As `pool_report`, but short enough for one line of a log: no histograms, and the `MAX_LISTED` oldest holders and
    waiters."""
    now = trio.current_time()
    return {
        **_state(book, now),
        "holders": _holders(book, now, MAX_LISTED),
        "waiting": _waiting(book, now, MAX_LISTED),
        "waiting_in_all": len(book.queue),
        "refused": _refused(book),
    }


def _state(book: PoolState, now: float) -> dict[str, object]:
    codel = book.queue.codel
    return {
        "pool": book.name,
        "state": book.state.value,
        "since_seconds": round(now - book.state_since, 3),
        "cause": book.cause,
        "bridge": book.bridge,
        "size": book.size,
        "idle": len(book.idle),
        "leased": len(book.leases),
        "quarantined": len(book.quarantined),
        "missing": book.missing,
        "paused": book.paused,
        "slow": codel.slow,
        "slow_seconds": round(now - codel.slow_since, 3) if codel.slow else 0.0,
        "monitored": book.settings.monitor,
    }


def _holders(book: PoolState, now: float, at_most: int | None = None) -> list[dict[str, object]]:
    return [{**lease.describe(now), "stack": lease.stack()} for lease in islice(book.leases.values(), at_most)]


def _waiting(book: PoolState, now: float, at_most: int | None = None) -> list[dict[str, object]]:
    return [
        {
            "label": waiter.label,
            "lane": waiter.lane.name.lower(),
            "owner": str(waiter.payload.owner),
            "site": waiter.payload.site,
            "waited_seconds": round(now - waiter.since, 4),
            "left_seconds": round(waiter.deadline - now, 4),
        }
        for waiter in islice(book.queue, at_most)
    ]


def _refused(book: PoolState) -> dict[str, int]:
    return {why: int(series.value) for why, series in book.refused.items()}


def _histogram(series: HistogramSeries) -> dict[str, object]:
    bounds: Iterable[float | None] = (*series.bounds, None)  # JSON knows no infinity
    count = series.count
    middle = series.quantile(0.5)
    return {
        "count": count,
        "mean_seconds": round(series.sum / count, 6) if count else 0.0,
        "median_within_seconds": None if math.isinf(middle) else middle,
        "buckets": [{"le": bound, "count": n} for bound, n in zip(bounds, series.counts, strict=True)],
    }
