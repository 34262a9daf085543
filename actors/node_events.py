"""What happened between ATLAS and a node."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.metrics import gauge

CLOCK_SKEW = gauge(
    "atlas_node_clock_skew_seconds",
    "How far the node's clock is ahead of the database's; keys end there so much early, or late if it is below 0.",
    labels=("node",),
)


@attrs.frozen
class NodeBack(Event):
    """The node answers, for the first time or again."""

    level: ClassVar[int] = logging.INFO
    keys: int
    away: float | None
    "Seconds that it was away; None if it is reached for the first time."

    def line(self) -> str:
        since = "reached" if self.away is None else f"back after {self.away:.1f} s"
        return f"{self.actor} is {since}, serving {self.keys} keys"


@attrs.frozen
class NodeAway(Event):
    """The node does not answer, or says that it cannot serve. Customers' changes wait as rows."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"{self.actor} is away: {self.why}"
