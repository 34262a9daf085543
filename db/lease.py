"""The record of one lease: who holds which connection, since when, for how long, and from which line.

It is also the marker that the guard against calls under a lease looks at (`runtime.lease_guard`).
"""

from __future__ import annotations

from types import CodeType
from typing import Protocol

import attrs
import trio

from db.call_site import site_at, sites
from db.connection import Connection
from db.lease_queue import Lane

_STACK_LINES = 12


@attrs.frozen(cache_hash=True)
class Owner:
    """The incarnation of an actor for which a lease is taken."""

    name: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.name}#{self.incarnation}"


class LeaseBook(Protocol):
    """The keeper of a pool's connections, as far as a lease needs it."""

    def give_back(self, lease: Lease) -> None:
        """The holder is done with it, in whatever state. Never waits, never raises, harmless if repeated."""
        ...


class Lease:
    """A connection handed out. Closed exactly once: given back by its holder, or taken away by the pool."""

    __slots__ = (
        "_code",
        "_line",
        "book",
        "connection",
        "database_time",
        "deadline",
        "driver",
        "granted_at",
        "hold",
        "is_open",
        "label",
        "lane",
        "owner",
        "revoked",
        "scope",
        "task",
        "token",
        "waited",
    )

    def __init__(
        self,
        label: str,
        lane: Lane,
        owner: Owner,
        connection: Connection,
        book: LeaseBook,
        *,
        token: int,
        hold: float,
        now: float,
        waited: float,
        code: CodeType | None,
        line: int,
    ) -> None:
        self.label = label
        self.lane = lane
        self.owner = owner
        self.connection = connection
        self.book = book
        """Where it is given back."""
        self.driver = connection.driver
        self.token = token
        """The fencing token: grows with each lease of a pool and is never used twice."""
        self.hold = hold
        self.granted_at = now
        self.deadline = now + hold
        """Time on trio's clock at which the connection is taken away."""
        self.waited = waited
        """Seconds that the holder waited for it."""
        self.is_open = True
        self.revoked: str | None = None
        """Why the pool took it away, as a sentence; None if it did not."""
        self.database_time = 0.0
        """Seconds spent in statements, of an open lease."""
        self.scope = trio.CancelScope(deadline=self.deadline)
        """The holder's: cancelled at the hold deadline and when the lease is revoked."""
        self.task: trio.lowlevel.Task | None = None
        """The holder's; None until it has picked the lease up."""
        self._code = code
        self._line = line

    @property
    def site(self) -> str:
        """The line that took it."""
        return site_at(self._code, self._line)

    def refused(self, error: Exception) -> None:
        """See runtime.lease_guard.LeaseMarker: a function of a transaction that swallows it does not commit."""
        driver = self.driver
        if driver.stepping:
            driver.tainted = True
            if driver.foreign is None:
                driver.foreign = error

    def held(self, now: float) -> float:
        """Seconds since it was granted."""
        return now - self.granted_at

    def describe(self, now: float) -> dict[str, object]:
        """What an operator sees of it."""
        return {
            "label": self.label,
            "lane": self.lane.name.lower(),
            "owner": str(self.owner),
            "site": self.site,
            "held_seconds": round(self.held(now), 4),
            "limit_seconds": self.hold,
            "waited_seconds": round(self.waited, 4),
            "backend_pid": self.connection.pid,
            "token": self.token,
        }

    def stack(self) -> str:
        """Where the holder's task stands right now, outermost line first."""
        if self.task is None:
            return "not picked up by its holder yet"
        lines = sites((frame.f_code, line) for frame, line in self.task.iter_await_frames())
        return " > ".join(lines[-_STACK_LINES:])

    def __repr__(self) -> str:
        state = "revoked" if self.revoked else "open" if self.is_open else "closed"
        return f"<Lease #{self.token} {self.label!r} {state}>"
