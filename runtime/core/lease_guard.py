"""Refuses asks and network calls of a task that holds a database lease; asks and HTTP clients call it first.

It knows nothing of databases. The holder's context carries the lease itself, not a flag, because children inherit their
parent's context: what counts is whether that lease is *still* open.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from runtime.errors import LeaseHeldAcrossCall

_HERE = str(Path(__file__).parent.parent)


class LeaseMarker(Protocol):
    """What the guard has to know of a lease."""

    @property
    def is_open(self) -> bool:
        """Whether it is still held."""
        ...

    @property
    def label(self) -> str:
        """What it is used for."""
        ...

    @property
    def site(self) -> str:
        """Where it was taken, as `file:line`."""
        ...

    def note_refused_call(self, error: Exception) -> None:
        """A call was refused because of this lease; told before the error is raised, since the caller may swallow it."""
        ...


current_lease: ContextVar[LeaseMarker | None] = ContextVar("current_lease", default=None)
"""The lease held by the current task or by the task that started it."""


def refuse_if_leased(what: str, site: str | None = None) -> None:
    """Raise LeaseHeldAcrossCall if the lease in this context is still open; otherwise cost next to nothing.

    `what` names the call that is refused, `site` its place; left out, it is the nearest caller outside this package.
    """
    lease = current_lease.get()
    if lease is None or not lease.is_open:
        return
    error = LeaseHeldAcrossCall(
        f"{what} at {site or call_site()} was refused: the lease {lease.label!r} taken at {lease.site} is still held, "
        "and a connection that waits for a network is lost to everybody else. Close the lease first: read what you need, "
        "leave, call, then take a new lease for the result"
    )
    lease.note_refused_call(error)
    raise error


def call_site() -> str:
    """`file:line` of the nearest caller outside this package."""
    frame = sys._getframe(1)  # traceback.extract_stack reads source files; this is one line of one frame
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
