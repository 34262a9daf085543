"""Figures of the business for metrics: read by one short statement on a round of housekeeping, never on a scrape."""

from __future__ import annotations

from typing import Final

from actors.pool.client import Pool
from db.stories import read_figures
from runtime.metrics import gauge

ACTIVE = gauge("atlas_subscriptions_active", "Subscriptions that run.", labels=("tariff",))
TRIALS = gauge("atlas_trials_active", "Subscriptions that run and came from a trial.")
BALANCE = gauge("atlas_balance_held_roubles", "What customers hold in their purses.", labels=("purse",))
OPEN_CASES = gauge("atlas_cases_open", "Cases that wait for an operator.")
LATE = gauge(
    "atlas_work_late",
    "Rows that should be done by now: keys wanted for two minutes, notices tried for five, withdrawals not paid out.",
    labels=("work",),
)
READ_AT = gauge("atlas_business_read_at_seconds", "When these figures were read, in seconds since 1970; 0: not yet.")
_WITHIN: Final = 5.0


async def publish_figures(pool: Pool) -> None:
    """Read the figures and let the metrics show them. Raises LeaseError; the figures before stay then."""
    found = await pool.run("housekeeping.figures", read_figures, within=_WITHIN, hold=_WITHIN)
    for (tariff,) in ACTIVE.samples():
        ACTIVE.remove(tariff)
    for tariff, number in found.active.items():
        ACTIVE.labels(tariff).set(number)
    for purse, kopecks in found.held.items():
        BALANCE.labels(purse).set(kopecks / 100)
    TRIALS.set(found.trials)
    OPEN_CASES.set(found.backlog.open_cases)
    LATE.labels("keys").set(found.backlog.late_keys)
    LATE.labels("notices").set(found.backlog.late_notices)
    LATE.labels("withdrawals").set(found.backlog.withdrawals)
    READ_AT.set(found.read_at.timestamp())
