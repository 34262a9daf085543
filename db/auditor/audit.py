"""Check everything that is stored against what follows from the facts."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from db.auditor import access_rules, fact_rules, money_rules, trail_rules
from db.auditor.books import read_books
from db.auditor.checkpoint import check_parts, keep_parts
from db.auditor.derivation import Derivation
from db.auditor.findings import RULES, Finding, Rule, apply_rules
from db.tx import Tx

MODULES = (money_rules, access_rules, fact_rules, trail_rules)
"""Importing them registers their rules."""


@attrs.frozen
class Audit:
    """The result of one look."""

    findings: tuple[Finding, ...]
    rules: int
    """How many rules hold or do not."""
    is_derived: bool = True
    """Everything was derived; `False`: nothing has changed since an audit that found nothing."""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


async def audit(tx: Tx, rules: Iterable[Rule] | None = None) -> Audit:
    """Derive everything and compare it by all rules, or by those that are given. It reads whole tables and writes nothing."""
    checked = tuple(RULES.values() if rules is None else rules)
    derived = Derivation(await read_books(tx))
    return Audit(tuple(apply_rules(derived, checked)), len(checked))


async def audit_changes(tx: Tx, *, whole: bool = False) -> Audit:
    """Audit what has changed since the last clean audit, and keep a checkpoint if it is clean.

    What was audited before and is final is compared by its digest, so that altering it together with all that follows from it
    is found too. If nothing has changed at all, nothing is derived, unless it is to be done `whole`. Run it in one
    snapshot (REPEATABLE READ), or while nothing writes.
    """
    altered, is_same = await check_parts(tx)
    if is_same and not altered and not whole:
        return Audit((), len(RULES), is_derived=False)
    found = await audit(tx)
    findings = (*altered, *found.findings)
    if not findings:
        await keep_parts(tx)
    return Audit(findings, len(RULES))
