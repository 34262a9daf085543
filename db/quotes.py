"""What a plan costs a customer at this moment: the list price less the one discount that applies."""

import attrs

from db.customers import Customer, find_customer
from db.money import Money
from db.plans import Discount, best_discount, find_plan
from db.promos import UsablePromo, usable_promo
from db.tx import Tx


@attrs.frozen
class Priced:
    """A price and where it comes from; a top-up has no plan and no discount."""

    list_price: Money
    price: Money
    tariff: str | None = None
    days: int | None = None
    discount: Discount | None = None
    promo_code_id: int | None = None


async def quote_plan(tx: Tx, telegram_id: int, tariff: str, days: int, *, promo_code: str | None = None) -> Priced:
    """What the plan would cost this customer now; nothing is reserved, so an order may find the code used up.

    Raises ``UnknownCustomer``, ``UnknownTariff``, ``UnknownPeriod``, and ``BusinessError`` for a code that cannot be used.
    """
    customer = await find_customer(tx, telegram_id)
    promo = None if promo_code is None else await usable_promo(tx, promo_code, customer.id)
    return await price_plan(tx, customer, tariff, days, promo)


async def price_plan(tx: Tx, customer: Customer, tariff: str, days: int, promo: UsablePromo | None) -> Priced:
    """Price a plan with the customer's best discount; raises ``UnknownTariff`` and ``UnknownPeriod``."""
    plan = await find_plan(tx, tariff, days)
    discount = best_discount(
        None if promo is None else promo.percent,
        is_vip=customer.is_vip,
        personal_percent=customer.personal_discount_percent,
    )
    price = plan.price if discount is None else discount.off(plan.price)
    return Priced(plan.price, price, tariff, days, discount, None if promo is None else promo.id)
