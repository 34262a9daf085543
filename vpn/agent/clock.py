"""The node's clock: real time, or moved where the configuration allows it."""

from __future__ import annotations

import time

import attrs


@attrs.define
class NodeClock:
    """Unix seconds. `offset` None: real time, which cannot be moved."""

    offset: float | None = None

    def now(self) -> float:
        """The node's time."""
        return time.time() + (self.offset or 0.0)

    def real(self) -> float:
        """Real time, whatever the offset: for what is not about customers' time."""
        return time.time()

    def move(self, offset: float) -> bool:
        """Set the distance to real time; False if that is not allowed."""
        if self.offset is None:
            return False
        self.offset = offset
        return True
