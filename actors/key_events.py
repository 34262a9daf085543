"""What happened to customers' keys, as events and figures. A key is named by its id, which is no secret."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.metrics import SECONDS, counter, histogram

KEYS = counter("atlas_keys_total", "Keys that a worker settled, by outcome.", labels=("worker", "outcome"))
SETTLE_SECONDS = histogram(
    "atlas_key_settle_seconds",
    "From a change of what is wanted to its confirmation on the nodes.",
    buckets=SECONDS,
    labels=("worker",),
)


@attrs.frozen
class KeySettled(Event):
    """A key is on (or off) its nodes, and the database says so."""

    level: ClassVar[int] = logging.INFO
    key_id: str
    outcome: str
    took: float
    "Seconds since it was wanted so."

    def line(self) -> str:
        return f"key {self.key_id} {self.outcome} after {self.took:.3f} s"


@attrs.frozen
class KeyPostponed(Event):
    """A node was away, or a row of the key locked; the key is tried again, and no attempt was counted."""

    level: ClassVar[int] = logging.WARNING
    key_id: str
    retry_in: float
    attempts: int
    "Failures so far."
    waited: float
    "Seconds since it has been wanted so."
    why: str

    def line(self) -> str:
        return f"key {self.key_id}, wanted so since {self.waited:.0f} s, waits {self.retry_in:.0f} s more: {self.why}"


@attrs.frozen
class KeyFailed(Event):
    """A node refuses a key for a reason that waiting does not cure."""

    level: ClassVar[int] = logging.ERROR
    key_id: str
    outcome: str
    attempts: int
    "Failures so far, this one included."
    waited: float
    "Seconds since it has been wanted so."
    why: str

    def line(self) -> str:
        return f"key {self.key_id} {self.outcome} at attempt {self.attempts}, {self.waited:.0f} s after it was wanted: {self.why}"


@attrs.frozen
class KeysOverdue(Event):
    """Customers wait too long for what they paid, or keep what has ended: somebody should look."""

    level: ClassVar[int] = logging.ERROR
    count: int
    "Keys of this round that have waited too long or failed too often."
    key_id: str
    "The one that has waited longest."
    attempts: int
    waited: float
    why: str

    def line(self) -> str:
        return (
            f"{self.count} keys are overdue; the oldest, {self.key_id}, has waited for {self.waited / 60:.0f} min with "
            f"{self.attempts} failed attempts: {self.why} (`atlas inspect {self.actor}`, `atlas cases`)"
        )
