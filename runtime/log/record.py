"""One log record, and its two renderings: a line of text for people, a line of JSON for machines."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from runtime.log.redaction import in_json, one_line, redact, redact_value

Plain = str | int | float | bool | None

MAX_MESSAGE = 8_192
"""Characters of a message; the rest is cut and its length told."""
MAX_FIELD = 2_048
"""Characters of a field's value; the rest is cut and its length told."""

LEVEL_NAMES = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}


class Record:
    """One log record. Holds plain values only, so that nothing changes or leaks while it waits."""

    __slots__ = ("actor", "at", "correlation", "facts", "fields", "level", "logger", "message", "trace")

    def __init__(
        self,
        at: float,
        level: int,
        logger: str,
        message: str,
        fields: Mapping[str, object] | None = None,
        *,
        actor: str = "",
        correlation: str = "",
        facts: Mapping[str, object] | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.at = at
        self.level = level
        self.logger = logger
        self.message = cut(message, MAX_MESSAGE)
        self.fields: dict[str, Plain] = {name: plain(value) for name, value in fields.items()} if fields else {}
        # What the message says in words already: for machines only.
        self.facts: dict[str, Plain] = {name: plain(value) for name, value in facts.items()} if facts else {}
        self.actor = actor
        self.correlation = correlation
        # Source lines are looked up (read from disk) by the writer's thread, not here.
        self.trace = None if error is None else _trace(error)


def plain(value: object) -> Plain:
    """`value` as something immutable and of bounded size. Never raises."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    try:
        if isinstance(value, BaseException):
            return cut(f"{type(value).__name__}: {value}", MAX_FIELD)
        return cut(str(value), MAX_FIELD)
    except Exception as error:  # noqa: BLE001  a value that cannot be shown must not stop the one who logs it
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, and how many were cut."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def as_text(record: Record) -> str:
    """`time LEVEL actor message name=value …`, and the traceback below, indented."""
    who = record.actor or record.logger
    parts = [_time(record.at), f"{LEVEL_NAMES.get(record.level, str(record.level)):<8}", who, redact(record.message)]
    for name, value in record.fields.items():
        parts.append(f"{name}={_text_value(name, value)}")
    if record.correlation:
        parts.append(f"correlation={record.correlation}")
    line = one_line(" ".join(parts))
    if record.trace is not None:
        lines = redact("".join(record.trace.format())).splitlines()
        line += "".join(f"\n    {one_line(row)}" for row in lines)
    return line + "\n"


def as_json(record: Record) -> str:
    """One JSON object a line: time, level, logger, actor, correlation, message, the fields, traceback."""
    entry: dict[str, Plain] = {
        "time": _time(record.at),
        "level": LEVEL_NAMES.get(record.level, str(record.level)),
        "logger": record.logger,
    }
    if record.actor:
        entry["actor"] = record.actor
    if record.correlation:
        entry["correlation"] = record.correlation
    entry["message"] = redact(record.message)
    for name, value in (*record.fields.items(), *record.facts.items()):
        # A field may not pass itself off as one of the record's own.
        key = f"field_{name}" if name in entry or name == "traceback" else name
        entry[key] = redact_value(name, value) if isinstance(value, str) else value
    if record.trace is not None:
        entry["traceback"] = redact("".join(record.trace.format()))
    return in_json(json.dumps(entry, ensure_ascii=False, default=str)) + "\n"


RENDERINGS: dict[str, Callable[[Record], str]] = {"text": as_text, "json": as_json}


def _text_value(name: str, value: Plain) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    shown = redact_value(name, value)
    return json.dumps(shown, ensure_ascii=False) if not shown or " " in shown or '"' in shown or "=" in shown else shown


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(error: BaseException) -> traceback.TracebackException | None:
    try:
        return traceback.TracebackException(type(error), error, error.__traceback__, lookup_lines=False, compact=True)
    except Exception:  # noqa: BLE001  as for a value that cannot be shown
        return None
