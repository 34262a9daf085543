"""Lasting trouble: told when it begins, again after a cooldown, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar

import attrs

from runtime import Event


@attrs.frozen
class Condition:
    """What one check found about one subject: trouble, or none."""

    subject: str
    """Whom it is about: a pool or a node."""
    trouble: str
    """What is wrong; empty if nothing is."""


@attrs.frozen
class ConditionBegan(Event):
    """A dependency is in trouble: now, or still."""

    level: ClassVar[int] = logging.ERROR
    subject: str
    trouble: str
    lasted: float

    def line(self) -> str:
        since = "" if self.lasted == 0 else f" for {self.lasted:.0f} s"
        return f"{self.subject} is in trouble{since}: {self.trouble}"


@attrs.frozen
class ConditionEnded(Event):
    """The trouble of a dependency has ended; said once for each ConditionBegan of a subject."""

    level: ClassVar[int] = logging.INFO
    subject: str
    lasted: float

    def line(self) -> str:
        return f"{self.subject} is well again after {self.lasted:.1f} s"


@attrs.frozen
class Alert:
    """What an actor should tell operators now: that trouble began, that it lasts, or, with an empty `trouble`, that it ended."""

    subject: str
    trouble: str
    lasted: float

    def event(self, actor: str) -> Event:
        """The alert as the event that `actor` emits."""
        if self.trouble:
            return ConditionBegan(actor=actor, subject=self.subject, trouble=self.trouble, lasted=self.lasted)
        return ConditionEnded(actor=actor, subject=self.subject, lasted=self.lasted)


@attrs.define
class _LastingTrouble:
    text: str
    since: float
    said_at: float


@attrs.define
class ConditionTracker:
    """What is in trouble. `cooldown`: seconds between two alerts about the same lasting trouble."""

    cooldown: float
    _troubles: dict[str, _LastingTrouble] = attrs.field(init=False, factory=dict)

    def update(self, found: Iterable[Condition], now: float) -> list[Alert]:
        """Take in what a round of checks found at `now`, in seconds. Returns an alert for each trouble that began, that has
        lasted for another cooldown, or that ended."""
        alerts = []
        for condition in found:
            known = self._troubles.get(condition.subject)
            if not condition.trouble:
                if known is not None:
                    del self._troubles[condition.subject]
                    alerts.append(Alert(condition.subject, "", now - known.since))
            elif known is None:
                self._troubles[condition.subject] = _LastingTrouble(condition.trouble, now, now)
                alerts.append(Alert(condition.subject, condition.trouble, 0.0))
            else:
                known.text = condition.trouble
                if now - known.said_at >= self.cooldown:
                    known.said_at = now
                    alerts.append(Alert(condition.subject, condition.trouble, now - known.since))
        return alerts

    def inspect(self, now: float) -> Mapping[str, object]:
        """Every trouble by subject, with its text and age in seconds."""
        return {
            subject: {"trouble": trouble.text, "for": round(now - trouble.since, 1)}
            for subject, trouble in sorted(self._troubles.items())
        }
