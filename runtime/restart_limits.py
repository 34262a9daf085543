"""How often a child may be restarted (restart intensity) and how long it waits before that (backoff). Pure: the caller
brings the time and the randomness.
"""

from __future__ import annotations

import math
from collections import deque

import attrs


@attrs.frozen
class Backoff:
    """The delays between the restarts of one child. All times in seconds.

    The first restart after a quiet time is immediate; the second waits `initial`, each further one `factor` times
    longer, never more than `maximum`; `jitter` shortens or lengthens each delay by up to that share, so that
    children that fell together do not rise together. A child that served for `reset_after` begins again at the
    immediate restart.

    Raises ValueError at construction if a value makes no sense.
    """

    initial: float = attrs.field(default=0.5, validator=attrs.validators.ge(0.0))
    """Delay before the second restart in a row."""
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1.0))
    """Growth from one delay to the next."""
    maximum: float = attrs.field(default=30.0, validator=attrs.validators.ge(0.0))
    """Cap of the delay before jitter."""
    jitter: float = attrs.field(default=0.2, validator=attrs.validators.ge(0.0))
    """Share of the delay that chance may add or take, 0 to 1."""
    reset_after: float = attrs.field(default=60.0, validator=attrs.validators.ge(0.0))
    """A child that served this long is counted as quiet: its next restart is immediate."""

    def __attrs_post_init__(self) -> None:
        if self.jitter > 1.0:
            raise ValueError(f"backoff jitter is a share between 0 and 1, got {self.jitter!r}")


NO_BACKOFF = Backoff(initial=0.0, maximum=0.0, jitter=0.0)
"""Every restart is immediate."""


def nominal_delay(backoff: Backoff, restart: int) -> float:
    """Seconds before the `restart`-th restart in a row (1 = the first) without jitter."""
    if restart < 1:
        raise ValueError(f"restarts are counted from 1, got {restart}")
    if restart == 1 or backoff.initial == 0.0:
        return 0.0
    try:
        grown = backoff.initial * backoff.factor ** (restart - 2)
    except OverflowError:
        return backoff.maximum
    return min(grown, backoff.maximum)


def delay(backoff: Backoff, restart: int, chance: float) -> float:
    """Seconds before the `restart`-th restart in a row; `chance` in [0, 1) picks the place inside the jitter."""
    nominal = nominal_delay(backoff, restart)
    return nominal * (1.0 + backoff.jitter * (2.0 * chance - 1.0))


def longest_delay(backoff: Backoff, restart: int) -> float:
    """The most that `delay` can return for this restart."""
    return nominal_delay(backoff, restart) * (1.0 + backoff.jitter)


class IntensityWindow:
    """A sliding, closed window of restart attempts.

    An attempt is allowed while at most `intensity` attempts, itself included, lie in [now - period, now]; both ends
    belong to the window, as in OTP. Failed starts are attempts like any other. `intensity` 0 allows none.

    Raises ValueError for a negative intensity or a period that is not positive.
    """

    __slots__ = ("_attempts", "intensity", "period")

    def __init__(self, intensity: int, period: float) -> None:
        if not 0 <= intensity < math.inf or intensity % 1:
            raise ValueError(f"intensity is a number of restarts of at least 0, got {intensity!r}")
        if not period > 0.0:
            raise ValueError(f"period is a positive number of seconds, got {period!r}")
        self.intensity = intensity
        self.period = period
        self._attempts: deque[float] = deque()

    def attempt(self, now: float) -> bool:
        """Count one attempt at `now`; False if it is one too many. Times must not go backwards."""
        self._attempts.append(now)
        self._forget(now)
        return len(self._attempts) <= self.intensity

    def count(self, now: float) -> int:
        """Attempts inside the window that ends at `now`."""
        self._forget(now)
        return len(self._attempts)

    def clear(self) -> None:
        """Forget all attempts, as after an operator's restart of a parked child."""
        self._attempts.clear()

    def _forget(self, now: float) -> None:
        while self._attempts and self._attempts[0] < now - self.period:
            self._attempts.popleft()
