"""When a key's time is over, decided on the node alone, so that it holds while the backend is away."""

from __future__ import annotations

import heapq
import math

import attrs

from vpn.protocol import KeySpec


@attrs.define
class BackendContact:
    """How long the backend may have been unable to extend keys, in real Unix seconds.

    While it is heard from at least every `silence` seconds (15 minutes) a key ends exactly at its time. A silent
    backend cannot extend anybody, so keys then live `grace` seconds longer (a day): a dead backend must not switch off
    people who pay. The grace lasts until `settle` seconds (5 minutes) after it is heard again, its time to catch up.
    """

    last_heard: float
    grace: float = 86_400.0
    silence: float = 900.0
    settle: float = 300.0
    settled_at: float = attrs.field(init=False, default=float("-inf"))

    def heard(self, now: float) -> bool:
        """The backend spoke. True if that ended a silence: the grace now has an end."""
        was_silent = now - self.last_heard >= self.silence
        if was_silent:
            self.settled_at = now + self.settle
        self.last_heard = max(now, self.last_heard)
        return was_silent

    def grace_at(self, now: float) -> float:
        """Seconds that a key lives beyond its time right now."""
        silent = now - self.last_heard >= self.silence
        return self.grace if silent or now < self.settled_at else 0.0

    def next_change(self, now: float) -> float:
        """The next time at which the grace changes if the backend is not heard before; infinity if never."""
        if now < self.settled_at:
            return self.settled_at
        silent_at = self.last_heard + self.silence
        return silent_at if now < silent_at else math.inf


class ExpiryQueue:
    """Keys by the end of their time. Entries of keys that changed since are skipped when they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def add(self, spec: KeySpec) -> None:
        """Watch this key; keys without an end need no watching."""
        if spec.expires_at is not None:
            heapq.heappush(self._heap, (spec.expires_at.timestamp(), spec.key_id))

    def pop_due(self, now: float, grace: float) -> list[tuple[str, float]]:
        """Take out all entries whose time, with the grace, is over: (key id, end)."""
        due = []
        while self._heap and self._heap[0][0] + grace <= now:
            end, key_id = heapq.heappop(self._heap)
            due.append((key_id, end))
        return due

    def next_end(self) -> float | None:
        """The earliest end being watched."""
        return self._heap[0][0] if self._heap else None


def is_over(spec: KeySpec, now: float, grace: float, ended_upto: float = float("-inf")) -> bool:
    """Whether the key's time, with the grace, is over. Keys that had their end at `ended_upto` were ended before: a grace that
    began later does not bring them back, only a clock that was wrong does."""
    if spec.expires_at is None:
        return False
    end = spec.expires_at.timestamp()
    return end + grace <= now or end <= min(ended_upto, now)
