"""What the canary saw, in figures."""

from __future__ import annotations

from runtime.metrics import SECONDS, counter, gauge, histogram

PROBES = counter(
    "atlas_canary_probes_total", "Probes of a node through a real tunnel, by what they found.", labels=("node", "found")
)
PASSES = gauge(
    "atlas_canary_passes",
    "1 if the last probe's packets passed through the node; absent if none are sent there.",
    labels=("node",),
)
PROBE_SECONDS = histogram(
    "atlas_canary_seconds", "From opening a tunnel to the page that came through it.", buckets=SECONDS, labels=("node",)
)
