"""Leaving the process, and last words."""

from __future__ import annotations

import os
from typing import NoReturn

from runtime import logs
from runtime.printable import some_lines
from runtime.raw_write import write_bounded
from runtime.redaction import redact

FLUSH = 2.0
"""Seconds that the log may take to be written before the process leaves all the same."""


def say(text: str) -> None:
    """Write a line to stderr after everything logged so far, past the log: for what an operator must see at the end."""
    logs.flush(FLUSH)
    write_bounded(2, some_lines(redact(text)).encode("utf-8", "backslashreplace") + b"\n", FLUSH)


def leave(code: int) -> NoReturn:
    """Flush the log and end the process now: no finally blocks, no exit handlers, no waiting for tasks or threads."""
    logs.stop(FLUSH)
    os._exit(code)
