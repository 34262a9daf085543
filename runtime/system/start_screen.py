"""The one screen that `atlas run` prints when everything is up."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from runtime.log.record import Record
from runtime.redaction import redact, some_lines
from runtime.wording import duration

if TYPE_CHECKING:
    from runtime.log.writer import LogWriter

NEXT = "next"
"""The fact that becomes a line of "what to type next": `context.describe(next="atlas status")`."""


@attrs.frozen
class ScreenLine:
    """One child on the screen."""

    name: str
    state: str
    facts: Mapping[str, str]
    is_ready: bool
    why: str
    is_needed: bool = True
    """False for one that declined to run: `state` says why, and readiness does not wait for it."""


def render(
    name: str, took: float, lines: Sequence[ScreenLine], socket: str, steps: Sequence[str], call: str | None = None
) -> str:
    """The screen as text. `call` is what makes the shell find `atlas`, if that has to be typed before the steps."""
    width = max((len(line.name) for line in lines), default=0)
    needed = [line for line in lines if line.is_needed]
    ready = sum(line.is_ready for line in needed)
    spared = f", {len(lines) - len(needed)} not needed" if len(needed) < len(lines) else ""
    rows = [f"{name} is up: {len(needed)} children in {duration(took)}, {ready} ready{spared}", ""]
    for line in lines:
        facts = "  ".join(f"{key} {value}" for key, value in line.facts.items() if key != NEXT)
        state = line.state if line.is_ready or line.state != "running" else f"not ready: {line.why}"
        rows.append(f"  {line.name.ljust(width)}  {state}{'  ' + facts if facts else ''}")
    rows += ["", f"  control socket  {socket}"]
    steps = [*steps, *(line.facts[NEXT] for line in lines if NEXT in line.facts)]
    steps = [*([] if call is None else [call]), *(steps or ("atlas status", "atlas events --follow"))]
    rows += ["", "next:", *(f"  {step}" for step in steps)]
    return "\n".join(["", *rows, "", ""])


def how_to_call_atlas(executable: Path, directory: Path, path: str | None) -> str | None:
    """The line to type before any other if a shell with this PATH would not find this very `atlas`; else None.

    `executable` is the running Python, beside which the command is installed; `directory` is where one stands.
    """
    own = executable.parent / "atlas"
    found = shutil.which("atlas", path=path)
    if found is not None and (not own.exists() or Path(found).resolve() == own.resolve()):
        return None
    activate = executable.parent / "activate"
    if own.exists() and activate.exists():
        shown = activate.relative_to(directory) if activate.is_relative_to(directory) else activate
        return f". {shlex.quote(str(shown))}"
    command = shlex.quote(str(own)) if own.exists() else f"{shlex.quote(str(executable))} -m runtime.cli.main"
    return f"alias atlas={shlex.quote(command)}"


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
