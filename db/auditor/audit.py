"""Check everything that is stored against what follows from the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from db.auditor import access_rules, asked_rules, fact_rules, money_rules, opening_rules, trail_rules
from db.auditor.books import QUERIES, Books, read_books
from db.auditor.checkpoint import Part, check_parts, digest_parts, write_parts
from db.auditor.derivation import Derivation
from db.auditor.findings import RULES, Finding, Rule, apply_rules
from db.tx import Tx

MODULES = (money_rules, access_rules, fact_rules, trail_rules, asked_rules, opening_rules)
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


@attrs.frozen
class Reading:
    """All that an audit needs of the database, read in one snapshot."""

    altered: tuple[Finding, ...]
    """Final rows that are not as they were when they were audited."""
    parts: tuple[Part, ...]
    """What there is; empty: the same as at the last clean audit."""
    books: Books | None
    """None: nothing has changed since the last clean audit, or there is more than was asked for."""

    @property
    def rows(self) -> int:
        """How many rows there are to audit."""
        return sum(part.rows for part in self.parts if part.name in QUERIES)


Progress = Callable[[str], None]
"""Told each step of an audit when it begins."""


def _silent(step: str) -> None: ...


async def read_changes(
    tx: Tx, *, whole: bool = False, most_rows: int | None = None, progress: Progress = _silent
) -> Reading:
    """Look whether anything has changed since the last clean audit, and read everything if so, or if it is to be done `whole`.

    More than `most_rows` rows are not read. Nothing is written. Run it in one snapshot (REPEATABLE READ), or while nothing
    writes.
    """
    progress("comparing everything with what was audited before")
    altered, is_same = await check_parts(tx)
    if is_same and not altered and not whole:
        return Reading((), (), None)
    reading = Reading(tuple(altered), tuple(await digest_parts(tx)), None)
    if most_rows is not None and reading.rows > most_rows:
        return reading
    progress(f"reading {reading.rows} rows")
    return attrs.evolve(reading, books=await read_books(tx))


def judge(reading: Reading, progress: Progress = _silent) -> Audit:
    """Derive and compare what was read. It takes a while, needs no database, and may run in a thread of its own."""
    if reading.books is None:
        return Audit(reading.altered, len(RULES), is_derived=False)
    progress("deriving journals, purses, rewards and access from the facts")
    derived = Derivation(reading.books)
    findings = [*reading.altered]
    for number, each in enumerate(RULES.values(), 1):
        found = list(apply_rules(derived, [each]))
        findings += found
        progress(f"[{number}/{len(RULES)}] {each.sentence}: {f'{len(found)} findings' if found else 'holds'}")
    return Audit(tuple(findings), len(RULES))


async def keep(tx: Tx, reading: Reading) -> None:
    """Note what was read as audited. The caller has found it clean."""
    await write_parts(tx, reading.parts)


async def audit_changes(tx: Tx, *, whole: bool = False, progress: Progress = _silent) -> Audit:
    """Audit what has changed since the last clean audit, and keep a checkpoint if it is clean.

    What was audited before and is final is compared by its digest, so that altering it together with all that follows from it
    is found too. If nothing has changed at all, nothing is derived, unless it is to be done `whole`. Run it in one
    snapshot (REPEATABLE READ), or while nothing writes.
    """
    reading = await read_changes(tx, whole=whole, progress=progress)
    audited = judge(reading, progress)
    if audited.is_derived and audited.holds:
        await keep(tx, reading)
    return audited
