"""What periodic workers that claim rows have in common."""

from __future__ import annotations

import os

from runtime import PeriodicWorker, StartRefused


def require_claims_outlast_budget(worker: PeriodicWorker, claim_seconds: float) -> None:
    """Raise StartRefused (78) unless a claim lasts for a whole iteration: a row would be worked on by two at once."""
    if worker.budget < claim_seconds:
        return
    name = worker.context.name
    raise StartRefused(
        f"{name}: budget = {worker.budget:g} must be less than claim_seconds = {claim_seconds:g}, or rows that it still works "
        f"on would be free for another process. Lower budget in [actor.{name}] args (MAX_ITERATION_SECONDS in the environment "
        "sets it too), or raise claim_seconds there",
        exit_code=os.EX_CONFIG,
    )
