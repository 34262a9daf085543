"""Logging that never blocks, and text made safe to show.

Promises: saying something appends to a bounded queue and returns; nothing that is written shows a secret or a control
character.
Entry points: `get_logger`; `start`, `reconfigure`, `flush` and `stop` for who owns the process; `redact`.
May be imported by everything above the ground. Imports the ground alone.
"""

from runtime.log.logs import Logger, check, flush, get_logger, reconfigure, start, stop
from runtime.log.record import Record, as_json, as_text
from runtime.log.redaction import MASK, redact

__all__ = [
    "MASK",
    "Logger",
    "Record",
    "as_json",
    "as_text",
    "check",
    "flush",
    "get_logger",
    "reconfigure",
    "redact",
    "start",
    "stop",
]
