"""Restart intensity: how many attempts in how many seconds. Pure: the caller brings the time."""

from __future__ import annotations

from collections import deque


class IntensityWindow:
    """A sliding, closed window of restart attempts.

    An attempt is allowed while at most `intensity` attempts, itself included, lie in [now - period, now]; both ends
    belong to the window, as in OTP. Failed starts are attempts like any other. `intensity` 0 allows none.

    Raises ValueError for a negative intensity or a period that is not positive.
    """

    __slots__ = ("_attempts", "intensity", "period")

    def __init__(self, intensity: int, period: float) -> None:
        if intensity < 0:
            raise ValueError(f"intensity is a number of restarts of at least 0, got {intensity}")
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
