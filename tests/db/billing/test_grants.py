"""Trials and grants: given once, never in the way of what was paid for."""

from datetime import timedelta

import pytest

from db.access.subscriptions import get_subscription, mark_revoked
from db.billing.adjustments import adjust_balance
from db.billing.grants import grant_access, grant_trial
from db.billing.refunds import refund_charge
from db.errors import BusinessError, UnknownTariff
from db.money import Money
from db.settings import TrialSettings
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


# -- who may have the trial: as in the old system by default, nobody who has bought access, but somebody who was revoked


async def trial(database: Database, rules: TrialSettings | None = None) -> str:
    given = await database.run(grant_trial, 1001, actor="front_end:web", rules=rules or TrialSettings())
    return given.tariff


async def bought(database: Database, how: str) -> None:
    await database.add_customer()
    if how == "balance":
        await database.run(adjust_balance, 1001, Money(50_000), reason="x", actor="o", idempotency_key="x")
        await database.buy_from_balance()
    else:
        await database.buy()
    if how == "refunded":
        await database.run(
            refund_charge, "test", "charge-1", actor="o", idempotency_key="r", amount=None, revoke=True, write_off=False
        )
    if how == "revoked":
        await database.run(mark_revoked, 1001, actor="operator:anna")
    await database.move_clock(days=40)


@pytest.mark.parametrize("how", ["payment", "balance", "refunded", "revoked"])
async def test_a_past_payer_has_no_trial_unless_the_setting_says_so(database: Database, how: str) -> None:
    await bought(database, how)
    with pytest.raises(BusinessError, match=r"has bought access before, .* \(setting trials\.past_payers\)"):
        await trial(database)
    assert await database.count("trials") == 0
    assert await trial(database, TrialSettings(past_payers=True)) == "basic"


async def test_a_topup_alone_is_no_purchase_of_access(database: Database) -> None:
    await database.add_customer()
    await database.run(adjust_balance, 1001, Money(50_000), reason="x", actor="o", idempotency_key="x")
    assert await trial(database) == "basic"


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_revoked_gift_may_be_followed_by_a_trial_unless_the_setting_says_no(
    database: Database, allowed: bool
) -> None:
    await database.add_customer()
    await database.run(grant_access, 1001, "basic", timedelta(days=9), idempotency_key="g", actor="operator:anna")
    await database.run(mark_revoked, 1001, actor="operator:anna")
    if allowed:
        assert await trial(database) == "basic"
        return
    with pytest.raises(BusinessError, match=r"was revoked, so there is no trial \(setting trials\.revoked\)"):
        await trial(database, TrialSettings(revoked=False))
    assert await database.count("trials") == 0
