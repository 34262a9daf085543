"""The night that both meet, and what is seen of it."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

SUBSCRIPTIONS: Final = 100_000
CONNECTIONS: Final = 15
SECONDS: Final = 60.0
"""How long is looked on."""
PERIOD: Final = 6.0
"""Every worker is due together, so many seconds after the start and again: 600 s in the old system, a hundredth of it here."""
NODE_SECONDS: Final = 5.0
"""What the VPN takes to answer."""
LIST_FAILS_UNTIL: Final = 12.0
"""Until then the node's list of keys fails with 502."""
BUY_EVERY: Final = 0.5
"""A customer buys, every so many seconds ..."""
BUY_UNTIL: Final = 46.0
"""... until then: who came later could not have their access before the end, with such a VPN."""
LOCK_AT: Final = 27.0
"""When the code on ATLAS's loop takes its lock twice. The old service does it by itself, at the end of the first pass that
removed something: at about the same time."""
BEATS: Final = ("event_loop", "worker", "healthcheck")


@attrs.define
class Seen:
    """What was seen of one of the two, in seconds since the night began."""

    waits: list[tuple[float, float]] = attrs.field(factory=list)
    """When a connection was wanted, and how long that took; those that got none have waited until the end."""
    in_vain: int = 0
    """How many wanted a connection and had none at the end."""
    beats: dict[str, list[tuple[float, float]]] = attrs.field(factory=lambda: {beat: [] for beat in BEATS})
    """By beat: when somebody looked, and how old it was."""
    bought: int = 0
    """Customers who paid and had what they paid for at the end."""
    paid: int = 0
    """Customers who paid."""
    lost_connections: int = 0
    """Connections that never came back."""
    cut: int = 0
    """Keys of paying customers that were removed."""
    for_nothing: int = 0
    """Keys that were put on the node again because a list had failed."""
    refused: Counter[str] = attrs.field(factory=Counter)
    """What customers were told instead, and asked again: how often, by the words."""
    notes: list[str] = attrs.field(factory=list)
    """What was done about it, in the words of who did it."""

    @property
    def worst_wait(self) -> float:
        """The longest wait for a connection, in seconds."""
        return max((wait for _, wait in self.waits), default=0.0)

    def oldest(self, beat: str) -> float:
        """The greatest age of a beat, in seconds."""
        return max((age for _, age in self.beats[beat]), default=0.0)
