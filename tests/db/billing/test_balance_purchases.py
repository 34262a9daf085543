"""From the balance: debit and entitlement together, once per key, never below zero."""

import pytest
import trio

from db.billing.adjustments import adjust_balance
from db.billing.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.billing.ledger import Purses, balance, purses
from db.billing.pricing import set_vip
from db.errors import InsufficientFunds, OrderConflict, PriceChanged
from db.money import Money
from tests.db.database import Database


async def funded(database: Database, kopecks: int) -> int:
    customer = await database.add_customer()
    await database.run(adjust_balance, 1001, Money(kopecks), reason="x", actor="test", idempotency_key="fund")
    return customer.id


async def test_a_double_click_is_one_purchase(database: Database) -> None:
    customer_id = await funded(database, 50_000)
    outcomes: list[BalancePurchase] = []

    async def click() -> None:
        outcomes.append(await database.buy_from_balance(1001, key="click"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(click)
    assert sorted(outcome.replayed for outcome in outcomes) == [False, True, True, True]
    assert len({outcome.expires_at for outcome in outcomes}) == 1
    assert await database.run(balance, customer_id) == Money(35_100)


async def test_without_enough_money_nothing_happens(database: Database) -> None:
    customer_id = await funded(database, 14_899)
    with pytest.raises(InsufficientFunds):
        await database.buy_from_balance(1001, key="click")
    assert await database.run(balance, customer_id) == Money(14_899)
    for table in ("orders", "subscriptions", "vpn_keys"):
        assert (table, await database.count(table)) == (table, 0)


async def buy(database: Database, seen: int, key: str = "click") -> BalancePurchase:
    return await database.run(finalize_balance_purchase, 1001, "basic", 30, seen_price=Money(seen), idempotency_key=key)


async def test_a_price_that_the_customer_did_not_see_is_a_conflict_and_never_a_debit(database: Database) -> None:
    customer_id = await funded(database, 50_000)
    for seen in (10_430, 14_901):
        with pytest.raises(PriceChanged, match=rf"costs 149\.00 RUB, not {seen // 100}\.{seen % 100:02} RUB"):
            await buy(database, seen)
    assert await database.run(balance, customer_id) == Money(50_000)
    assert await database.count("orders") == 0
    assert (await buy(database, 14_900)).price == Money(14_900)


async def test_a_repeated_request_is_answered_as_before_although_the_price_changed(
    database: Database,
) -> None:
    customer_id = await funded(database, 50_000)
    first = await buy(database, 14_900)
    await database.run(set_vip, 1001, True, actor="test")
    again = await buy(database, 14_900)
    assert (again.order_id, again.replayed) == (first.order_id, True)
    with pytest.raises(PriceChanged, match=r"order 1, for which this key stands, costs 149\.00 RUB, not 104\.30 RUB"):
        await buy(database, 10_430)
    with pytest.raises(PriceChanged):
        await buy(database, 14_900, "another key")
    with pytest.raises(OrderConflict):
        await database.run(
            finalize_balance_purchase, 1001, "plus", 30, seen_price=Money(14_900), idempotency_key="click"
        )
    assert await database.run(balance, customer_id) == Money(35_100)


async def test_a_purchase_takes_what_was_paid_in_then_credits_then_what_was_earned(database: Database) -> None:
    customer_id = await funded(database, 5_000)
    await database.topup(1001, 10_000)
    await database.earn(1001, 20_000)
    await database.buy_from_balance(key="first")
    assert await database.run(purses, customer_id) == Purses(Money(0), Money(100), Money(20_000), Money(0))
    await database.buy_from_balance(key="second")
    assert await database.run(purses, customer_id) == Purses(Money(0), Money(0), Money(5_200), Money(0))
    written = await database.fetchval(
        "SELECT array_agg((details->>'from_paid', details->>'from_credit', details->>'from_earned')::text ORDER BY id) "
        "FROM audit WHERE action = 'finalize_balance_purchase'"
    )
    assert written == ["(10000,4900,)", "(,100,14800)"]
