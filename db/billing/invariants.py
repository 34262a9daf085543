"""Checks the money invariants: every view whose name begins with `money_` lists violations and must be empty."""

from collections.abc import Callable

import attrs

from db.billing.cases import open_case_of_the_day
from db.tx import Tx
from db.work.leader_leases import Epoch, check_epoch

_SAMPLE = 5


@attrs.frozen
class Invariant:
    """The result of evaluating one money view."""

    name: str
    """The view's name."""
    at_rest: bool
    """It holds once the workers have caught up; the others hold at every commit."""
    violations: int
    sample: tuple[tuple[str, str], ...]
    """Violations as (subject, problem), in the order of their subjects, as many as were asked for at most."""

    @property
    def holds(self) -> bool:
        """Whether the view is empty."""
        return self.violations == 0


Progress = Callable[[Invariant, int, int], None]
"""Told each invariant as soon as it is known, its number and how many there are."""


async def list_invariants(tx: Tx) -> tuple[tuple[str, bool], ...]:
    """Every view's name, in order, and whether it holds only at rest."""
    views = await tx.fetch(
        """
        SELECT c.relname AS name, coalesce(obj_description(c.oid, 'pg_class') LIKE 'at rest%', false) AS at_rest
        FROM pg_class c
        WHERE c.relkind = 'v' AND c.relname LIKE 'money\\_%' AND pg_table_is_visible(c.oid)
        ORDER BY c.relname
        """
    )
    return tuple((view["name"], view["at_rest"]) for view in views)


async def check_invariant(tx: Tx, name: str, at_rest: bool, sample: int = _SAMPLE) -> Invariant:
    """Evaluate one view, by a name that `list_invariants` gave, and name up to `sample` violations. It reads whole tables."""
    rows = await tx.fetch(
        f'SELECT subject, problem, count(*) OVER () AS violations FROM "{name}" ORDER BY subject LIMIT $1',  # noqa: S608 - a name from the catalog
        sample,
    )
    return Invariant(
        name=name,
        at_rest=at_rest,
        violations=rows[0]["violations"] if rows else 0,
        sample=tuple((row["subject"], row["problem"]) for row in rows),
    )


async def check_invariants(tx: Tx, progress: Progress | None = None) -> tuple[Invariant, ...]:
    """Evaluate all views, in the order of their names. They read whole tables: run it as housekeeping, not per request."""
    views = await list_invariants(tx)
    checked = []
    for name, at_rest in views:
        checked.append(await check_invariant(tx, name, at_rest))
        if progress is not None:
            progress(checked[-1], len(checked), len(views))
    return tuple(checked)


async def open_money_case(tx: Tx, epoch: Epoch, view: str, trouble: str) -> int:
    """Tell the operator that a view is in trouble, and return the number of the case: one a view and day.

    Raises `LostEpoch`, and nothing is written, if another process holds the singleton by now.
    """
    await check_epoch(tx, epoch)
    return await open_case_of_the_day(tx, "money_invariant", view, details={"trouble": trouble[:400]})
