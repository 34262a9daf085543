"""The price list: data in the tables ``tariffs`` and ``prices``, read when it is needed."""

from typing import Literal

import attrs

from db.errors import UnknownPeriod, UnknownTariff
from db.money import Money
from db.tx import Tx

SMALLEST_PURCHASE = Money(6400, "RUB")
"""No discount takes the price of a purchase below this."""

VIP_PERCENT = 30

DiscountSource = Literal["promo", "vip", "personal"]


@attrs.frozen
class Plan:
    """One line of the price list."""

    tariff: str
    days: int
    price: Money


@attrs.frozen
class Discount:
    """The one discount that applies: discounts never add up."""

    source: DiscountSource
    percent: int

    def off(self, price: Money) -> Money:
        """The price after the discount of ``floor(price × percent / 100)``, not below ``SMALLEST_PURCHASE``."""
        lowest = min(price, SMALLEST_PURCHASE)
        return max(price - price.percent(self.percent), lowest)


def best_discount(promo_percent: int | None, *, is_vip: bool, personal_percent: int) -> Discount | None:
    """A promo code goes before the VIP discount, which goes before a personal one, whatever their sizes."""
    if promo_percent:
        return Discount("promo", promo_percent)
    if is_vip:
        return Discount("vip", VIP_PERCENT)
    if personal_percent:
        return Discount("personal", personal_percent)
    return None


async def price_list(tx: Tx) -> tuple[Plan, ...]:
    """All plans that are sold, by tariff (lowest rank first) and period."""
    rows = await tx.fetch(
        """
        SELECT p.tariff, p.days, p.amount, p.currency FROM prices p JOIN tariffs t ON t.code = p.tariff
        WHERE t.is_sold ORDER BY t.rank, p.days
        """
    )
    return tuple(Plan(row["tariff"], row["days"], Money(row["amount"], row["currency"])) for row in rows)


async def find_plan(tx: Tx, tariff: str, days: int) -> Plan:
    """One line of the list; raises ``UnknownTariff`` or ``UnknownPeriod``, which name what there is."""
    row = await tx.fetchrow(
        """
        SELECT p.amount, p.currency FROM prices p JOIN tariffs t ON t.code = p.tariff
        WHERE t.is_sold AND p.tariff = $1 AND p.days = $2
        """,
        tariff,
        days,
    )
    if row is not None:
        return Plan(tariff, days, Money(row["amount"], row["currency"]))
    plans = await price_list(tx)
    periods = [plan.days for plan in plans if plan.tariff == tariff]
    if periods:
        raise UnknownPeriod(tariff, days, periods)
    raise UnknownTariff(tariff, {plan.tariff for plan in plans})
