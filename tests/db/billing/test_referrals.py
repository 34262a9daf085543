"""A share of each rouble that a friend brings in from outside, once."""

import pytest

from db.billing.grants import grant_trial
from db.billing.ledger import balance
from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.referrals import paying_friends, referral_percent
from db.money import Money
from tests.db.database import Database


@pytest.mark.parametrize(("friends", "percent"), [(0, 10), (1, 10), (24, 10), (25, 25), (49, 25), (50, 45), (1000, 45)])
def test_the_share_grows_with_the_number_of_paying_friends(friends: int, percent: int) -> None:
    assert referral_percent(friends) == percent


async def test_a_friend_counts_once_however_often_they_pay(database: Database) -> None:
    referrer = await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.buy(charge_id="c1")
    await database.buy(charge_id="c2")
    assert await database.run(paying_friends, referrer.id) == 1
    assert await database.run(balance, referrer.id) == Money(2980)


async def test_the_buyer_is_counted_for_the_tier_of_this_purchase(database: Database) -> None:
    referrer = await database.add_customer(2002)
    for number in range(24):
        await database.add_customer(3000 + number, referrer=2002)
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET first_paid_at = now() WHERE referrer_id IS NOT NULL")
    await database.add_customer(1001, referrer=2002)
    await database.buy()
    assert await database.run(balance, referrer.id) == Money(3725)


async def test_money_is_rewarded_when_it_buys_access_and_not_when_it_comes_in(database: Database) -> None:
    referrer = await database.add_customer(2002)
    customer = await database.add_customer(1001, referrer=2002)
    topup = await database.run(open_topup, 1001, Money(20000), idempotency_key="top")
    await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(20000), topup.id))
    assert await database.run(balance, referrer.id) == Money(0)
    assert await database.run(paying_friends, referrer.id) == 0
    await database.buy_from_balance(1001, key="buy")
    assert await database.run(balance, referrer.id) == Money(1490)
    assert await database.run(paying_friends, referrer.id) == 1
    assert await database.run(balance, customer.id) == Money(5100)


async def test_a_trial_does_not_make_a_friend_a_paying_one(database: Database) -> None:
    referrer = await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert await database.run(paying_friends, referrer.id) == 0
    assert await database.run(balance, referrer.id) == Money(0)


async def test_nobody_refers_themselves_and_a_referrer_is_final(database: Database) -> None:
    alone = await database.add_customer(1001, referrer=1001)
    assert alone.referrer_id is None
    await database.add_customer(2002)
    friend = await database.add_customer(3003, referrer=1001)
    assert (await database.add_customer(3003, referrer=2002)).referrer_id == friend.referrer_id == alone.id
    async with database.connect() as connection:
        with pytest.raises(Exception, match="final once set"):
            await connection.execute("UPDATE customers SET referrer_id = NULL WHERE referrer_id IS NOT NULL")
