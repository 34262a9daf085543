"""Rate-limited logging: one line for each key in an interval, with the number of those that were left out before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import attrs
import trio


@attrs.define(eq=False)
class LogLimit:
    """Says which of many equal lines are to be written.

    `interval` is in seconds of trio's clock. At most `keys` keys are remembered; beyond that the one whose line is oldest is
    forgotten, and with it how many were left out.
    """

    interval: float = 60.0
    keys: int = 10_000
    _lines: OrderedDict[Hashable, tuple[float, int]] = attrs.field(init=False, factory=OrderedDict)

    def admit(self, key: Hashable) -> int | None:
        """How many lines of this key were left out since its last one, if a line is due now; None: leave this one out."""
        now = trio.current_time()
        written, left_out = self._lines.get(key, (-self.interval, 0))
        if now - written < self.interval:
            self._lines[key] = (written, left_out + 1)
            return None
        self._lines.pop(key, None)
        self._lines[key] = (now, 0)
        if len(self._lines) > self.keys:
            self._lines.popitem(last=False)
        return left_out
