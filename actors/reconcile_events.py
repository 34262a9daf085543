"""What reconciling found and did, as events and figures. Keys are named by their ids, which are no secrets."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.metrics import counter, gauge

PASSES = counter("atlas_reconcile_passes_total", "Looks at a node, by what they led to.", labels=("node", "verdict"))
DRIFT = counter("atlas_reconcile_drift_total", "Keys that differed on a node, by how.", labels=("node", "kind"))
SURPLUS = gauge("atlas_reconcile_quarantined", "Keys on a node that nobody wants there, seen last.", labels=("node",))


@attrs.frozen
class NodeDrifted(Event):
    """A node had something else than the database believes; it is being put right."""

    level: ClassVar[int] = logging.WARNING
    node: str
    missing: int
    ahead: int
    surplus: int

    def line(self) -> str:
        return (
            f"node {self.node} drifted: {self.missing} keys missing, {self.ahead} different, {self.surplus} that nobody "
            "wants there"
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
class SurplusRemoved(Event):
    """A key that nobody wants on the node was taken off it, after a second sighting and a second look."""

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
