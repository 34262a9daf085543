"""The one screen that `atlas run` prints when everything is up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from runtime.log_record import Record
from runtime.printable import some_lines
from runtime.redaction import redact
from runtime.wording import duration

if TYPE_CHECKING:
    from runtime.log_writer import LogWriter

NEXT = "next"
"""The fact that becomes a line of "what to type next": `context.describe(next="atlas demo buy")`."""


@attrs.frozen
class Line:
    """One child on the screen."""

    name: str
    state: str
    facts: Mapping[str, str]
    is_ready: bool
    why: str


def render(name: str, took: float, lines: Sequence[Line], socket: str, steps: Sequence[str]) -> str:
    """The screen as text."""
    width = max((len(line.name) for line in lines), default=0)
    ready = sum(line.is_ready for line in lines)
    rows = [f"{name} is up: {len(lines)} children in {duration(took)}, {ready} ready", ""]
    for line in lines:
        facts = "  ".join(f"{key} {value}" for key, value in line.facts.items() if key != NEXT)
        state = line.state if line.is_ready or line.state != "running" else f"not ready: {line.why}"
        rows.append(f"  {line.name.ljust(width)}  {state}{'  ' + facts if facts else ''}")
    rows += ["", f"  control socket  {socket}"]
    steps = [*steps, *(line.facts[NEXT] for line in lines if NEXT in line.facts)]
    rows += ["", "next:", *(f"  {step}" for step in steps or ("atlas status", "atlas events --follow"))]
    return "\n".join(["", *rows, "", ""])


class Screen(Record):
    """Text that is written as it is, in turn with the log lines around it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__(time.time(), logging.INFO, "atlas.start", "")
        self.text = some_lines(redact(text))


def show(writer: LogWriter, text: str) -> None:
    """Write the text on stdout through the log's writer, without a prefix. Never waits."""
    writer.render = _with_screens(writer.render)
    writer.put(Screen(text))


def _with_screens(render_record: Callable[[Record], str]) -> Callable[[Record], str]:
    def rendered(record: Record) -> str:
        return record.text if isinstance(record, Screen) else render_record(record)

    return rendered
