"""`CrashReport`: all that is kept of one abnormal end.

As in OTP, where each abnormal end of a process leaves one: who ended, of what, where, at which message, in which state, after
how long, and what its supervisor decided. It holds texts and figures alone: neither the error nor a frame of it, so that nothing
of the dead incarnation lives on in its report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import attrs

from runtime.error_text import ErrorSummary
from runtime.redaction import redact

DEFAULT_SIZE = 16_384
"""Characters of a report's text unless `[log] crash_report` says otherwise."""

_size = DEFAULT_SIZE


def set_report_size(characters: int) -> None:
    """How long the text of a report may be from now on, in this process."""
    global _size  # as the log's level: one for the process
    _size = characters


@attrs.define(eq=False)
class CrashReport:
    """One abnormal end of one incarnation."""

    actor: str
    incarnation: int
    reason: str
    """Value of an ExitReason."""
    error: str
    """The error or the reason in one line, redacted; empty if there is nothing to say."""
    where: str
    """The innermost frame, `file:line in function`; empty if nothing was raised."""
    task: str | None
    """The task of the actor that crashed; None where the message loop or a hook did."""
    last_message: str | None
    """What was handled, or was handled last."""
    lived: float
    """Seconds."""
    at: float
    """Wall clock, seconds since the epoch."""
    state: Mapping[str, object]
    """What the actor's `inspect()` said at its end; plain values of bounded size, redacted."""
    summary: ErrorSummary | None = attrs.field(default=None, repr=False)
    """The error; None for a kill and whatever else raises nothing."""
    stack: str = attrs.field(default="", repr=False)
    """Of one that does not stop: where its tasks stand."""
    is_deliberate: bool = False
    """The error's own words are meant for the operator: a `Fatal`, or an AtlasError of a start."""
    supervisor: str = ""
    decision: str = ""
    """What its supervisor did about it."""
    _traceback: str | None = attrs.field(init=False, default=None, repr=False)

    @property
    def traceback(self) -> str:
        """The error with its causes and the leaves of groups, or the stack; redacted, cut. Made once, when it is first read."""
        if self._traceback is None:
            lines = "" if self.summary is None else "\n".join(self.summary.lines())
            self._traceback = _cut("\n".join(part for part in (lines, redact(self.stack)) if part), _size)
        return self._traceback

    def lines(self) -> Iterator[str]:
        """What stands below the event's line in the log: task, state and traceback. Already redacted."""
        if self.task is not None:
            yield f"in its task {self.task}"
        if self.state:
            yield f"state: {_cut(json.dumps(self.state, ensure_ascii=False), _size)}"
        yield from self.traceback.splitlines()

    def members(self) -> dict[str, object]:
        """The same for machines, in the members of a JSON log line."""
        found: dict[str, object] = {"task": self.task, "state": self.state, "traceback": self.traceback}
        return {name: value for name, value in found.items() if value}

    def as_dict(self) -> dict[str, object]:
        """All of it, the traceback as lines."""
        return {
            "actor": self.actor,
            "at": self.at,
            "incarnation": self.incarnation,
            "reason": self.reason,
            "error": self.error,
            "where": self.where,
            "task": self.task,
            "last_message": self.last_message,
            "lived": self.lived,
            "supervisor": self.supervisor,
            "decision": self.decision,
            "state": dict(self.state),
            "traceback": self.traceback.splitlines(),
        }


def _cut(text: str, size: int) -> str:
    """The beginning and, because that says what happened, most of the end."""
    if len(text) <= size:
        return text
    head = size // 4
    return f"{text[:head]}\n… {len(text) - size} characters are not shown (setting [log] crash_report)\n{text[head - size :]}"
