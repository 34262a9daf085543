"""Trials and grants: given once, never in the way of what was paid for."""

from datetime import timedelta

import pytest

from db.access.subscriptions import get_subscription
from db.billing.grants import grant_access, grant_trial
from db.errors import BusinessError, UnknownTariff
from tests.db.database import Database


async def test_a_trial_runs_72_hours_and_there_is_one_per_customer_ever(database: Database) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert await database.fetchval("SELECT expires_at - created_at FROM subscriptions") == timedelta(hours=72)
    await database.move_clock(days=400)
    with pytest.raises(BusinessError, match="one per customer"):
        await database.run(grant_trial, 1001, actor="front_end:test")


async def test_a_trial_is_refused_while_something_paid_runs(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    with pytest.raises(BusinessError, match="subscription that runs"):
        await database.run(grant_trial, 1001, actor="front_end:test")
    assert await database.count("trials") == 0


async def test_a_purchase_during_a_trial_adds_to_its_end_and_makes_it_paid(database: Database) -> None:
    await database.add_customer()
    trial = await database.run(grant_trial, 1001, actor="front_end:test")
    bought = await database.buy()
    assert bought.expires_at == trial.new_end + timedelta(days=30)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.source == "payment"


async def test_a_grant_is_given_once_per_key_and_leaves_a_paid_subscription_paid(database: Database) -> None:
    await database.add_customer()
    bought = await database.buy()
    assert bought.expires_at is not None
    week = timedelta(days=7)
    first = await database.run(grant_access, 1001, "basic", week, idempotency_key="sorry", actor="operator")
    again = await database.run(grant_access, 1001, "basic", week, idempotency_key="sorry", actor="operator")
    assert first.new_end == again.new_end == bought.expires_at + week
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.source, view.expires_at) == ("payment", first.new_end)
    assert (first.replayed, again.replayed) == (False, True)
    await database.add_customer(2002)
    for telegram_id, tariff, period in ((1001, "basic", 4 * week), (1001, "plus", week), (2002, "basic", week)):
        with pytest.raises(BusinessError, match=r"'sorry' already stands for basic for 7 days.* to customer 1001"):
            await database.run(grant_access, telegram_id, tariff, period, idempotency_key="sorry", actor="operator")
    assert await database.count("entitlement_events") == 2
    with pytest.raises(UnknownTariff, match="basic, plus"):
        await database.run(grant_access, 1001, "gold", week, idempotency_key="x", actor="operator")
