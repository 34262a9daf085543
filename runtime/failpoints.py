"""Named places at which tests and `atlas kill --at` make an actor crash.

Every actor has `before:<MessageType>` and `after:<MessageType>` (the handler is done, the reply has not left) around each
message, `task:<name>` where each of its tasks begins, and whatever it names itself with `context.failpoint`.
"""

from __future__ import annotations

import attrs

from runtime.errors import Killed


@attrs.define
class FailpointReport:
    """What is known of one failpoint of one actor."""

    actor: str
    point: str
    armed_for: int | None = None
    """The visit, counted from the arming, at which it fires; None if it is not armed."""
    visited: int = 0
    """Visits while counting was on."""
    fired: int = 0


class Failpoints:
    """The failpoints of one system.

    `enabled` is all that is read while no failpoint is armed. Arming switches it on; counting visits without
    arming anything (to learn which points a run passes) is switched on by setting it.
    """

    __slots__ = ("_points", "enabled")

    def __init__(self, *, enabled: bool = False) -> None:
        self.enabled = enabled
        self._points: dict[tuple[str, str], FailpointReport] = {}

    def arm(self, actor: str, point: str, nth: int = 1) -> None:
        """Crash `actor` with Killed at the `nth` visit from now of `point`, once."""
        if nth < 1:
            raise ValueError(f"nth counts from 1, not {nth}")
        self._point(actor, point).armed_for = nth
        self.enabled = True

    def disarm(self, actor: str | None = None, point: str | None = None) -> None:
        """Take back what is armed: one point, all points of an actor, or all. Counting stays as it is."""
        for known in self._points.values():
            if actor in (None, known.actor) and point in (None, known.point):
                known.armed_for = None

    def visit(self, actor: str, point: str) -> None:
        """The actor is at this point. Raises Killed if it was armed for this visit. Ask `enabled` first."""
        known = self._point(actor, point)
        known.visited += 1
        if known.armed_for is None:
            return
        known.armed_for -= 1
        if known.armed_for == 0:
            known.armed_for = None
            known.fired += 1
            raise Killed(actor, point)

    def report(self) -> list[FailpointReport]:
        """A copy of all points that were armed or visited, by actor and name."""
        return [attrs.evolve(self._points[key]) for key in sorted(self._points)]

    def clear(self) -> None:
        """Forget everything and stop counting."""
        self._points.clear()
        self.enabled = False

    def _point(self, actor: str, point: str) -> FailpointReport:
        return self._points.setdefault((actor, point), FailpointReport(actor, point))
