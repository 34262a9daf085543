"""Where the event loop stands, seen from another thread: its stack, the trio task it runs, the actor and the message.

Reads frames and plain slots only, and no source files: it must work while everything else is frozen.
"""

from __future__ import annotations

import contextlib
import sys
from types import FrameType

import attrs
import trio

from runtime.core import beats
from runtime.core.ask import current_call_context

MAX_FRAMES = 60
"""Innermost frames shown."""


@attrs.frozen
class LoopPosition:
    """One look at the loop's thread."""

    stack: tuple[str, ...]
    """`file:line function`, outermost first; empty if the thread is gone."""
    task: str
    """The name of the trio task whose code runs; empty while the loop waits for events."""
    actor: str
    """The actor that the task works for; empty if none."""
    message: str
    """The type of the message that this actor is handling, or of the last one handed to any actor."""
    handling_since: float | None
    """Since when, in seconds of `time.monotonic`."""

    def lines(self, now: float) -> list[str]:
        """The report: who, with what, since when, and the stack."""
        since = "" if self.handling_since is None else f", for {now - self.handling_since:.1f} s"
        message = f", message {self.message}{since}" if self.message else ", no message in hand"
        lines = [f"  handling: actor {self.actor}{message}"] if self.actor else ["  handling: no actor's message"]
        lines.append(f"  trio task: {self.task or 'none: the loop waits for events'}")
        lines.append("  stack of the loop's thread, innermost last:")
        lines += [f"    {entry}" for entry in self.stack]
        return lines


def loop_position(thread: int) -> LoopPosition:
    """Look at the loop that runs on the thread with this identifier. Safe on any thread; never raises."""
    stack: list[str] = []
    task: trio.lowlevel.Task | None = None
    # Documented in spite of its name, and the only way to another thread's frames.
    frame = sys._current_frames().get(thread)
    while frame is not None:
        code = frame.f_code
        if len(stack) < MAX_FRAMES:
            stack.append(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        if code.co_name == "unrolled_run":
            task = _task(frame)
        frame = frame.f_back
    stack.reverse()
    actor, message, since = _handling(task)
    return LoopPosition(tuple(stack), task.name if task is not None else "", actor, message, since)


def _task(frame: FrameType) -> trio.lowlevel.Task | None:
    """The task that trio steps in this frame: a local variable of its loop."""
    with contextlib.suppress(Exception):  # another release of trio may name it otherwise: the stack must do then
        task = frame.f_locals.get("task")
        if isinstance(task, trio.lowlevel.Task):
            return task
    return None


def _handling(task: trio.lowlevel.Task | None) -> tuple[str, str, float | None]:
    current = beats.current
    if task is not None:
        with contextlib.suppress(Exception):  # a half-built actor has no message to show
            call = task.context.get(current_call_context)
            if call is not None:
                own = call.address.handling if call.address.is_busy else None
                return (call.address.name, *_shown(own))
    return ("", "", None) if current is None else (current[0], *_shown(current))


def _shown(handling: beats.Handling | None) -> tuple[str, float | None]:
    if handling is None:
        return "", None
    kind = handling[1]
    return (kind if isinstance(kind, str) else kind.__name__), handling[2]
