"""A circuit breaker: after repeated failures, stop trying for a while, then try with one call."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable

import attrs


class BreakerState(enum.Enum):
    """Closed: calls pass. Open: none does. Half-open: one call is out to see whether the callee is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@attrs.define
class Breaker:
    """Pure state on a given clock (seconds, monotonic); knows nothing of what it guards.

    `threshold` failures in a row open it. A probe is let through after `first_pause` seconds, then, while probes fail,
    after twice as long each time up to `longest_pause`; each pause is scattered by `jitter` (0.2 = ±20 %) so that many
    callers do not come back at once. One success closes it. Calls answered with a refusal are successes: the callee is
    alive.
    """

    clock: Callable[[], float]
    threshold: int = 3
    first_pause: float = 5.0
    longest_pause: float = 60.0
    jitter: float = 0.2
    random: Callable[[], float] = random.random
    state: BreakerState = attrs.field(init=False, default=BreakerState.CLOSED)
    failures: int = attrs.field(init=False, default=0)
    opened_at: float = attrs.field(init=False, default=0.0)
    _pause: float = attrs.field(init=False, default=0.0)
    _next_probe: float = attrs.field(init=False, default=0.0)

    def allow(self) -> bool:
        """Whether a call may go out now. If it may, `success`, `failure` or `abandon` must follow."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and self.clock() >= self._next_probe:
            self.state = BreakerState.HALF_OPEN
            return True
        return False

    def success(self) -> None:
        """The call was answered, with a result or a refusal: close the breaker."""
        self.state = BreakerState.CLOSED
        self.failures = 0
        self._pause = 0.0

    def failure(self) -> None:
        """The call was not answered. Late failures of calls from before the opening change nothing."""
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self.failures >= self.threshold
        ):
            if self.state is BreakerState.CLOSED:
                self.opened_at = self.clock()
            self._open()

    def abandon(self) -> None:
        """The call was given up by its caller, which says nothing about the callee. A probe may go out again at once."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self._next_probe = self.clock()

    @property
    def retry_in(self) -> float:
        """Seconds until the next probe may go out; 0 if a call may go out now."""
        return 0.0 if self.state is BreakerState.CLOSED else max(0.0, self._next_probe - self.clock())

    def _open(self) -> None:
        self.state = BreakerState.OPEN
        self._pause = min(self.longest_pause, self._pause * 2 or self.first_pause)
        scattered = self._pause * (1 + self.jitter * (2 * self.random() - 1))
        self._next_probe = self.clock() + min(self.longest_pause, scattered)
