"""A worker that looks for files to remove, now and then, and at once when woken."""

from __future__ import annotations

from pathlib import Path

import attrs

from runtime import Budget, Iteration, PeriodicWorker


@attrs.define(eq=False)
class Sweeper(PeriodicWorker):
    directory: Path = attrs.field(kw_only=True)

    async def iterate(self, budget: Budget) -> Iteration:
        found = sorted(self.directory.glob("*.tmp"))
        for file in found[: budget.page_size]:
            if budget.is_spent:  # no time is left, or it was asked to stop
                break
            with budget.isolate(file.name):  # one file's trouble is not the others'
                file.unlink()
                await budget.count()  # proves progress, and lets others run
        return Iteration(done=budget.done, more=len(found) > budget.page_size)
