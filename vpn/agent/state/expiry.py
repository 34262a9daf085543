"""When a key's time is over. It is decided on the node alone, so that it holds while the backend is away.

Here are the queue of ends, and the last contact of the backend with the grace that follows its silence.
"""

from __future__ import annotations

import heapq
import math

import attrs

from vpn.protocol import KeySpec


@attrs.define
class BackendContact:
    """The backend's last contact, and the grace that keys get while it is silent. All times are seconds of a clock that nothing
    sets (`vpn.agent.state.clock.elapsed`): a wrong wall clock makes nobody silent.

    While the backend makes contact at least every `silence` seconds (15 minutes) a key ends exactly at its time. A
    silent backend cannot extend keys, so keys then live `grace` seconds longer (a day): a dead backend must not switch
    off people who pay. The grace lasts until `settle` seconds (5 minutes) after the next contact, the backend's time to
    catch up.
    """

    last_contact: float
    grace: float = 86_400.0
    silence: float = 900.0
    settle: float = 300.0
    settled_at: float = attrs.field(init=False, default=float("-inf"))

    def note_contact(self, now: float) -> bool:
        """The backend made contact at `now`. True if that ended a silence: the grace now has an end."""
        was_silent = self.is_silent(now)
        if was_silent:
            self.settled_at = now + self.settle
        self.last_contact = max(now, self.last_contact)
        return was_silent

    def is_silent(self, now: float) -> bool:
        """Whether the backend has made no contact for `silence` seconds."""
        return now - self.last_contact >= self.silence

    def grace_at(self, now: float) -> float:
        """Seconds that a key lives beyond its time right now."""
        return self.grace if self.is_silent(now) or now < self.settled_at else 0.0

    def next_change(self, now: float) -> float:
        """The next time at which the grace changes if the backend makes no contact before; infinity if never."""
        if now < self.settled_at:
            return self.settled_at
        silent_at = self.last_contact + self.silence
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
