"""A claim outlasts the iteration that took it, or the worker does not start: no row is worked on by two at once."""

from __future__ import annotations

import pytest

from actors.keys.activation import Activation
from actors.keys.fast_expiry import FastExpiry
from actors.notices.notifications import Notifications
from actors.notices.settings import TelegramNoticeSettings
from actors.payments.auto_renewal import AutoRenewal
from actors.payments.payment_watcher import PaymentWatcher
from actors.payments.settings import PaymentSettings
from runtime import PeriodicWorker, StartRefused
from runtime.testing import actor_system

LONG = 600.0
WORKERS: dict[str, PeriodicWorker] = {
    "activation": Activation(interval=LONG, budget=LONG),
    "fast_expiry": FastExpiry(interval=LONG, budget=LONG),
    "auto_renewal": AutoRenewal(interval=LONG, budget=LONG),
    "payment_watcher": PaymentWatcher(PaymentSettings(), interval=LONG, budget=LONG),
    "notifications": Notifications(TelegramNoticeSettings(), interval=LONG, budget=LONG),
}


@pytest.mark.parametrize("name", WORKERS)
async def test_a_worker_that_could_outlast_its_claims_refuses_to_start_and_says_why(
    name: str,
) -> None:
    async with actor_system() as system:
        with pytest.raises(StartRefused, match=rf"{name}: budget = 600 .*claim_seconds") as refused:
            await system.start(WORKERS[name], name=name)
        assert refused.value.exit_code == 78


@pytest.mark.parametrize("name", ["activation", "fast_expiry", "auto_renewal"])
async def test_who_set_the_budget_by_its_old_name_is_told_so(name: str) -> None:
    async with actor_system() as system:
        with pytest.raises(StartRefused, match="MAX_ITERATION_SECONDS"):
            await system.start(WORKERS[name], name=name)
