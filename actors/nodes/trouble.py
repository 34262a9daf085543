"""What is wrong with a node that answers: its conditions, readiness and metrics."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from actors.conditions import Condition
from actors.nodes.ownership import NodeOwnership
from runtime import Event
from runtime.metrics import counter, gauge
from vpn.protocol import NodeState

CLOCK_SKEW = gauge(
    "atlas_node_clock_skew_seconds",
    "How far the node's clock is ahead of the database's; keys end there so much early, or late if it is below 0.",
    labels=("node",),
)
WALL_SKEW = gauge(
    "atlas_node_wall_clock_skew_seconds",
    "How far the own clock of the node's host is ahead of the time that the node goes by.",
    labels=("node",),
)
ENDS_HELD = gauge(
    "atlas_node_keys_held",
    "Keys that seem to be over on the node and are served on until the time is confirmed.",
    labels=("node",),
)
ENDED_TOO_SOON = gauge(
    "atlas_node_ended_too_soon",
    "Keys that the node takes to be over though it has confirmed a later end.",
    labels=("node",),
)
WRONG_KEYS = gauge(
    "atlas_node_wrong_keys",
    "Customers' keys that are not on the node as they should be: missing, late, or ended and there still.",
    labels=("node", "kind"),
)

XRAY_ENDS = counter(
    "atlas_node_xray_ends_total",
    "Times that a node's Xray ended or could not be started, as its agent told at a look.",
    labels=("node",),
)
NOT_OWNER = gauge(
    "atlas_node_not_owner",
    "Whether another installation rules the node, so that it takes no changes (0 or 1).",
    labels=("node",),
)


_AGAIN_AND_AGAIN = 3
"""Ends in a row that are no accident any more."""


@attrs.frozen
class NodeXrayEnded(Event):
    """A node's Xray ended, or could not be started: all of its customers were cut. The agent starts it again."""

    level: ClassVar[int] = logging.WARNING
    times: int
    """Since the look before."""
    why: str

    def line(self) -> str:
        return f"the Xray of {self.actor} ended {self.times} times since the last look; {self.why}"


def xray_ended(node: str, before: NodeState | None, state: NodeState) -> int:
    """Count how often the node's Xray ended since the state `before` (None: it was not looked at yet), and return it. An
    agent that was started anew counts from 0."""
    if before is None:
        return 0
    known = before.xray_ends if state.xray_ends >= before.xray_ends else 0
    XRAY_ENDS.labels(node).inc(state.xray_ends - known)
    return state.xray_ends - known


def trouble_of_xray(state: NodeState) -> str:
    """What is wrong with the node's Xray; empty if it runs, or is only being started again after one end."""
    times = state.xray_ends_in_a_row
    if times < _AGAIN_AND_AGAIN:
        return ""
    if state.ready:
        return (
            f"its Xray ends again and again, {times} times in a row ({state.xray_last_end}), and cuts all its customers each "
            "time: look at its log"
        )
    return (
        f"its Xray does not run, after {times} tries in a row: {state.why}. No customer is served there; the agent answers, "
        "keeps changes, and tries again every few seconds. Mend that on its host, and look at its log"
    )


@attrs.frozen
class NodeTrouble:
    """The troubles of one node, each empty if there is none.

    A node that does not take changes, forgets them, or takes them from another, is not ready, because purchases wait, nor is
    one that refuses customers who have paid. One that holds ends back or has a wrong clock serves them.
    """

    refuses: str
    ended: str
    held: str
    clock: str
    owner: str
    xray: str
    memory: str
    is_foreign: bool
    _figures: tuple[float, float, int, int]

    @classmethod
    def of(
        cls,
        state: NodeState,
        skew: float,
        ended_too_soon: int,
        tolerance: float,
        ownership: NodeOwnership,
        memory: str,
    ) -> NodeTrouble:
        """Judge a node by its state. `skew` is how far its time is ahead of the database's, `ended_too_soon` how many keys it
        takes to be over though it has confirmed a later end, `tolerance` how wrong a clock may be; times are in seconds.
        `memory` says why it is not trusted to keep what it accepts."""
        ended = held = ""
        if ended_too_soon:
            ended = (
                f"it has ended {ended_too_soon} keys whose time is not over: their customers are refused there. It gives them "
                "back once it has the right time; if it does not, look at its clock and its log"
            )
        if state.ends_held:
            held = f"it serves {state.ends_held} keys past what seems to be their end: {state.why_held}"
        return cls(
            f"it serves, and refuses changes: {state.why}" if state.why else "",
            ended,
            held,
            _clock(skew, state.wall_skew, tolerance),
            ownership.trouble,
            trouble_of_xray(state),
            memory,
            ownership.is_refused,
            (skew, state.wall_skew, state.ends_held, ended_too_soon),
        )

    def reasons(self) -> list[tuple[str, str, bool]]:
        """For the actor's readiness: a word, the trouble (empty if none), and whether it keeps the node from its work."""
        return [
            ("owner", self.owner, self.is_foreign),
            ("xray", self.xray, False),
            ("memory", self.memory, True),
            ("changes", self.refuses, True),
            ("ended", self.ended, True),
            ("held", self.held, False),
            ("clock", self.clock, False),
        ]

    def conditions(self, name: str) -> list[Condition]:
        """The same as conditions of the actor of that name."""
        return [
            Condition(f"changes of {name}", self.refuses),
            Condition(f"clock of {name}", self.clock),
            Condition(f"owner of {name}", self.owner),
            Condition(f"xray of {name}", self.xray),
            Condition(f"memory of {name}", self.memory),
            Condition(f"ends of {name}", "; ".join(filter(None, (self.ended, self.held)))),
        ]

    def measure(self, node: str) -> None:
        """Set the gauges of this node."""
        for each, value in zip((CLOCK_SKEW, WALL_SKEW, ENDS_HELD, ENDED_TOO_SOON), self._figures, strict=True):
            each.labels(node).set(value)
        NOT_OWNER.labels(node).set(self.is_foreign)


def _clock(skew: float, wall_skew: float, tolerance: float) -> str:
    found = []
    if abs(skew) > tolerance:
        side, when = ("ahead of", "early") if skew > 0 else ("behind", "late")
        found.append(
            f"its clock is {abs(skew):.0f} s {side} the database's, so keys end {when} by as much; set it there"
        )
    if abs(wall_skew) > tolerance:
        side = "ahead" if wall_skew > 0 else "behind"
        found.append(
            f"its host's clock is {abs(wall_skew):.0f} s {side}; the node keeps the database's time meanwhile, set it there "
            "before the host is started again"
        )
    return "; ".join(found)
