"""What was paid for and not delivered is credited, in full if it never worked, and the access ends."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.access.subscriptions import get_subscription
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.compensation import Compensation, PaidPeriod, compensate, value_of
from db.billing.grants import grant_access, grant_trial
from db.billing.ledger import balance
from db.billing.refunds import refund_charge
from db.errors import BusinessError
from db.keys.reissue import request_reissue
from db.money import Money
from tests.db.database import Database

DAY = timedelta(days=1)


async def compensated(database: Database) -> Compensation:
    number = await database.fetchval("SELECT id FROM subscriptions")
    return await database.run(compensate, number, reason="it never worked", actor="operator")


async def worked(database: Database) -> None:
    """The nodes have confirmed the key."""
    async with database.connect() as connection:
        await connection.execute("UPDATE vpn_keys SET activation_status = 'active', activated_at = atlas_now()")


async def test_what_never_worked_is_credited_in_full_however_late(database: Database) -> None:
    customer = await database.add_customer()
    await database.buy()
    await database.move_clock(days=2)
    done = await compensated(database)
    assert done.amount == Money(14900)
    assert await database.run(balance, customer.id) == Money(14900)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.state, view.is_running) == ("revoked", False)
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removing"
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'compensation_credited'") == 1


async def test_repeating_it_finds_nothing_left(database: Database) -> None:
    customer = await database.add_customer()
    await database.buy()
    await compensated(database)
    assert (await compensated(database)).amount == Money(0)
    assert await database.run(balance, customer.id) == Money(14900)


async def test_what_worked_is_credited_for_the_time_that_is_left(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await worked(database)
    await database.move_clock(days=20)
    done = await compensated(database)
    assert Money(4960) < done.amount <= Money(4967)


async def test_time_that_a_working_key_served_is_not_credited_because_another_one_waits(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await worked(database)
    await database.run(request_reissue, 1001, actor="operator", idempotency_key="r")
    await database.move_clock(days=20)
    assert (await compensated(database)).amount <= Money(4967)


async def test_gifts_trials_and_what_was_refunded_are_not_credited(database: Database) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert (await compensated(database)).amount == Money(0)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.is_running, "where nothing is credited, nothing ends"
    await database.run(grant_access, 1001, "plus", 10 * DAY, idempotency_key="g", actor="operator")
    await database.buy(charge_id="c1")
    await database.run(refund_charge, "test", "c1", amount=Money(900), actor="o", idempotency_key="part")
    assert (await compensated(database)).amount == Money(14000)


async def test_credit_buys_again_and_is_compensated_again(database: Database) -> None:
    customer = await database.add_customer()
    await database.buy()
    await compensated(database)
    await database.run(finalize_balance_purchase, 1001, "basic", 30, idempotency_key="b")
    assert await database.run(balance, customer.id) == Money(0)
    assert (await compensated(database)).amount == Money(14900)
    assert await database.run(balance, customer.id) == Money(14900)


async def test_a_refunded_period_is_not_credited_as_well(database: Database) -> None:
    customer = await database.add_customer()
    await database.buy(charge_id="c1")
    await database.buy(charge_id="c2")
    await database.run(refund_charge, "test", "c1", actor="o", idempotency_key="r")
    assert (await compensated(database)).amount == Money(14900)
    assert await database.run(balance, customer.id) == Money(14900)


async def test_each_tariff_is_valued_at_its_own_price(database: Database) -> None:
    await database.add_customer()
    await database.buy(tariff="basic", charge_id="c1")
    await database.buy(tariff="plus", charge_id="c2")
    await worked(database)
    await database.move_clock(days=15)
    done = await compensated(database)
    assert Money(29840) < done.amount <= Money(29850)  # half of plus, all of basic, which follows it


async def test_an_unknown_subscription_is_refused(database: Database) -> None:
    with pytest.raises(BusinessError, match="no subscription 404"):
        await database.run(compensate, 404, reason="x", actor="operator")


@given(
    st.lists(st.tuples(st.sampled_from(["basic", "plus"]), st.integers(1, 400), st.integers(0, 300_000)), max_size=8),
    st.integers(0, 900),
    st.integers(0, 900),
)
def test_never_more_than_was_paid_and_everything_when_all_is_left(
    bought: list[tuple[str, int, int]], basic: int, plus: int
) -> None:
    periods = [PaidPeriod(tariff, days * DAY, Money(cost)) for tariff, days, cost in bought]
    paid = sum(cost for _, _, cost in bought)
    value = value_of({"basic": basic * DAY, "plus": plus * DAY}, periods)
    assert Money(0) <= value <= Money(paid)
    whole = {name: sum(days for tariff, days, _ in bought if tariff == name) * DAY for name in ("basic", "plus")}
    assert value_of(whole, periods) == Money(paid)
    more = value_of({"basic": (basic + 1) * DAY, "plus": plus * DAY}, periods)
    assert more >= value
