"""How figures went over the last hour and the last day."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from runtime.desk.page import Figure

EVERY: Final = 10.0
"""Seconds between two samples of the last hour."""
HOUR: Final = 360
DAY: Final = 288
_A_DAYS_SAMPLE: Final = 30
"""Samples of the hour that make one of the day."""

Course = Sequence[float | None]


@attrs.define(eq=False)
class Track:
    """One figure and its samples, oldest first; None where it could not be read."""

    figure: Figure
    hour: deque[float | None] = attrs.field(factory=lambda: deque(maxlen=HOUR))
    day: deque[float | None] = attrs.field(factory=lambda: deque(maxlen=DAY))
    _last: float | None = None
    _samples: int = 0

    @property
    def now(self) -> float | None:
        """The latest sample."""
        return self.hour[-1] if self.hour else None

    def sample(self) -> None:
        """Read the figure once."""
        try:
            read = self.figure.read()
        except Exception:  # noqa: BLE001  # a figure that cannot be read is a gap in its course
            read = None
        value = read
        if self.figure.is_rate:
            # A counter that fell was begun anew.
            value = None if read is None or self._last is None else max(0.0, read - self._last) * 60 / EVERY
            self._last = read
        self.hour.append(value)
        self._samples += 1
        if self._samples % _A_DAYS_SAMPLE == 0:
            known = [one for one in list(self.hour)[-_A_DAYS_SAMPLE:] if one is not None]
            self.day.append(sum(known) / len(known) if known else None)


class History:
    """The courses of all figures of a system. It outlives the actor that serves it."""

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.samples = 0
        self.look: Callable[[], None] | None = None
        """Called at each sample too: notes what is no figure."""

    def follow(self, figures: Sequence[Figure]) -> None:
        """These figures from now on; what is known of their courses is kept."""
        for figure in figures:
            known = self.tracks.get(figure.name)
            if known is None:
                self.tracks[figure.name] = Track(figure)
            else:
                known.figure = figure

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await trio.sleep(EVERY)

    def sample(self) -> None:
        """Read every figure once."""
        self.samples += 1
        if self.look is not None:
            self.look()
        for track in self.tracks.values():
            track.sample()
