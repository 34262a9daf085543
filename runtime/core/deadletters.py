"""Messages that were not handled: the receiver, the type and the reason. Never their contents."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from time import time as wall_clock

import attrs

KEPT_DEAD_LETTERS = 1000
"""Dead letters kept; older ones are only counted."""


@attrs.frozen
class DeadLetter:
    """One message that was not handled."""

    at: float
    """Wall clock, seconds since the epoch."""
    actor: str
    """The receiver's name."""
    message: str
    """The name of its type."""
    reason: str


class DeadLetters:
    """The last dead letters, and how many there were of each kind. Recording never waits and never raises."""

    def __init__(self, *, ring: int = KEPT_DEAD_LETTERS, clock: Callable[[], float] = wall_clock) -> None:
        self._ring: deque[DeadLetter] = deque(maxlen=ring)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._clock = clock

    def record(self, actor: str, message: str, reason: str, *, counted_as: str | None = None) -> None:
        """Remember that `actor` did not handle a message of type `message`.

        `counted_as` is the name in the counts, where the actor is one of many; by default its own.
        """
        self._ring.append(DeadLetter(self._clock(), actor, message, reason))
        self._counts[counted_as or actor, message] += 1

    def recent(self, n: int = KEPT_DEAD_LETTERS) -> list[DeadLetter]:
        """The last `n`, oldest first."""
        return list(self._ring)[-n:] if n > 0 else []

    @property
    def total(self) -> int:
        """All since the start, those included that have left the ring."""
        return self._counts.total()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many per (actor, message type) since the start."""
        return dict(self._counts)
