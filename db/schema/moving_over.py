"""Moving existing rows to a new shape: page by page, each in a transaction of its own, resumed where it was interrupted.

A migration that needs it adds a row to `moving_over`, done at once in a database that has nothing to move. The row says
how far its step has come, and commits with the page: a process that dies loses the page at most. `migrate` runs what is
not done, while no instance works on the database, and a database with a step that is not done is not served.

A step is a function `move_page(tx, after, limit)`: it moves up to `limit` rows with numbers above `after` and returns the
last number, or `None` when there are none left. It must not rely on the code of the operations, which change after it.
"""

from collections.abc import Awaitable, Callable, Mapping

import attrs

from db.schema.moving_intervals import move_page_to_intervals
from db.schema.moving_purses import move_page_to_purses
from db.tx import Tx

PAGE = 500
"""Rows a page: some seconds of work at most."""

MovePage = Callable[[Tx, int, int], Awaitable[int | None]]

STEPS: Mapping[str, MovePage] = {"purses": move_page_to_purses, "intervals": move_page_to_intervals}
"""By the names that the migrations write into `moving_over`."""


@attrs.frozen
class Step:
    """A step that is not done."""

    name: str
    last_id: int
    """Up to which number rows are moved."""


async def unfinished_step(tx: Tx) -> Step | None:
    """The step that is to go on, those of earlier migrations first; `None`: everything is moved."""
    rows = await tx.fetch("SELECT step, last_id FROM moving_over WHERE done_at IS NULL")
    left = {row["step"]: Step(row["step"], row["last_id"]) for row in rows}
    return next((left[name] for name in STEPS if name in left), None)


async def move_next_page(tx: Tx, limit: int = PAGE) -> bool:
    """Move one page of the step that is not done, inside the caller's transaction. `False`: everything was moved before."""
    step = await unfinished_step(tx)
    if step is None:
        return False
    last_id = await STEPS[step.name](tx, step.last_id, limit)
    await tx.execute(
        """
        UPDATE moving_over SET last_id = coalesce($2, last_id), done_at = CASE WHEN $2::bigint IS NULL THEN atlas_now() END
        WHERE step = $1
        """,
        step.name,
        last_id,
    )
    return True
