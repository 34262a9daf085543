"""What was paid for and not delivered is credited, in full if it never worked, and the access ends."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.access.subscriptions import get_subscription
from db.billing.compensation import Compensation, PaidGrant, compensate
from db.billing.grants import grant_access, grant_trial
from db.billing.ledger import balance
from db.billing.refunds import refund_charge
from db.errors import BusinessError
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.keys.reissue import request_reissue
from db.money import Money
from db.work.claims import enlist_claimer
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


async def test_time_that_one_node_served_is_not_credited_because_another_is_waited_for(database: Database) -> None:
    for name in ("oslo", "rome"):
        await database.run(register_node, name, {"host": name}, inbounds=["in"])
    await database.add_customer()
    await database.buy()
    worker = await database.run(enlist_claimer, "main/activation")
    [claim] = await database.run(claim_activations, worker, 50, 60.0)
    await database.run(confirm_activation, claim, [NodeConfirmation("oslo")])
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
    await database.buy_from_balance(1001, key="b")
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


@given(st.integers(1, 400), st.integers(0, 900), st.integers(0, 300_000))
def test_a_grant_is_worth_what_it_cost_for_the_time_left_and_added_time_cost_nothing(
    days: int, left: int, cost: int
) -> None:
    worth = PaidGrant(1, days * DAY, left * DAY, Money(cost)).value
    assert worth == Money(cost * min(left, days) // days)
    assert PaidGrant(1, days * DAY, (left + 1) * DAY, Money(cost)).value >= worth


async def test_what_was_given_back_is_kept_by_grant_and_adds_up_to_the_credit(database: Database) -> None:
    await database.add_customer()
    await database.buy(tariff="basic", charge_id="c1")
    await database.buy(tariff="plus", charge_id="c2")
    done = await compensated(database)
    async with database.connect() as connection:
        parts = await connection.fetch("SELECT journal_id, amount FROM compensation_parts ORDER BY event_id")
    assert [(part["journal_id"], part["amount"]) for part in parts] == [
        (done.journal_id, 14900),
        (done.journal_id, 29900),
    ]


async def test_what_was_compensated_is_not_refunded_as_well_not_even_in_part(database: Database) -> None:
    customer = await database.add_customer()
    await database.buy()
    await compensated(database)
    for amount in (None, Money(1)):
        with pytest.raises(
            BusinessError, match=r"149\.00 RUB was given to the balance as compensation: 0\.00 RUB can be"
        ):
            await database.run(refund_charge, "test", "charge-1", amount=amount, actor="o", idempotency_key="r")
    assert await database.run(balance, customer.id) == Money(14900)
    assert await database.count("refunds") == 0


async def test_what_a_compensation_left_of_a_charge_can_be_refunded(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await worked(database)
    await database.move_clock(days=15)
    given = (await compensated(database)).amount
    rest = await database.run(refund_charge, "test", "charge-1", actor="o", idempotency_key="r")
    assert rest.amount + given == Money(14900)


async def test_a_compensation_after_a_refund_of_a_part_gives_the_rest(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.run(refund_charge, "test", "charge-1", amount=Money(10000), actor="o", idempotency_key="r")
    assert (await compensated(database)).amount == Money(4900)
