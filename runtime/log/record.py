"""One log record, and its two renderings: a line of text for people, a line of JSON for machines."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runtime.error_text import ErrorSummary, error_text, summarise
from runtime.redaction import in_json, one_line, redact, redact_value

if TYPE_CHECKING:
    from runtime.events import Details

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

    __slots__ = ("actor", "at", "correlation", "details", "facts", "fields", "level", "logger", "message")

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
        details: Details | None = None,
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
        self.details = _Traceback(summarise(error)) if error is not None else details


def plain(value: object) -> Plain:
    """`value` as something immutable and of bounded size. Never raises."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, BaseException):
        return error_text(value, MAX_FIELD)
    try:
        return cut(str(value), MAX_FIELD)
    except BaseException as error:  # noqa: BLE001  a value that cannot be shown must not stop the one who logs it
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
    if record.details is not None:
        line += "".join(f"\n    {one_line(row)}" for row in record.details.lines())
    return line + "\n"


def as_json(record: Record) -> str:
    """One JSON object a line: time, level, logger, actor, correlation, message, the fields, traceback."""
    entry: dict[str, object] = {
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
    if record.details is not None:
        entry |= record.details.members()
    return in_json(json.dumps(entry, ensure_ascii=False, default=str)) + "\n"


RENDERINGS: dict[str, Callable[[Record], str]] = {"text": as_text, "json": as_json}


def _text_value(name: str, value: Plain) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    shown = redact_value(name, value)
    return json.dumps(shown, ensure_ascii=False) if not shown or " " in shown or '"' in shown or "=" in shown else shown


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Traceback:
    """The traceback of an error that was logged."""

    def __init__(self, summary: ErrorSummary) -> None:
        self._summary = summary

    def lines(self) -> Iterator[str]:
        yield from self._text().split("\n")

    def members(self) -> Mapping[str, object]:
        return {"traceback": self._text() + "\n"}

    def _text(self) -> str:
        return "\n".join(self._summary.lines())
