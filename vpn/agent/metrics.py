"""What the agent counts."""

from __future__ import annotations

from typing import Final

from runtime.metrics import SECONDS, counter, gauge, histogram

KEYS: Final = gauge("atlas_node_keys", "Wanted keys by what the node does with them.", labels=("state",))
READY: Final = gauge("atlas_node_ready", "Whether Xray accepts connections (0 or 1).")
STARTS: Final = gauge("atlas_node_xray_starts", "Times this agent has started Xray.")
CONNECTIONS: Final = gauge("atlas_node_connections", "Open customer connections the agent knows the owner of.")
CUT: Final = counter("atlas_node_cut_total", "Connections of removed, expired or kicked customers that were cut.")
STRAYS: Final = counter(
    "atlas_node_strays_total", "Of those, connections whose owner had to be found by their traffic."
)
REPAIRED: Final = counter(
    "atlas_node_repaired_total", "Users of Xray that differed from the wanted keys and were put right."
)
REQUESTS: Final = histogram(
    "atlas_node_request_seconds", "Time to answer a request.", buckets=SECONDS, labels=("method", "status")
)
