"""What a chaos monkey did, and where it could not get at anybody. For tests."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.frozen(order=True)
class Boundary:
    """A place where an actor can be killed."""

    actor: str
    point: str

    def __str__(self) -> str:
        return f"{self.actor}/{self.point}"


@attrs.frozen
class Kill:
    """One that happened."""

    round: int
    """In which round of work, counted from 1; one that was armed earlier may strike later."""
    boundary: Boundary
    visit: int
    """The visit of the boundary, counted from the arming."""


@attrs.frozen
class ChaosReport:
    """What a campaign did."""

    seed: int
    rounds: int
    kills: tuple[Kill, ...]
    boundaries: tuple[Boundary, ...]
    """All that the victims' handlers, the rounds and `expect` named, except the spared ones; sorted."""
    passed: frozenset[Boundary]
    """Those that were visited at all."""

    @property
    def hits(self) -> Counter[Boundary]:
        """Kills per boundary."""
        return Counter(kill.boundary for kill in self.kills)

    @property
    def never_hit(self) -> tuple[Boundary, ...]:
        """Boundaries at which nobody was killed; sorted."""
        hits = self.hits
        return tuple(boundary for boundary in self.boundaries if not hits[boundary])

    def __str__(self) -> str:
        head = f"seed {self.seed}: {len(self.kills)} kills at {len(self.hits)} of {len(self.boundaries)} boundaries"
        lines = [f"{head} in {self.rounds} rounds"]
        hits = self.hits
        for boundary in self.boundaries:
            fate = str(hits[boundary]) if hits[boundary] else self._why(boundary)
            lines.append(f"  {boundary!s:<44} {fate}")
        return "\n".join(lines)

    def _why(self, boundary: Boundary) -> str:
        return "NEVER HIT" if boundary in self.passed else "NEVER HIT: no round passed it"


class ChaosFailed(AssertionError):
    """A boundary was never hit, or a victim did not come back. `report` is what the campaign did until then."""

    def __init__(self, what: str, report: ChaosReport) -> None:
        super().__init__(f"{what}\n{report}")
        self.report = report
