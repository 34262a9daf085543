"""An order fixes price and quote; opening it twice with one key is one order."""

from decimal import Decimal

import pytest

from db.billing.orders import Quote, expire_orders, open_order, open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.errors import BusinessError, OrderConflict
from db.money import Money
from tests.db.database import Database


async def test_the_same_key_is_the_same_order_and_another_plan_is_refused(database: Database) -> None:
    await database.add_customer()
    first = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    assert await database.run(open_order, 1001, "basic", 30, idempotency_key="click") == first
    with pytest.raises(OrderConflict, match="basic 30 d"):
        await database.run(open_order, 1001, "plus", 30, idempotency_key="click")
    with pytest.raises(OrderConflict):
        await database.run(open_topup, 1001, Money(10000), idempotency_key="click")


async def test_a_vip_pays_less_and_the_order_says_why(database: Database) -> None:
    await database.add_customer()
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET is_vip = true")
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    assert (order.list_price, order.price) == (Money(14900), Money(10430))
    assert await database.fetchval("SELECT discount_source FROM orders") == "vip"


async def test_a_promo_code_is_used_up_by_the_payment_and_once_per_customer(database: Database) -> None:
    await database.add_customer()
    async with database.connect() as connection:
        await connection.execute("INSERT INTO promo_codes (code, percent, max_uses) VALUES ('spring', 20, 2)")
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click", promo_code="SPRING")
    assert order.price == Money(11920)
    assert await database.fetchval("SELECT uses FROM promo_codes") == 0
    await database.run(finalize_purchase, FinalizePurchase("test", "c", order.price, order.id))
    assert await database.fetchval("SELECT uses FROM promo_codes") == 1
    with pytest.raises(BusinessError, match="used by this customer before"):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="again", promo_code="spring")
    with pytest.raises(BusinessError, match="no promo code 'autumn'"):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="again", promo_code="autumn")


@pytest.mark.parametrize("amount", [9999, 10_000_001])
async def test_a_topup_outside_its_bounds_is_refused(database: Database, amount: int) -> None:
    await database.add_customer()
    with pytest.raises(BusinessError, match=r"from 100\.00 RUB to 100000\.00 RUB"):
        await database.run(open_topup, 1001, Money(amount), idempotency_key="click")


async def test_a_rouble_quote_that_is_not_the_price_is_refused(database: Database) -> None:
    await database.add_customer()
    with pytest.raises(BusinessError, match=r"asked for 1\.00 RUB, the price is 149\.00 RUB"):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="click", quote=Quote(Money(100), Decimal(1)))


async def test_what_was_quoted_never_changes(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    async with database.connect() as connection:
        for change in ("price_amount = 1, quoted_amount = 1", "quoted_rate = 2", "tariff = 'plus'"):
            with pytest.raises(Exception, match="is refused"):
                await connection.execute(f"UPDATE orders SET {change}")
        with pytest.raises(Exception, match="is refused"):
            await connection.execute("UPDATE orders SET state = 'pending', paid_at = NULL, paid_from = NULL")


async def test_stale_orders_expire_and_paid_ones_do_not(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.run(open_order, 1001, "basic", 30, idempotency_key="left")
    assert await database.run(expire_orders) == 0
    await database.move_clock(minutes=31)
    assert await database.run(expire_orders) == 1
