"""TLS handshakes that fail: counted. Whoever scans the port would otherwise fill the log."""

from __future__ import annotations

from runtime.http import reason_of
from runtime.logs import get_logger
from vpn.agent.metrics import HANDSHAKES_FAILED

log = get_logger(__name__)


def count_failed_handshake(error: Exception) -> None:
    """Count it; the reason is in the log at level debug."""
    HANDSHAKES_FAILED.inc()
    log.debug("a TLS handshake failed", reason=reason_of(error))
