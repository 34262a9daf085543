"""TLS handshakes that fail: counted. Whoever scans the port would otherwise fill the log with a traceback each time."""

from __future__ import annotations

import logging
from typing import Final

from runtime.logs import get_logger
from vpn.agent.metrics import HANDSHAKES_FAILED
from vpn.http import reason_of

log = get_logger(__name__)

_LOGGER: Final = "anyio.streams.tls"


class _Counted(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        HANDSHAKES_FAILED.inc()
        error = record.exc_info[1] if record.exc_info else None
        log.debug("a TLS handshake failed", reason=record.getMessage() if error is None else reason_of(error))
        return False


def count_failed_handshakes() -> None:
    """From now on count them instead of logging them; the reasons are in the log at level debug."""
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(known, _Counted) for known in logger.filters):
        logger.addFilter(_Counted())
