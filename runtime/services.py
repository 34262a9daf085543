"""What every actor of a process shares."""

from __future__ import annotations

import attrs

from runtime.beats import Beats
from runtime.deadletters import DeadLetters
from runtime.events import EventBus
from runtime.failpoints import Failpoints
from runtime.metrics import Metrics
from runtime.registry import Registry


@attrs.frozen
class Services:
    """The process-wide parts of one system, made once before any actor and given to all."""

    events: EventBus = attrs.field(factory=EventBus)
    metrics: Metrics = attrs.field(factory=Metrics)
    beats: Beats = attrs.field(factory=Beats)
    failpoints: Failpoints = attrs.field(factory=Failpoints)
    deadletters: DeadLetters = attrs.field(factory=DeadLetters)
    registry: Registry = attrs.field(factory=Registry)
    config: object = None
    """The loaded configuration; its class is of no concern here."""
    system_name: str = "atlas"
    instance: str = ""
    """Tells this process from all others that live, and is the same after a restart; empty if there is only one."""
