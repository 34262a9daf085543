"""The arithmetic of access: each grant owns its time, the best tariff runs first and of one tariff the oldest grant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import attrs

NONE: Final = timedelta(0)


@attrs.define
class Span:
    """The time of one grant: `granted` is `used` before this piece, the piece from `start` to `end`, and `taken` back."""

    event_id: int
    tariff: str
    rank: int
    granted: timedelta
    start: datetime
    end: datetime
    used: timedelta = NONE
    taken: timedelta = NONE

    def left(self, now: datetime) -> timedelta:
        """What is to come."""
        return max(NONE, self.end - max(self.start, now))

    def used_until(self, now: datetime) -> timedelta:
        """What has run."""
        return self.used + max(NONE, min(now, self.end) - self.start)


@attrs.define
class Timeline:
    """All spans of one subscription, changed event by event."""

    spans: dict[int, Span] = attrs.field(factory=dict)
    ended: list[tuple[datetime, datetime]] = attrs.field(factory=list)
    """Each change, and the end from then on."""

    def add(self, span: Span, now: datetime) -> None:
        """A grant: its time joins the line."""
        self.spans[span.event_id] = span
        self._line_up(now)

    def lengthen(self, event_id: int, by: timedelta, now: datetime) -> None:
        """Time that was not delivered joins the line again."""
        span = self.spans[event_id]
        span.granted += by
        if span.end <= now:
            span.used += span.end - span.start
            span.start, span.end = now, now + by
        else:
            span.end += by
        self._line_up(now)

    def take(self, event_id: int, most: timedelta, now: datetime) -> timedelta:
        """Take back what is left of one grant, at most so much; what follows moves up."""
        taken = self._shorten(self.spans[event_id], most, now)
        self._line_up(now)
        return taken

    def take_all(self, now: datetime) -> None:
        """Take back everything that is left."""
        for span in self.spans.values():
            self._shorten(span, span.left(now), now)

    def end(self, now: datetime) -> datetime:
        """When access ends; `now` if nothing is left."""
        return max([span.end for span in self.spans.values() if span.end > now], default=now)

    def note_end(self, at: datetime, end: datetime) -> None:
        """Remember from when on access ended at `end`."""
        self.ended.append((at, end))

    def overlap(self, since: datetime, until: datetime, now: datetime) -> timedelta:
        """How much of a window lies in access, as it was known at each moment of it."""
        total = NONE
        for (at, end), (following, _) in zip(self.ended, [*self.ended[1:], (now, now)], strict=False):
            total += max(NONE, min(until, end, following) - max(since, at))
        return total

    def running(self, at: datetime) -> Span | None:
        """The span that runs at a moment."""
        return next((span for span in self.spans.values() if span.start <= at < span.end), None)

    @staticmethod
    def _shorten(span: Span, most: timedelta, now: datetime) -> timedelta:
        left = span.left(now)
        taken = min(left, most)
        if taken > NONE:
            span.taken += taken
            span.end -= taken
            if taken == left and span.start > now:
                span.start = span.end = now
        return taken

    def _line_up(self, now: datetime) -> None:
        at = now
        for span in _in_turn(span for span in self.spans.values() if span.end > now):
            if span.start <= now and at > now:
                span.used += now - span.start
            if span.start > now or at > now:
                span.start, span.end = at, at + span.left(now)
            at = span.end


def _in_turn(spans: Iterable[Span]) -> list[Span]:
    return sorted(spans, key=lambda span: (-span.rank, span.event_id))
