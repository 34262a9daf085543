"""Which workers the watchdog leaves out: the beat's `state`, kept by what supervision reports."""

from __future__ import annotations

from runtime.core.beats import Beats, WorkerState
from runtime.events import Event
from runtime.supervision.events import ChildParked, ChildStarted


class WorkerStates:
    """Marks parked and paused workers (and pools) in their beats; a paused one stays so over restarts."""

    def __init__(self, beats: Beats) -> None:
        self._beats = beats
        self._paused: set[str] = set()
        self._parked: set[str] = set()

    def note(self, event: Event) -> None:
        """A subscriber of the event bus."""
        if isinstance(event, ChildParked):
            if event.actor in self._beats.workers or event.actor in self._beats.pools:
                self._parked.add(event.actor)
        elif isinstance(event, ChildStarted):
            self._parked.discard(event.actor)
        else:
            return
        self._mark(event.actor)

    def pause(self, name: str, *, paused: bool) -> None:
        """An operator paused or resumed it."""
        (self._paused.add if paused else self._paused.discard)(name)
        self._mark(name)

    def is_paused(self, name: str) -> bool:
        """Whether an operator paused it."""
        return name in self._paused

    def _mark(self, name: str) -> None:
        state = WorkerState.ACTIVE
        if name in self._parked:
            state = WorkerState.PARKED
        elif name in self._paused:
            state = WorkerState.PAUSED
        for beats in (self._beats.workers, self._beats.pools):
            if name in beats:
                beats[name].state = state
