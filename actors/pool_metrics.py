"""Figures of the pools."""

from __future__ import annotations

from runtime.metrics import counter, gauge, histogram

_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

WAITED = histogram(
    "atlas_lease_wait_seconds",
    "Time from asking for a connection to getting it.",
    buckets=_BUCKETS,
    labels=("pool", "label", "lane"),
)
HELD = histogram(
    "atlas_lease_hold_seconds",
    "Time from getting a connection to giving it back.",
    buckets=_BUCKETS,
    labels=("pool", "label"),
)
CONNECTIONS = gauge("atlas_pool_connections", "Connections of a pool by what they do.", labels=("pool", "state"))
WAITING = gauge("atlas_pool_waiting", "Requests that wait for a connection.", labels=("pool", "lane"))
REFUSED = counter(
    "atlas_lease_refused_total",
    "Requests that got no connection: timeout, shed, full, down, crashed.",
    labels=("pool", "why"),
)
SPIKES = counter(
    "atlas_lease_wait_spikes_total",
    "Requests that waited too long while they still waited: warning, critical.",
    labels=("pool", "lane", "severity"),
)
TAKEN_AWAY = counter(
    "atlas_lease_taken_total",
    "Leases that ended against their holder's will: expired, overrun, reclaimed.",
    labels=("pool", "why"),
)
OPENED = counter("atlas_pool_opened_total", "Connections opened.", labels=("pool",))
OPEN_FAILED = counter("atlas_pool_open_failed_total", "Connections that could not be opened.", labels=("pool",))
CLOSED = counter(
    "atlas_pool_closed_total",
    "Connections closed: lost, unclean, retired, surplus, revoked, stopped.",
    labels=("pool", "why"),
)
QUARANTINED = counter(
    "atlas_pool_quarantined_total", "Connections that had to prove that they are clean.", labels=("pool",)
)
WAKES = counter(
    "atlas_wake_notifications_total",
    "NOTIFY atlas_wake by what became of it: woken, unknown.",
    labels=("pool", "outcome"),
)
WAKES_INTERRUPTED = counter(
    "atlas_wake_interruptions_total", "Losses of the connection that listens for NOTIFY.", labels=("pool",)
)
