"""Whether a node keeps what it accepts: its sequence must grow with every change that it confirmed, and never falls."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar, Final

import attrs

from runtime import Event
from runtime.metrics import counter
from vpn.protocol import Applied, NodeState, Removed, SyncOutcome

FORGOTTEN = counter(
    "atlas_node_forgotten_changes_total",
    "Changes that a node had, or had confirmed, and does not have any more.",
    labels=("node",),
)

_WAKE_PAUSE: Final = 10.0
"Seconds between two times that everything is put on a node again because it forgets."


@attrs.frozen
class NodeForgot(Event):
    """A node has lost changes that it had confirmed: it is compared with the database, and what is missing is put again."""

    level: ClassVar[int] = logging.ERROR
    changes: int

    def line(self) -> str:
        return f"{self.actor} has forgotten {self.changes} changes that it had; what is missing is put again"


@attrs.define
class NodeMemory:
    """What one node has to remember. `probation`: seconds without another loss after which it is trusted again.

    Only changes are counted that were asked for after the last look at the node and answered before the next, so that a change
    on its way during a look accuses nobody.
    """

    probation: float
    _least: int | None = attrs.field(init=False, default=None)
    _digest: str = attrs.field(init=False, default="")
    _look: int = attrs.field(init=False, default=0)
    _accepted: int = attrs.field(init=False, default=0)
    _sure: int = attrs.field(init=False, default=0)
    _forgotten: int = attrs.field(init=False, default=0)
    _caught_at: float = attrs.field(init=False, default=float("-inf"))
    _wake_at: float = attrs.field(init=False, default=float("-inf"))
    _wake_is_due: bool = attrs.field(init=False, default=False)

    @property
    def trouble(self) -> str:
        """Why the node cannot be trusted now; empty if it can."""
        if not self._forgotten:
            return ""
        return (
            f"it has forgotten {self._forgotten} changes that it had confirmed; its customers' keys are put there again. If it "
            f"came back from a backup or a snapshot, that mends it, and this ends after {self.probation:g} s; if not, look at "
            "its disk and its data directory, and whether something else answers in its place"
        )

    def asks(self) -> int:
        """Call before a change is sent; pass what it returns to `accepts`."""
        return self._look

    def accepts(self, asked: int, answer: object) -> None:
        """The node has confirmed this."""
        if asked == self._look:
            self._accepted += changes_in(answer)

    def looks(self) -> None:
        """Call before the node's state is asked for."""
        self._sure = self._accepted

    def sees(self, state: NodeState, now: float) -> int:
        """Judge the state that the node told. Returns how many changes it has forgotten since the look before."""
        least = state.sequence if self._least is None else self._least + self._sure
        # the mark up to which keys have ended is a change that is not waited for: alone, it may be lost with the power
        is_same = not self._sure and state.digest == self._digest
        lost = 0 if is_same else max(0, least - state.sequence)
        self._least, self._digest = state.sequence, state.digest
        self._look += 1
        self._accepted = self._sure = 0
        if lost:
            self._forgotten += lost
            self._caught_at, self._wake_is_due = now, True
        elif now - self._caught_at > self.probation:
            self._forgotten = 0
        return lost

    def take_wake(self, now: float) -> bool:
        """Whether the node is to be compared now, because it has forgotten something: at most every ten seconds."""
        if not self._wake_is_due or now < self._wake_at:
            return False
        self._wake_is_due, self._wake_at = False, now + _WAKE_PAUSE
        return True


def changes_in(answer: object) -> int:
    """How many changes of its wanted set a node has confirmed with this answer, for certain."""
    if isinstance(answer, Applied):
        return int(answer.created and not answer.is_read_back)
    if isinstance(answer, Removed):
        return int(answer.existed and not answer.is_read_back)
    if isinstance(answer, SyncOutcome):
        return answer.added + answer.changed + answer.removed
    if isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        return sum(changes_in(one) for one in answer)
    return 0
