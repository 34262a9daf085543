"""A promo code is held by a payable order, used up by its payment, and honoured once it was quoted."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from db.billing.adjustments import adjust_balance
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.orders import Order, cancel_order, list_orders, open_order
from db.billing.payment_facts import FinalizePurchase, PaymentResult, PurchaseOutcome
from db.billing.pricing import quote_plan, set_personal_discount, set_vip
from db.billing.promos import add_promo, find_promo, list_promos, stop_promo
from db.billing.purchases import finalize_purchase
from db.errors import BusinessError, OrderConflict
from db.money import Money
from db.tx import Tx
from tests.db.database import Database


async def promo(database: Database, max_uses: int | None = 1) -> None:
    await database.run(add_promo, "Spring", 20, max_uses=max_uses, actor="operator")


async def order(database: Database, telegram_id: int = 1001, key: str = "o") -> Order:
    return await database.run(open_order, telegram_id, "basic", 30, idempotency_key=key, promo_code=" SPRING ")


async def pay(database: Database, paid: Order, charge_id: str = "c1") -> PurchaseOutcome:
    return await database.run(finalize_purchase, FinalizePurchase("test", charge_id, paid.price, paid.id))


async def test_adding_a_code_again_changes_nothing_and_other_terms_are_refused(database: Database) -> None:
    await promo(database)
    await promo(database)
    with pytest.raises(BusinessError, match="exists with other terms: 20 %, 1 uses"):
        await promo(database, 2)
    for code, percent, uses in (("a b", 5, 1), ("", 5, 1), ("x", 0, 1), ("x", 101, 1), ("x", 5, 0)):
        with pytest.raises(BusinessError):
            await database.run(add_promo, code, percent, max_uses=uses, actor="operator")
    assert [found.code for found in await database.run(list_promos)] == ["spring"]


async def test_an_open_order_holds_the_last_use_and_lets_go_when_it_expires(database: Database) -> None:
    await database.add_customer()
    await database.add_customer(2002)
    await promo(database)
    assert (await order(database)).price == Money(11920)
    assert (await database.run(find_promo, "spring")).reserved == 1
    with pytest.raises(BusinessError, match="used up; 1 of its uses wait for payment"):
        await order(database, 2002)
    with pytest.raises(BusinessError, match="used up"):
        await database.run(quote_plan, 2002, "basic", 30, promo_code="spring")
    await database.move_clock(minutes=30)
    assert (await order(database, 2002)).price == Money(11920)


async def test_of_many_who_want_the_last_use_at_once_one_gets_it(database: Database) -> None:
    await promo(database)
    got = []
    for number in range(6):
        await database.add_customer(100 + number)

    async def ask(telegram_id: int) -> None:
        try:
            got.append(await order(database, telegram_id))
        except BusinessError as error:
            assert "used up" in str(error)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(ask, 100 + number)
    assert len(got) == 1


async def test_a_double_click_is_one_order_and_one_reservation(database: Database) -> None:
    await database.add_customer()
    await promo(database)
    numbers = []

    async def click() -> None:
        numbers.append((await order(database)).id)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(click)
    assert len(set(numbers)) == 1


async def test_a_payment_is_honoured_although_the_code_has_run_out_since(database: Database) -> None:
    await database.add_customer()
    await promo(database)
    held = await order(database)
    async with database.connect() as connection:
        await connection.execute("UPDATE promo_codes SET max_uses = 1, valid_until = atlas_now()")
    assert await database.run(stop_promo, "spring", actor="operator") is False
    assert (await pay(database, held)).result is PaymentResult.ENTITLEMENT
    assert (await database.run(find_promo, "spring")).uses == 1


async def test_a_second_order_of_the_same_customer_waits_for_the_first(database: Database) -> None:
    await database.add_customer()
    await promo(database, 5)
    first = await order(database)
    with pytest.raises(BusinessError, match=rf"held by this customer's order {first.id} until .* pay or cancel"):
        await order(database, key="other")
    assert await database.run(cancel_order, first.id, actor="customer") is True
    assert await database.run(cancel_order, first.id, actor="customer") is False
    second = await order(database, key="other")
    late = await pay(database, first, "late")
    assert (late.result, late.problem) == (PaymentResult.BALANCE_CREDIT, "late")
    await pay(database, second, "c2")
    with pytest.raises(BusinessError, match="was used by this customer before"):
        await order(database, key="third")
    with pytest.raises(BusinessError, match=rf"order {second.id} is paid"):
        await database.run(cancel_order, second.id, actor="customer")
    assert (await database.run(find_promo, "spring")).uses == 1


async def test_an_ended_code_is_refused(database: Database) -> None:
    await database.add_customer()
    await database.run(add_promo, "old", 20, valid_until=datetime(2020, 1, 1, tzinfo=UTC), actor="operator")
    with pytest.raises(BusinessError, match="'old' is over"):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="o", promo_code="old")
    await promo(database)
    assert await database.run(stop_promo, "spring", actor="operator") is True
    with pytest.raises(BusinessError, match="'spring' is over"):
        await order(database)


async def test_a_purchase_from_the_balance_uses_the_code_at_once_and_once(database: Database) -> None:
    await database.add_customer()
    await promo(database)
    await database.run(adjust_balance, 1001, Money(50_000), reason="x", actor="operator", idempotency_key="x")
    bought = [
        await database.run(
            finalize_balance_purchase,
            1001,
            "basic",
            30,
            seen_price=Money(11920),
            idempotency_key="b",
            promo_code="spring",
        )
        for _ in range(2)
    ]
    assert [(one.price, one.replayed) for one in bought] == [(Money(11920), False), (Money(11920), True)]
    assert (await database.run(find_promo, "spring")).uses == 1


async def test_a_key_stands_for_its_promo_code_too(database: Database) -> None:
    await database.add_customer()
    await promo(database, None)
    await database.run(add_promo, "winter", 50, actor="operator")
    await database.run(adjust_balance, 1001, Money(50_000), reason="x", actor="operator", idempotency_key="x")

    async def from_balance(tx: Tx, *plan: Any, **names: Any) -> object:
        price = {None: 14900, "spring": 11920, "winter": 7450}[names["promo_code"]]
        return await finalize_balance_purchase(tx, *plan, seen_price=Money(price), **names)

    ways: Sequence[Callable[..., Awaitable[object]]] = (open_order, from_balance)
    for buy in ways:
        for used, others in (("spring", ("winter", None)), (None, ("winter", "spring"))):
            key = f"{buy.__name__}-{used}"
            if buy is from_balance and used == "spring":
                await database.run(cancel_order, 1, actor="operator")  # which holds the code
            await database.run(buy, 1001, "basic", 30, idempotency_key=key, promo_code=used)
            for other in others:
                with pytest.raises(OrderConflict, match=f"'{key}' already stands for order .* use a new key"):
                    await database.run(buy, 1001, "basic", 30, idempotency_key=key, promo_code=other)
            await database.run(buy, 1001, "basic", 30, idempotency_key=key, promo_code=used)
    assert await database.count("orders") == 4
    assert (await database.run(find_promo, "winter")).uses == 0


async def test_standing_discounts_are_set_by_command_and_the_best_discount_applies(database: Database) -> None:
    await database.add_customer()
    await promo(database)
    assert await database.run(set_personal_discount, 1001, 40, actor="operator") is True
    assert (await database.run(quote_plan, 1001, "basic", 30)).price == Money(8940)
    assert await database.run(set_vip, 1001, True, actor="operator") is True
    assert await database.run(set_vip, 1001, True, actor="operator") is False
    assert (await database.run(quote_plan, 1001, "basic", 30)).price == Money(8940)
    assert (await database.run(quote_plan, 1001, "basic", 30, promo_code="spring")).price == Money(8940)
    assert await database.count("orders") == 0, "a quote reserves nothing"
    with pytest.raises(BusinessError, match="0 to 100"):
        await database.run(set_personal_discount, 1001, 101, actor="operator")
    assert (
        await database.fetchval("SELECT count(*) FROM audit WHERE action IN ('set_vip', 'set_personal_discount')") == 2
    )


@pytest.mark.parametrize("percent", [20, 30])
async def test_a_code_that_lowers_no_price_is_neither_held_nor_used_and_the_order_says_so(
    database: Database, percent: int
) -> None:
    await database.add_customer()
    await database.run(set_vip, 1001, True, actor="operator")
    await database.run(add_promo, "Spring", percent, max_uses=1, actor="operator")
    quoted = await database.run(quote_plan, 1001, "basic", 30, promo_code="spring")
    assert (quoted.price, quoted.promo_code_id, quoted.unused_promo_id) == (Money(10430), None, 1)
    opened = await order(database)
    assert (opened.price, opened.promo_code_id, opened.unused_promo_id) == (Money(10430), None, 1)
    assert (await order(database)).id == opened.id, "the same request is the same order"
    with pytest.raises(OrderConflict, match="promo code number 1"):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="o")
    [listed] = await database.run(list_orders)
    assert (listed.promo_code, listed.unused_promo) == (None, "spring")
    assert (await pay(database, opened)).result is PaymentResult.ENTITLEMENT
    found = await database.run(find_promo, "spring")
    assert (found.uses, found.reserved) == (0, 0)


async def test_a_better_code_is_used_by_a_vip_too(database: Database) -> None:
    await database.add_customer()
    await database.run(set_vip, 1001, True, actor="operator")
    await database.run(add_promo, "half", 50, actor="operator")
    quoted = await database.run(quote_plan, 1001, "basic", 30, promo_code="half")
    assert (quoted.price, quoted.promo_code_id, quoted.unused_promo_id) == (Money(7450), 1, None)
