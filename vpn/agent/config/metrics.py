"""What the agent counts."""

from __future__ import annotations

from typing import Final

from runtime.metrics import SECONDS, counter, gauge, histogram

KEYS: Final = gauge("atlas_node_keys", "Wanted keys by what the node does with them.", labels=("state",))
READY: Final = gauge("atlas_node_ready", "Whether Xray accepts connections (0 or 1).")
STARTS: Final = gauge("atlas_node_xray_starts", "Times this agent has started Xray.")
ENDS: Final = gauge(
    "atlas_node_xray_ends",
    "Times that Xray ended or could not be started since this agent was, without being asked to.",
)
REFUSED: Final = gauge(
    "atlas_node_xray_refused", "Whether Xray did not start at the last try because of its configuration (0 or 1)."
)
CONNECTIONS: Final = gauge("atlas_node_connections", "Open customer connections the agent knows the owner of.")
CUT: Final = counter("atlas_node_cut_total", "Connections of removed, expired or kicked customers that were cut.")
LEAKED: Final = counter(
    "atlas_node_strays_total", "Of those, connections whose owner had to be found by their traffic."
)
UNCUT: Final = gauge(
    "atlas_node_uncut", "Removed customers whose traffic went on at the last look and could not be cut yet."
)
REPAIRED: Final = counter(
    "atlas_node_repaired_total", "Users of Xray that differed from the wanted keys and were put right."
)
CUSTOMERS: Final = gauge("atlas_node_customers_connected", "Customers with at least one open connection.")
EXPIRED: Final = counter("atlas_node_expired_total", "Keys that came to their end on this node.")
HELD: Final = gauge(
    "atlas_node_ends_held", "Keys whose time seems to be over and that are served on until the backend makes contact."
)
GIVEN_BACK: Final = counter("atlas_node_given_back_total", "Keys that had been ended too soon and are served again.")
WALL_SKEW: Final = gauge(
    "atlas_node_wall_skew_seconds", "How far the host's own clock is ahead of the time that the node goes by."
)
CLOCK_STEPS: Final = counter("atlas_node_clock_steps_total", "Times that the host's own clock was set.")
CHANGES: Final = counter("atlas_node_changes_total", "Changes of the wanted keys written down.", labels=("kind",))
SILENCE: Final = gauge(
    "atlas_node_backend_silence_seconds", "Seconds since a backend that can extend keys made contact."
)
GRACE: Final = gauge("atlas_node_grace_seconds", "Seconds that keys live beyond their time right now.")
REFUSING: Final = gauge("atlas_node_changes_refused", "Whether changes are refused for want of a disk (0 or 1).")
INFO: Final = gauge("atlas_node_info", "1; the versions are in the labels.", labels=("agent", "xray"))
HANDSHAKES_FAILED: Final = counter(
    "atlas_node_tls_failed_total",
    "TLS handshakes with the agent's own interface that failed: scanners, or a wrong certificate.",
)
REQUESTS: Final = histogram(
    "atlas_node_request_seconds", "Time to answer a request.", buckets=SECONDS, labels=("method", "status")
)
