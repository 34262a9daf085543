"""What the runtime says, as the desk shows it: in one line, redacted, and files named from where the program is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.events import EventRecord
from runtime.redaction import one_line, redact

_HOME: Final = f"{Path(__file__).parents[2]}/"


def short(text: str) -> str:
    """The text with files of the program named from its directory: `runtime/core/mailbox.py`."""
    return text.replace(_HOME, "")


def said_of(record: EventRecord) -> str:
    """The line of an event."""
    return short(one_line(redact(record.event.line())))
