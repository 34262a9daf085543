"""What the money views say over time: which violation is worth an alarm, and which is only work in progress."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from actors.health_conditions import Condition
from db.verify import Invariant
from runtime.metrics import gauge

VIOLATIONS = gauge(
    "atlas_money_violations", "Rows of each money view at the last look: each must be empty.", labels=("view",)
)


@attrs.define
class MoneyWatch:
    """The last look at each view.

    A view that must hold at every commit is in trouble as soon as it lists anything. One that holds only at rest may list
    what is being worked on: it is in trouble when two looks in a row list the same subject.
    """

    _seen: dict[str, frozenset[str]] = attrs.field(init=False, factory=dict)

    def judge(self, found: Invariant) -> Condition:
        """Take in one look; returns what it means."""
        VIOLATIONS.labels(found.name).set(found.violations)
        subjects = frozenset(subject for subject, _ in found.sample)
        before = self._seen.get(found.name, frozenset())
        self._seen[found.name] = subjects
        lasting = subjects & before if found.at_rest else subjects
        if not lasting:
            return Condition(found.name, "")
        named = [f"{subject}: {problem}" for subject, problem in found.sample if subject in lasting]
        return Condition(found.name, f"{found.violations} violations, such as {named[0]}; `atlas verify` lists them")


def in_trouble(conditions: Iterable[Condition]) -> list[str]:
    """The subjects that are."""
    return [condition.subject for condition in conditions if condition.trouble]
