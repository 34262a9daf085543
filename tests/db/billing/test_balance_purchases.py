"""From the balance: debit and entitlement together, once per key, never below zero."""

import pytest
import trio

from db.billing.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.billing.ledger import Journal, balance, move, post
from db.errors import InsufficientFunds
from db.money import Money
from tests.db.database import Database


async def funded(database: Database, kopecks: int) -> int:
    customer = await database.add_customer()
    await database.run(post, Journal("admin_adjust", "fund", move("adjustment", customer.id, Money(kopecks))))
    return customer.id


async def test_a_double_click_is_one_purchase(database: Database) -> None:
    customer_id = await funded(database, 50_000)
    outcomes: list[BalancePurchase] = []

    async def click() -> None:
        outcomes.append(await database.run(finalize_balance_purchase, 1001, "basic", 30, idempotency_key="click"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(click)
    assert sorted(outcome.replayed for outcome in outcomes) == [False, True, True, True]
    assert len({outcome.expires_at for outcome in outcomes}) == 1
    assert await database.run(balance, customer_id) == Money(35_100)


async def test_without_enough_money_nothing_happens(database: Database) -> None:
    customer_id = await funded(database, 14_899)
    with pytest.raises(InsufficientFunds):
        await database.run(finalize_balance_purchase, 1001, "basic", 30, idempotency_key="click")
    assert await database.run(balance, customer_id) == Money(14_899)
    for table in ("orders", "subscriptions", "vpn_keys"):
        assert (table, await database.count(table)) == (table, 0)
