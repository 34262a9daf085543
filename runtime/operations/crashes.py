"""The crash reports of a running system: the last ones of each actor, over its restarts."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from runtime.crash_report import CrashReport
from runtime.events import Event, EventBus
from runtime.supervision.events import ChildExited

KEPT = 10
"""Reports kept of each actor or group."""
KEPT_NAMES = 1_000
"""Actors and groups of which reports are kept; beyond that, those go whose last crash is longest ago."""


class CrashReports:
    """A ring of reports for each name. Belongs to the system, so it outlives every incarnation."""

    def __init__(self, events: EventBus) -> None:
        self._rings: OrderedDict[str, deque[CrashReport]] = OrderedDict()
        self.stop: Callable[[], None] = events.subscribe(self._note, ChildExited)
        """Take no more."""

    def _note(self, event: Event) -> None:
        assert isinstance(event, ChildExited), "it subscribes to nothing else"
        if event.report is None:
            return
        ring = self._rings.get(event.actor)
        if ring is None:
            ring = self._rings[event.actor] = deque(maxlen=KEPT)
            if len(self._rings) > KEPT_NAMES:
                self._rings.popitem(last=False)
        else:
            self._rings.move_to_end(event.actor)
        ring.append(event.report)

    def reports(self, name: str | None = None) -> list[CrashReport]:
        """Those of one name, or all; oldest first."""
        if name is not None:
            return list(self._rings.get(name, ()))
        return sorted((report for ring in self._rings.values() for report in ring), key=lambda report: report.at)
