"""What the money views say over time: which violation is worth an alarm, and which is only work in progress."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from actors.health_conditions import Condition
from db.verify import Invariant
from runtime.metrics import gauge

TOLD_APART: Final = 10_000
"So many violations of a view that holds at rest are told apart. More than that, look after look, is trouble by itself."

VIOLATIONS = gauge(
    "atlas_money_violations", "Rows of each money view at the last look: each must be empty.", labels=("view",)
)

_TOO_MANY: Final = "(more than can be told apart)"


@attrs.define
class MoneyWatch:
    """Since when each view lists whom.

    A view that must hold at every commit is in trouble as soon as it lists anything. One that holds only at rest may list
    what is being worked on: it is in trouble when it lists the same subject at every look for `patience` seconds, at two
    looks at least, however many others come and go.
    """

    patience: float = 0.0
    _since: dict[str, dict[str, float]] = attrs.field(init=False, factory=dict)

    def judge(self, found: Invariant, now: float = 0.0) -> Condition:
        """Take in one look at `now`, in seconds; returns what it means."""
        VIOLATIONS.labels(found.name).set(found.violations)
        problems = dict(found.sample)
        if found.violations > len(found.sample):
            problems[_TOO_MANY] = f"{found.violations} at once"
        before = self._since.get(found.name, {})
        since = {subject: before.get(subject, now) for subject in problems}
        self._since[found.name] = since
        if not found.at_rest:
            lasting = [subject for subject, _ in found.sample]
        else:
            stayed = (subject for subject in since if subject in before and now - since[subject] >= self.patience)
            lasting = sorted(stayed, key=lambda subject: since[subject])
        if not lasting:
            return Condition(found.name, "")
        worst = lasting[0]
        age = f" for {now - since[worst]:.0f} s" if now > since[worst] else ""
        return Condition(
            found.name,
            f"{found.violations} violations, such as {worst}: {problems[worst]}{age}; `atlas verify` lists them",
        )


def in_trouble(conditions: Iterable[Condition]) -> list[Condition]:
    """Those that are."""
    return [condition for condition in conditions if condition.trouble]
