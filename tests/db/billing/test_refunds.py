"""A refund takes the money from where the charge ended, never more than was captured, and what it bought along."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import trio

from db.access.subscriptions import get_subscription, mark_revoked
from db.billing.cases import credit_case, find_case
from db.billing.grants import grant_access
from db.billing.ledger import balance, purses
from db.billing.orders import Quote, open_order, open_topup
from db.billing.payment_facts import FinalizePurchase, PurchaseOutcome
from db.billing.purchases import finalize_purchase
from db.billing.referrals import paying_friends, referral_standing
from db.billing.refunds import Refund, refund_charge
from db.billing.renewals import RenewalResult, renew_now, set_auto_renew
from db.billing.withdrawals import request_withdrawal
from db.errors import BusinessError, InsufficientFunds
from db.money import Money
from tests.db.database import SEAL, Database


async def refund(
    database: Database, charge_id: str = "charge-1", amount: Money | None = None, key: str = "r"
) -> Refund:
    return await database.run(refund_charge, "test", charge_id, amount=amount, actor="operator", idempotency_key=key)


async def topup(database: Database, kopecks: int, charge_id: str = "top") -> PurchaseOutcome:
    order = await database.run(open_topup, 1001, Money(kopecks), idempotency_key=charge_id)
    return await database.run(finalize_purchase, FinalizePurchase("test", charge_id, Money(kopecks), order.id))


async def world(database: Database) -> int:
    total: int = await database.fetchval(
        "SELECT coalesce(sum(p.amount), 0) FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = 'world'"
    )
    return total


async def test_a_refunded_purchase_ends_its_access_by_an_event_and_queues_the_keys_removal(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    done = await refund(database)
    assert (done.amount, done.replayed) == (Money(14900), False)
    assert done.taken_back is not None
    assert timedelta(days=29, hours=23) < done.taken_back <= timedelta(days=30)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.state, view.is_running, view.auto_renew) == ("revoked", False, False)
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removing"
    assert await database.fetchval("SELECT count(*) FROM entitlement_events WHERE kind = 'refund'") == 1
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'refund_paid'") == 1
    assert await world(database) == 0


async def test_another_period_that_was_paid_for_is_kept(database: Database) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    second = await database.buy(charge_id="c2")
    await database.fetchval("UPDATE vpn_keys SET activation_status = 'active', activated_at = atlas_now() RETURNING id")
    done = await refund(database, "c1")
    assert done.clawed_back == Money(0), "nobody invited the customer"
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.state, view.is_running) == ("active", True)
    assert done.taken_back is not None
    assert timedelta(days=29, hours=23) < done.taken_back <= timedelta(days=30), "what is left of its own interval"
    assert second.expires_at is not None
    assert view.expires_at == second.expires_at - done.taken_back
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "pending", (
        "the nodes are told the new end"
    )


async def access_bought_after(database: Database, how: str) -> datetime:
    """Access that nothing but this paid or gave; when it ends."""
    if how == "payment":
        await database.buy(charge_id="another")
    elif how == "balance":
        await database.topup(1001, 14900, charge_id="for-balance")
        await database.buy_from_balance(1001)
    elif how == "renewal":
        await database.topup(1001, 14900, charge_id="for-renewal")
        await database.run(set_auto_renew, 1001, True, actor="o")
        day = await database.fetchval("SELECT (expires_at AT TIME ZONE 'UTC')::date FROM subscriptions")
        assert (await database.run(renew_now, 1001, day, actor="o")).outcome.result is RenewalResult.RENEWED
    else:
        period = timedelta(days=30)
        await database.run(grant_access, 1001, "basic", period, idempotency_key="gift", actor="o")
    end: datetime = await database.fetchval("SELECT expires_at FROM subscriptions")
    return end


@pytest.mark.parametrize("how", ["payment", "balance", "gift"])
async def test_what_was_revoked_takes_nothing_of_what_was_bought_after_it(database: Database, how: str) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    await database.run(mark_revoked, 1001, actor="o")
    end = await access_bought_after(database, how)
    assert (await refund(database, "c1")).taken_back is None
    assert await database.fetchval("SELECT expires_at FROM subscriptions") == end
    assert await database.fetchval("SELECT state FROM subscriptions") == "active"


@pytest.mark.parametrize("how", ["payment", "balance", "renewal", "gift"])
async def test_what_is_used_up_takes_nothing_of_what_was_bought_after_it(database: Database, how: str) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    if how == "renewal":
        await database.move_clock(days=29)
    end = await access_bought_after(database, how)
    await database.move_clock(days=31)
    assert (await refund(database, "c1")).taken_back is None, "the chargeback of a used-up period"
    assert await database.fetchval("SELECT expires_at FROM subscriptions") == end
    assert await database.fetchval("SELECT state FROM subscriptions") == "active"


@pytest.mark.parametrize("how", ["payment", "balance", "gift"])
async def test_what_is_left_of_its_own_period_goes_and_the_rest_moves_up(database: Database, how: str) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    await database.move_clock(days=20)
    end = await access_bought_after(database, how)
    taken = (await refund(database, "c1")).taken_back
    assert taken is not None
    assert timedelta(days=9, hours=23) < taken <= timedelta(days=10)
    assert await database.fetchval("SELECT expires_at FROM subscriptions") == end - taken


async def test_an_upgrade_that_is_refunded_gives_the_tariff_before_it_back(database: Database) -> None:
    await database.add_customer()
    first = await database.buy(tariff="basic", charge_id="c1")
    await database.buy(tariff="plus", charge_id="c2")
    await refund(database, "c2")
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.tariff, view.is_running) == ("basic", True)
    assert first.expires_at is not None
    assert abs(view.expires_at - first.expires_at) < timedelta(minutes=1)
    assert await database.fetchval("SELECT tariff FROM subscriptions") == "basic"


async def test_a_part_that_goes_back_leaves_the_access_and_the_last_part_ends_it(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    part = await refund(database, amount=Money(10000), key="part")
    assert part.taken_back is None
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.is_running
    rest = await refund(database, key="rest")
    assert (rest.amount, rest.taken_back is not None) == (Money(4900), True)


async def test_access_is_kept_when_it_is_asked_to(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    done = await database.run(refund_charge, "test", "charge-1", actor="operator", idempotency_key="r", revoke=False)
    assert done.taken_back is None
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.is_running


async def test_the_same_key_is_the_same_refund_and_another_amount_is_refused(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    first = await refund(database, amount=Money(5000))
    again = await refund(database, amount=Money(5000))
    assert (again.replayed, again.id, again.amount) == (True, first.id, first.amount)
    with pytest.raises(BusinessError, match=r"already stands for the refund of 50\.00 RUB"):
        await refund(database, amount=Money(5001))
    assert await database.count("refunds") == 1


async def test_more_than_was_captured_never_goes_back_whoever_asks_at_once(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    refused = []

    async def ask(number: int) -> None:
        try:
            await refund(database, amount=Money(5000), key=f"r{number}")
        except BusinessError as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
    assert len(refused) == 3
    assert "49.00 RUB can be refunded, not 50.00 RUB" in refused[0]
    assert await database.fetchval("SELECT sum(amount) FROM refunds") == 10000


async def test_a_credited_charge_goes_back_from_the_balance(database: Database) -> None:
    customer = await database.add_customer()
    await topup(database, 20000)
    await refund(database, "top", Money(15000))
    assert await database.run(balance, customer.id) == Money(5000)
    assert await world(database) == -5000


async def test_a_credit_that_is_spent_is_refused_or_its_rest_written_off(database: Database) -> None:
    customer = await database.add_customer()
    await topup(database, 20000)
    await database.buy_from_balance(1001, key="b")
    with pytest.raises(BusinessError, match=r"paid money, which holds 51\.00 RUB, less than 200\.00 RUB"):
        await refund(database, "top")
    done = await database.run(
        refund_charge, "test", "top", actor="provider", idempotency_key="chargeback", write_off=True
    )
    assert done.written_off == Money(14900)
    assert await database.run(balance, customer.id) == Money(0)
    assert await world(database) == 0


async def test_money_in_a_case_goes_back_from_suspense_and_closes_the_case(database: Database) -> None:
    parked = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(5000), None, 404))
    assert parked.case_id is not None
    await refund(database, "c1", Money(2000), "part")
    case = await database.run(find_case, parked.case_id)
    assert (case.state, case.suspended) == ("open", Money(3000))
    await refund(database, "c1", key="rest")
    case = await database.run(find_case, parked.case_id)
    assert (case.state, case.resolution, case.suspended) == ("closed", "refunded", Money(0))
    assert await world(database) == 0


async def test_a_charge_of_unknown_value_is_not_in_the_ledger_and_the_case_is_named(database: Database) -> None:
    parked = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(5, "TON"), None, 404))
    with pytest.raises(BusinessError, match=rf"close case {parked.case_id}"):
        await refund(database, "c1")


async def test_a_part_in_the_captured_asset_is_valued_as_the_charge_was(database: Database) -> None:
    await database.add_customer()
    quote = Quote(Money(2_000_000, "USDT"), Decimal("74.5"))
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="o", quote=quote)
    await database.run(finalize_purchase, FinalizePurchase("test", "c1", quote.amount, order.id))
    done = await refund(database, "c1", Money(1_000_000, "USDT"))
    assert done.amount == Money(7450)
    with pytest.raises(BusinessError, match="neither"):
        await refund(database, "c1", Money(1, "TON"), "other")


async def test_the_reward_goes_back_in_proportion_and_what_is_gone_is_a_debt(
    database: Database,
) -> None:
    referrer = await database.add_customer(2002)
    await database.earn(2002, 100_000)
    part = await refund(database, "friend-2002-0", Money(250_000), "part")
    assert part.clawed_back == Money(25_000)
    await database.run(
        request_withdrawal,
        2002,
        Money(70_000),
        destination="card 4111111111111111",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )
    rest = await refund(database, "friend-2002-0", key="rest")
    assert rest.clawed_back == Money(75_000)
    assert (await refund(database, "friend-2002-0", Money(750_000), "rest")).clawed_back == Money(75_000)
    held = await database.run(purses, referrer.id)
    assert (held.balance, held.earned, held.debt) == (Money(0), Money(0), Money(-70_000))
    assert (await database.run(referral_standing, referrer.id)).earned == Money(0)
    await database.earn(2002, 60_000)
    held = await database.run(purses, referrer.id)
    assert (held.earned, held.debt) == (Money(0), Money(-10_000))
    await database.earn(2002, 30_000)
    held = await database.run(purses, referrer.id)
    assert (held.earned, held.debt) == (Money(20_000), Money(0))


async def test_a_debt_is_never_taken_from_what_the_referrer_paid_in_or_was_given(database: Database) -> None:
    referrer = await database.add_customer(1001)
    await topup(database, 50_000)
    await database.earn(1001, 60_000)
    await database.run(
        request_withdrawal,
        1001,
        Money(60_000),
        destination="card",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )
    await refund(database, "friend-1001-1")
    held = await database.run(purses, referrer.id)
    assert (held.paid, held.earned, held.debt) == (Money(50_000), Money(0), Money(-60_000))


async def test_a_lost_topup_takes_the_rewards_of_what_it_bought_newest_first(
    database: Database,
) -> None:
    referrer = await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await topup(database, 44_700)
    for key in ("one", "two", "three"):
        await database.buy_from_balance(1001, key=key)
    assert (await database.run(purses, referrer.id)).earned == Money(3 * 1490)

    async def lose(amount: int, key: str) -> Money:
        done = await database.run(
            refund_charge, "test", "top", amount=Money(amount), actor="o", idempotency_key=key, write_off=True
        )
        return done.clawed_back

    assert await lose(20_000, "part") == Money(2_000)
    taken = await database.fetchval("SELECT array_agg(reward_id || ': ' || amount ORDER BY id) FROM reward_takebacks")
    assert taken == ["3: 1490", "2: 510"]
    assert await database.run(paying_friends, referrer.id) == 1
    assert await lose(24_700, "rest") == Money(2_470)
    assert await database.run(paying_friends, referrer.id) == 0
    assert (await database.run(purses, referrer.id)).earned == Money(0)


async def test_who_took_all_money_back_is_no_paying_friend_unless_they_paid_for_more(database: Database) -> None:
    referrer = await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.buy(charge_id="c1")
    await database.buy(charge_id="c2")
    await refund(database, "c1", key="first")
    assert await database.run(paying_friends, referrer.id) == 1
    await refund(database, "c2", key="second")
    assert await database.run(paying_friends, referrer.id) == 0


async def test_an_unknown_charge_is_refused(database: Database) -> None:
    with pytest.raises(BusinessError, match="no test charge 'nothing'"):
        await refund(database, "nothing")


async def test_a_refund_and_a_purchase_from_the_same_balance_never_overdraw_it(database: Database) -> None:
    customer = await database.add_customer()
    await topup(database, 20000)
    refused: list[BusinessError] = []

    async def spend() -> None:
        try:
            await database.buy_from_balance(1001, key="b")
        except InsufficientFunds as error:
            refused.append(error)

    async def give_back() -> None:
        try:
            await refund(database, "top")
        except BusinessError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spend)
        nursery.start_soon(give_back)
    assert len(refused) == 1
    assert await database.run(balance, customer.id) in (Money(0), Money(5100))


async def test_a_case_that_was_settled_before_stays_as_it_was_closed(database: Database) -> None:
    await database.add_customer()
    stranger = FinalizePurchase("test", "stranger", Money(5_000), None, 999_999)
    parked = await database.run(finalize_purchase, stranger)
    assert parked.case_id is not None
    await database.run(credit_case, parked.case_id, 1001, actor="anna")
    await refund(database, "stranger")
    case = "SELECT closed_by || ' ' || resolution FROM cases WHERE id = $1"
    assert (await database.fetchval(case, parked.case_id)).startswith("anna ")
    assert await database.fetchval(case, parked.case_id) != "anna refunded"


async def test_a_repeated_chargeback_names_its_own_case(database: Database) -> None:
    await database.add_customer()
    for charge in ("one", "two"):
        await database.buy(charge_id=charge)

    async def charge_back(charge: str) -> Refund:
        return await database.run(
            refund_charge, "test", charge, actor="operator", idempotency_key=charge, chargeback=True
        )

    first = [await charge_back(charge) for charge in ("one", "two")]
    again = [await charge_back(charge) for charge in ("one", "two")]
    assert first[0].case_id != first[1].case_id is not None
    assert [each.case_id for each in again] == [each.case_id for each in first]
