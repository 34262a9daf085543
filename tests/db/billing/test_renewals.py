"""A period is renewed once, for money that is there, whatever happens at the same time and whatever was missed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from db.access.subscriptions import expire_page, mark_revoked
from db.billing.grants import grant_trial
from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.pricing import set_vip
from db.billing.purchases import finalize_purchase
from db.billing.renewal_schedule import MAX_FAILURES, RenewalClaim, claim_renewals, fail_renewal
from db.billing.renewals import RenewalOutcome, RenewalResult, renew, set_auto_renew
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.claims import Claimer, enlist_claimer
from db.work.notices import payload_problems
from tests.db.database import Database

OWNER = Claimer("main/auto_renewal", 1)
PRICE = 14900


async def top_up(database: Database, amount: int, charge_id: str = "topup-1") -> None:
    async def pay(tx: Tx) -> None:
        order = await open_topup(tx, 1001, Money(amount), idempotency_key=charge_id)
        await finalize_purchase(tx, FinalizePurchase("test", charge_id, order.quote.amount, order.id))

    await database.run(pay)


async def subscriber(database: Database, *, funds: int = 0) -> int:
    """A customer with a month of basic, automatic renewal, and money on the balance; returns the subscription."""
    await database.add_customer()
    bought = await database.buy()
    if funds:
        await top_up(database, funds)
    assert await database.run(set_auto_renew, 1001, True, actor="test")
    assert bought.subscription_id is not None
    return bought.subscription_id


async def claim(database: Database, owner: Claimer = OWNER, limit: int = 100) -> list[RenewalClaim]:
    return list(await database.run(claim_renewals, owner, limit, 60.0))


async def try_all(database: Database) -> list[RenewalResult]:
    return [(await database.run(renew, found)).result for found in await claim(database)]


async def state(database: Database) -> Any:
    return await database.fetchval("SELECT state FROM renewal_schedule")


async def end(database: Database) -> datetime:
    found: datetime = await database.fetchval("SELECT expires_at FROM subscriptions")
    return found


async def balance(database: Database) -> int:
    found: int = await database.fetchval("SELECT sum(balance) FROM accounts WHERE customer_id IS NOT NULL")
    return found


async def told(database: Database, kind: str) -> int:
    return await database.count(f"outbox WHERE kind = '{kind}'")


async def test_nothing_is_due_before_the_window_of_six_hours(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=29, hours=17.9)
    assert await claim(database) == []
    await database.move_clock(days=29, hours=18.1)
    assert len(await claim(database)) == 1


async def test_debit_extension_and_the_renewals_row_come_together_and_move_the_end(
    database: Database,
) -> None:
    await subscriber(database, funds=PRICE + 100_00)
    before = await end(database)
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    outcome = await database.run(renew, found)
    assert (outcome.result, outcome.price) == (RenewalResult.RENEWED, Money(PRICE))
    assert await end(database) == outcome.expires_at == before + timedelta(days=30)
    assert await balance(database) == 100_00
    assert await database.fetchval("SELECT period_start FROM renewals") == before
    assert await told(database, "renewal_succeeded") == 1
    assert await database.fetchval("SELECT source FROM subscriptions") == "auto_renewal"
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "pending"
    assert await database.count("referral_rewards") == 0


async def test_a_period_is_charged_once_however_often_it_is_tried(database: Database) -> None:
    await subscriber(database, funds=3 * PRICE)
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    assert (await database.run(renew, found)).result is RenewalResult.RENEWED
    assert (await database.run(renew, found)).result is RenewalResult.DROPPED
    assert await try_all(database) == []
    assert (await balance(database), await database.count("renewals")) == (2 * PRICE, 1)


async def test_the_next_period_is_renewed_in_its_own_window(database: Database) -> None:
    await subscriber(database, funds=3 * PRICE)
    await database.move_clock(days=29, hours=19)
    assert await try_all(database) == [RenewalResult.RENEWED]
    await database.move_clock(days=59, hours=19)
    assert await try_all(database) == [RenewalResult.RENEWED]
    assert (await balance(database), await database.count("renewals")) == (PRICE, 2)


async def test_the_price_is_todays_with_the_standing_discount_and_no_promo(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.run(set_vip, 1001, True, actor="test")
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    assert (await database.run(renew, found)).price == Money(PRICE).percent(70)


async def test_a_plan_that_is_not_sold_any_more_is_renewed_at_what_was_paid_last(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    async with database.connect() as connection:
        await connection.execute("UPDATE tariffs SET is_sold = false WHERE code = 'basic'")
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    assert (await database.run(renew, found)).price == Money(PRICE)


# -- not enough money --------------------------------------------------------------------------------------------------


async def test_lack_of_money_is_told_once_a_period_and_retried_until_the_end(database: Database) -> None:
    await subscriber(database, funds=100_00)
    expires_at = await end(database)
    results: list[RenewalResult] = []
    hours = 18.0
    while await state(database) in ("due", "lacks_funds"):
        await database.move_clock(days=29, hours=hours)
        results += await try_all(database)
        hours += 0.25
        assert hours < 26
    assert len(results) > 4
    assert {*results[:-1]} == {RenewalResult.LACKS_FUNDS}
    assert results[-1] is RenewalResult.MISSED
    assert 24 <= hours - 0.25 <= 24.5, "the last try is at the end"
    assert await told(database, "renewal_lacks_funds") == 1
    assert (await end(database), await balance(database)) == (expires_at, 100_00)
    assert await database.count("renewals") == 0


async def mark_sent(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute("UPDATE outbox SET state = 'sent', settled_at = atlas_now() WHERE state = 'pending'")


async def test_who_was_told_that_money_is_lacking_is_not_told_that_the_period_was_missed(
    database: Database,
) -> None:
    await subscriber(database, funds=100_00)
    await database.move_clock(days=29, hours=19)
    assert await try_all(database) == [RenewalResult.LACKS_FUNDS]
    await mark_sent(database)
    await database.move_clock(days=30, hours=1)
    assert await try_all(database) == [RenewalResult.MISSED]
    assert (await told(database, "renewal_lacks_funds"), await told(database, "renewal_missed")) == (1, 0)


@pytest.mark.parametrize(("hours", "why"), [(2, "lacks_funds"), (30, "late")])
async def test_down_for_the_whole_window_the_customer_is_told_once_of_the_missed_period(
    database: Database, hours: int, why: str
) -> None:
    await subscriber(database)
    await database.move_clock(days=30, hours=hours)
    assert await try_all(database) == [RenewalResult.MISSED]
    assert await try_all(database) == []
    assert await told(database, "renewal_missed") == 1
    payload = json.loads(await database.fetchval("SELECT payload FROM outbox WHERE kind = 'renewal_missed'"))
    assert payload_problems("renewal_missed", payload) == []
    assert (payload["why"], payload["amount"]) == (why, PRICE)
    assert await told(database, "renewal_lacks_funds") == 0


async def test_what_lacking_money_nobody_delivered_in_time_is_told_as_a_missed_period(database: Database) -> None:
    await subscriber(database)
    await database.move_clock(days=29, hours=19)
    assert await try_all(database) == [RenewalResult.LACKS_FUNDS]
    await database.move_clock(days=30, hours=1)
    assert await try_all(database) == [RenewalResult.MISSED]
    assert await told(database, "renewal_missed") == 1


async def test_topped_up_an_hour_later_it_is_due_at_once_and_the_worker_is_woken(database: Database) -> None:
    await subscriber(database)
    await database.move_clock(days=29, hours=19)
    assert await try_all(database) == [RenewalResult.LACKS_FUNDS]
    heard: list[str] = []
    async with database.connect() as listener:
        await listener.listen("atlas_wake", lambda *told: heard.append(told[-1]))
        await database.move_clock(days=29, hours=20)
        await top_up(database, PRICE)
        await listener.fetchval("SELECT 1")
    assert "auto_renewal" in heard
    assert await try_all(database) == [RenewalResult.RENEWED]


async def test_a_credit_wakes_nobody_when_no_renewal_lacks_money(database: Database) -> None:
    await subscriber(database)
    heard: list[str] = []
    async with database.connect() as listener:
        await listener.listen("atlas_wake", lambda *told: heard.append(told[-1]))
        await top_up(database, PRICE)
        await listener.fetchval("SELECT 1")
    assert "auto_renewal" not in heard


# -- downtime ----------------------------------------------------------------------------------------------------------


async def test_a_window_that_was_slept_through_is_made_up_for_after_the_end(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=30, hours=5)
    await database.run(expire_page)
    assert await database.fetchval("SELECT state FROM subscriptions") == "expired"
    assert await try_all(database) == [RenewalResult.RENEWED]
    assert await database.fetchval("SELECT state FROM subscriptions") == "active"
    # The customer had no access meanwhile, and does not pay for it.
    assert await database.fetchval("SELECT expires_at - atlas_now() > interval '29 days 23 hours' FROM subscriptions")
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "pending"


async def test_after_a_day_the_customer_decides_and_nothing_is_debited(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=31, hours=1)
    assert await try_all(database) == [RenewalResult.MISSED]
    assert (await balance(database), await state(database)) == (PRICE, "missed")


# -- at the same time --------------------------------------------------------------------------------------------------


async def test_renewed_while_being_expired_it_stays_active(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=30, hours=0.01)
    [found] = await claim(database)
    async with database.connect() as renewing:
        await renewing.execute("BEGIN")
        assert (await renew(renewing, found)).result is RenewalResult.RENEWED
        assert (await database.run(expire_page)).subscription_ids == ()  # the row is being worked on: left alone
        await renewing.execute("COMMIT")
    assert (await database.run(expire_page)).subscription_ids == ()
    assert await database.fetchval("SELECT state FROM subscriptions") == "active"


async def test_expired_while_being_renewed_it_is_active_again_and_its_removal_dropped(database: Database) -> None:
    subscription = await subscriber(database, funds=PRICE)
    await database.move_clock(days=30, hours=0.01)
    [found] = await claim(database)
    outcomes: list[RenewalOutcome] = []
    async with database.connect() as expiring:
        await expiring.execute("BEGIN")
        assert (await expire_page(expiring)).subscription_ids == (subscription,)

        async def go_on() -> None:
            outcomes.append(await database.run(renew, found))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            async with database.connect() as looking:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                with trio.fail_after(10):
                    while not await looking.fetchval(waiting):
                        await trio.lowlevel.checkpoint()
            await expiring.execute("COMMIT")
    assert [outcome.result for outcome in outcomes] == [RenewalResult.RENEWED]
    assert await database.fetchval("SELECT state FROM subscriptions") == "active"
    assert await database.fetchval("SELECT wanted FROM vpn_keys") == "present"


async def test_a_purchase_in_between_drops_the_renewal_and_nobody_pays_twice(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    await database.buy(charge_id="charge-2")
    assert (await database.run(renew, found)).result is RenewalResult.DROPPED
    assert await try_all(database) == []
    assert (await balance(database), await state(database)) == (PRICE, "due")


async def test_switched_off_or_revoked_in_between_it_is_dropped(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    await database.run(set_auto_renew, 1001, False, actor="test")
    assert (await database.run(renew, found)).result is RenewalResult.DROPPED
    await database.run(set_auto_renew, 1001, True, actor="test")
    [found] = await claim(database)
    await database.run(mark_revoked, 1001, actor="test")
    assert (await database.run(renew, found)).result is RenewalResult.DROPPED
    assert (await balance(database), await state(database)) == (PRICE, "off")


async def test_of_two_supervisors_that_claim_at_once_each_gets_its_own(database: Database) -> None:
    for number in range(1, 9):
        await database.add_customer(number)
        await database.buy(number, charge_id=f"charge-{number}")
        await database.run(set_auto_renew, number, True, actor="test")
    await database.move_clock(days=29, hours=19)
    found: list[int] = []

    async def work(name: str) -> None:
        owner = await database.run(enlist_claimer, f"{name}/auto_renewal")
        while claims := await claim(database, owner, limit=2):
            found.extend(each.subscription_id for each in claims)

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(work, name)
    assert sorted(found) == sorted({*found})
    assert len(found) == 8


async def test_whoever_lost_the_claim_writes_nothing(database: Database) -> None:
    await subscriber(database, funds=3 * PRICE)
    await database.move_clock(days=29, hours=19)
    [first] = await claim(database)
    assert await claim(database, Claimer("other/auto_renewal", 1)) == []
    [second] = await claim(database, Claimer(OWNER.name, 2))  # the next incarnation of the same worker need not wait
    assert (await database.run(renew, first)).result is RenewalResult.DROPPED
    assert await database.run(fail_renewal, first, "late") is None
    assert (await database.run(renew, second)).result is RenewalResult.RENEWED
    assert await database.count("renewals") == 1


async def test_two_who_renew_the_same_period_at_once_debit_it_once(database: Database) -> None:
    await subscriber(database, funds=3 * PRICE)
    await database.move_clock(days=29, hours=19)
    [found] = await claim(database)
    results: list[RenewalResult] = []

    async def work() -> None:
        results.append((await database.run(renew, found)).result)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert sorted(results) == [*[RenewalResult.DROPPED] * 3, RenewalResult.RENEWED]
    assert await balance(database) == 2 * PRICE


# -- errors of ours ----------------------------------------------------------------------------------------------------


async def test_an_error_is_tried_again_later_and_becomes_a_case_at_the_fifth(database: Database) -> None:
    await subscriber(database, funds=PRICE)
    await database.move_clock(days=29, hours=18)
    for number in range(1, MAX_FAILURES + 1):
        await database.move_clock(days=29, hours=18 + number)
        [found] = await claim(database)
        assert await database.run(fail_renewal, found, "boom") == number
        assert await claim(database) == [], "not due again at once"
    assert await state(database) == "failed"
    assert await database.count("cases WHERE kind = 'renewal_failed'") == 1


# -- the switch --------------------------------------------------------------------------------------------------------


async def test_the_switch_says_whether_it_changed_anything_and_is_written_down(database: Database) -> None:
    await subscriber(database)
    assert not await database.run(set_auto_renew, 1001, True, actor="test")
    assert await database.run(set_auto_renew, 1001, False, actor="test")
    assert await database.count("audit WHERE action = 'set_auto_renew'") == 2


async def test_who_never_bought_a_plan_has_none_to_renew(database: Database) -> None:
    await database.add_customer()
    with pytest.raises(BusinessError, match="never had a subscription"):
        await database.run(set_auto_renew, 1001, True, actor="test")
    await database.run(grant_trial, 1001, actor="front_end:test")
    with pytest.raises(BusinessError, match="never bought a plan"):
        await database.run(set_auto_renew, 1001, True, actor="test")


async def test_switched_on_within_the_window_it_is_due_at_once(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await top_up(database, PRICE)
    await database.move_clock(days=29, hours=20)
    await database.run(set_auto_renew, 1001, True, actor="test")
    assert await try_all(database) == [RenewalResult.RENEWED]
