"""What happened to customers' keys, and what reconciling found, as events and figures.

A key is named by its id, which is no secret.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime import Event
from runtime.metrics import SECONDS, counter, gauge, histogram

KEYS_SETTLED = counter("atlas_keys_total", "Keys that a worker settled, by outcome.", labels=("worker", "outcome"))
KEY_SETTLE_SECONDS = histogram(
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
    """Seconds since it was wanted so."""

    def line(self) -> str:
        return f"key {self.key_id} {self.outcome} after {self.took:.3f} s"


@attrs.frozen
class KeyPostponed(Event):
    """A node was away, or a row of the key locked; the key is tried again, and no attempt was counted.

    Logged at the level debug alone: all keys of a node that is away wait, and KeysWait says so once.
    """

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    retry_in: float
    attempts: int
    """Failures so far."""
    waited: float
    """Seconds since it has been wanted so."""
    why: str

    def line(self) -> str:
        return f"key {self.key_id}, wanted so since {self.waited:.0f} s, waits {self.retry_in:.0f} s more: {self.why}"


@attrs.frozen
class KeysWait(Event):
    """Keys wait for one thing that is away: said when that begins and once a cooldown while it lasts, however many they are."""

    level: ClassVar[int] = logging.WARNING
    subject: str
    """What they wait for: a node, or a row that another session keeps locked."""
    count: int
    """Keys of this round that wait for it."""
    why: str

    def line(self) -> str:
        return f"{self.count} keys wait for {self.subject}: {self.why}"


@attrs.frozen
class KeyFailed(Event):
    """A node refuses a key for a reason that waiting does not cure."""

    level: ClassVar[int] = logging.ERROR
    key_id: str
    outcome: str
    attempts: int
    """Failures so far, this one included."""
    waited: float
    """Seconds since it has been wanted so."""
    why: str

    def line(self) -> str:
        return f"key {self.key_id} {self.outcome} at attempt {self.attempts}, {self.waited:.0f} s after it was wanted: {self.why}"


@attrs.frozen
class KeysOverdue(Event):
    """Customers wait too long for what they paid, or keep what has ended: an operator should look."""

    level: ClassVar[int] = logging.ERROR
    count: int
    """Keys of this round that have waited too long or failed too often."""
    key_id: str
    """The one that has waited longest."""
    attempts: int
    waited: float
    why: str

    def line(self) -> str:
        return (
            f"{self.count} keys are overdue; the oldest, {self.key_id}, has waited for {self.waited / 60:.0f} min with "
            f"{self.attempts} failed attempts: {self.why} (`atlas inspect {self.actor}`, `atlas cases`)"
        )


RECONCILE_PASSES = counter(
    "atlas_reconcile_passes_total", "Looks at a node, by what they led to.", labels=("node", "verdict")
)
KEY_DIFFERENCES = counter(
    "atlas_reconcile_drift_total", "Keys that differed on a node, by how.", labels=("node", "kind")
)
KEYS_QUARANTINED = gauge(
    "atlas_reconcile_quarantined", "Keys on a node that nobody wants there, seen last.", labels=("node",)
)


@attrs.frozen
class NodeDrifted(Event):
    """A node had something else than the database believes; it is being put right."""

    level: ClassVar[int] = logging.WARNING
    node: str
    missing: int
    ahead: int
    surplus: int
    """Strangers: keys that this database never knew."""
    ended: int = 0
    """Keys that are known here as wanted no more, and were taken off it."""

    def line(self) -> str:
        return (
            f"node {self.node} drifted: {self.missing} keys missing, {self.ahead} different, {self.ended} that had ended, "
            f"{self.surplus} that are unknown here"
        )


@attrs.frozen
class NodeRestored(Event):
    """Keys were put back on a node."""

    level: ClassVar[int] = logging.INFO
    node: str
    keys: int
    seconds: float

    def line(self) -> str:
        return f"node {self.node}: {self.keys} keys put back in {self.seconds:.2f} s"


@attrs.frozen
class EndedRemoved(Event):
    """A node had keys again that are known here as wanted no more (it was restored from a backup, or cloned); they are off it."""

    level: ClassVar[int] = logging.WARNING
    node: str
    keys: int
    cut: int

    def line(self) -> str:
        return (
            f"node {self.node}: had {self.keys} keys again whose access has ended, as if it came from a backup; removed them and "
            f"cut {self.cut} connections"
        )


@attrs.frozen
class SurplusRemoved(Event):
    """A key that is not wanted on the node was taken off it, after a second sighting and a second look."""

    level: ClassVar[int] = logging.WARNING
    node: str
    key_id: str
    cut: int

    def line(self) -> str:
        return f"node {self.node}: removed key {self.key_id}, which nobody wants there, and cut {self.cut} connections"


@attrs.frozen
class UnlistedRemoved(Event):
    """A node that cannot list had something else than the database believes, twice; it was given the full set."""

    level: ClassVar[int] = logging.WARNING
    node: str
    keys: int

    def line(self) -> str:
        return f"node {self.node}: was given the full set of its keys and let go of {self.keys} that nobody wants there"


@attrs.frozen
class DuplicateUuid(Event):
    """A node lists two keys with one UUID: removing either from Xray locks out both."""

    level: ClassVar[int] = logging.ERROR
    node: str
    one: str
    other: str

    def line(self) -> str:
        return f"node {self.node}: keys {self.one} and {self.other} have the same UUID"


@attrs.frozen
class PassStopped(Event):
    """A look at a node was given up, and nothing was removed there."""

    level: ClassVar[int] = logging.ERROR
    node: str
    why: str

    def line(self) -> str:
        return f"reconciling node {self.node} stopped: {self.why}"
