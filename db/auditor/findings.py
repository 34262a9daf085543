"""What the auditor says, and the register of its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from db.auditor.derivation import Derivation


@attrs.frozen
class Finding:
    """Something that is stored otherwise than the facts say."""

    rule: str
    """The rule, in plain words."""
    subject: str
    """What it is about, e.g. `journal 42 (refund:r-1)`."""
    derived: str
    """What follows from the facts."""
    stored: str
    customer_id: int | None = None

    def __str__(self) -> str:
        whose = "" if self.customer_id is None else f" of customer {self.customer_id}"
        return f"{self.rule}: {self.subject}{whose}: derived {self.derived}, stored {self.stored}"


Found = Iterator[tuple[str, int | None, object, object]]
"""Subject, customer, derived and stored value of each violation."""


@attrs.frozen
class Rule:
    """One rule: its sentence, and what compares the derived with the stored."""

    name: str
    sentence: str
    check: Callable[[Derivation], Found]


RULES: dict[str, Rule] = {}
"""Every rule by name, in the order in which they are checked."""


def rule(sentence: str) -> Callable[[Callable[[Derivation], Found]], Callable[[Derivation], Found]]:
    """Register a check under its function's name."""

    def register(check: Callable[[Derivation], Found]) -> Callable[[Derivation], Found]:
        RULES[check.__name__] = Rule(check.__name__, sentence, check)
        return check

    return register


def apply_rules(derived: Derivation, rules: Iterable[Rule] | None = None) -> Iterator[Finding]:
    """Check all rules, or those that are given."""
    for each in RULES.values() if rules is None else rules:
        for subject, customer_id, expected, stored in each.check(derived):
            yield Finding(each.sentence, subject, _words(expected), _words(stored), customer_id)


def _words(value: Any) -> str:
    return "nothing" if value is None else str(value)
