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


def pool_report(state: PoolState) -> dict[str, object]:
    """Everything: state, counts, holders and waiters (oldest first), waits and holds by label. Seconds throughout.

    The keys are an interface: `atlas leases --json` prints them.
    """
    now = trio.current_time()
    return {
        **pool_state(state),
        "holders": _holders(state, now),
        "waiting": _waiting(state, now),
        "waits": [
            {"label": label, "lane": lane.name.lower(), **_histogram(series)}
            for (label, lane), series in sorted(state.waits.items())
        ],
        "holds": [{"label": label, **_histogram(series)} for label, series in sorted(state.holds.items())],
        "refused": _refused(state),
    }


def pool_summary(state: PoolState) -> dict[str, object]:
    """As `pool_report`, but short enough for one line of a log: no histograms, and the `MAX_LISTED` oldest holders and
    waiters."""
    now = trio.current_time()
    return {
        **pool_state(state),
        "holders": _holders(state, now, MAX_LISTED),
        "waiting": _waiting(state, now, MAX_LISTED),
        "waiting_in_all": len(state.queue),
        "refused": _refused(state),
    }


def pool_state(state: PoolState) -> dict[str, object]:
    """What state the pool is in, since when, and how many connections are where."""
    now = trio.current_time()
    codel = state.queue.codel
    return {
        "pool": state.name,
        "state": state.status.value,
        "since_seconds": round(now - state.status_since, 3),
        "cause": state.cause,
        "bridge": state.bridge,
        "size": state.size,
        "idle": len(state.idle),
        "leased": len(state.leases),
        "quarantined": len(state.quarantined),
        "missing": state.missing,
        "paused": state.paused,
        "slow": codel.slow,
        "slow_seconds": round(now - codel.slow_since, 3) if codel.slow else 0.0,
        "monitored": state.settings.monitor,
    }


def _holders(state: PoolState, now: float, at_most: int | None = None) -> list[dict[str, object]]:
    return [{**lease.describe(now), "stack": lease.stack()} for lease in islice(state.leases.values(), at_most)]


def _waiting(state: PoolState, now: float, at_most: int | None = None) -> list[dict[str, object]]:
    return [
        {
            "label": waiter.label,
            "lane": waiter.lane.name.lower(),
            "owner": str(waiter.payload.owner),
            "site": waiter.payload.site,
            "waited_seconds": round(now - waiter.since, 4),
            "left_seconds": round(waiter.deadline - now, 4),
        }
        for waiter in islice(state.queue, at_most)
    ]


def _refused(state: PoolState) -> dict[str, int]:
    return {why: int(series.value) for why, series in state.refused.items()}


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
