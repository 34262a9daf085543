"""The rungs of stopping a child: ask, cancel, report as unstopped. Pure.

Asking is polite and has `shutdown` seconds; then the child is cancelled and has `kill_grace` seconds; then it is
reported with its stack and left alone. All of it happens inside one absolute budget handed down from above.
"""

from __future__ import annotations

import enum
import math

import attrs

MINIMUM_GRACE = 0.05
"""Seconds that a cancelled child has to end even if the budget is spent: a healthy child needs one turn of the loop."""


class Rung(enum.IntEnum):
    """How far a stop has gone."""

    ASKED = 1
    CANCELLED = 2
    UNSTOPPED = 3


class StopLadder:
    """The state of stopping one incarnation. Times on trio's clock, in seconds."""

    __slots__ = ("_budget", "_kill_grace", "_shutdown", "began_at", "deadline", "rung")

    def __init__(self, now: float, *, shutdown: float, kill_grace: float, budget: float = math.inf) -> None:
        """Begin by asking; with `shutdown` 0 or a spent `budget` (an absolute time) begin at cancellation."""
        self.began_at = now
        self._shutdown = shutdown
        self._kill_grace = kill_grace
        self._budget = budget
        self.rung = Rung.ASKED
        self.deadline = math.inf
        """When the next rung is due; math.inf on the last."""
        self.deadline = self._patience_ends()
        if self.deadline <= now:
            self.cancel(now)

    def _patience_ends(self) -> float:
        return min(self.began_at + self._shutdown, self._budget - self._kill_grace)

    def cancel(self, now: float) -> bool:
        """Go to CANCELLED at once; False if that rung was reached before."""
        if self.rung >= Rung.CANCELLED:
            return False
        self.rung = Rung.CANCELLED
        self.deadline = max(min(now + self._kill_grace, self._budget), now + MINIMUM_GRACE)
        return True

    def climb(self, now: float) -> bool:
        """Take the next rung if it is due; True if one was taken."""
        if now < self.deadline:
            return False
        if self.rung is Rung.ASKED:
            return self.cancel(now)
        if self.rung is Rung.CANCELLED:
            self.rung = Rung.UNSTOPPED
            self.deadline = math.inf
            return True
        return False

    def shorten(self, now: float, budget: float) -> None:
        """Obey a budget that ends earlier than the one so far. Never lengthens."""
        if budget >= self._budget:
            return
        self._budget = budget
        if self.rung is Rung.ASKED:
            self.deadline = max(now, self._patience_ends())
        elif self.rung is Rung.CANCELLED:
            self.deadline = min(self.deadline, max(budget, now + MINIMUM_GRACE))


@attrs.frozen
class Unstopped:
    """The report of a child that did not end."""

    name: str
    """Path from the supervisor that reports, e.g. "nodes/node.berlin"."""
    incarnation: int
    message: str | None
    """Type name of the message it handles, or handled last."""
    waited: float
    """Seconds from the first request to stop until it was left alone."""
    stack: str
    """Where its tasks stand, innermost last."""

    def below(self, supervisor: str) -> Unstopped:
        """The same report as seen from one level higher."""
        return attrs.evolve(self, name=f"{supervisor}/{self.name}")
