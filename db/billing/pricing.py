"""What a plan costs a customer at this moment, the list price less the one discount that applies; and what an asset is worth.

The price list is data, in `tariffs` and `prices`. Discounts never add up: the best one applies. A promo code that would
not lower the price is neither held nor used, and whoever entered it is told.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

import attrs

from db.billing.promos import UsablePromo, usable_promo
from db.customers import Customer, find_customer, lock_customer
from db.errors import BusinessError, UnknownPeriod, UnknownTariff
from db.money import DIGITS, UNVALUED, Money
from db.tx import Row, Tx
from db.work.audit import record_audit

SMALLEST_PURCHASE = Money(6400, "RUB")
"""No discount takes the price of a purchase below this."""

VIP_PERCENT = 30

DiscountSource = Literal["promo", "vip", "personal"]


@attrs.frozen
class Plan:
    """One line of the price list: a tariff for a number of days, at a price."""

    tariff: str
    days: int
    price: Money


@attrs.frozen
class Discount:
    """The one discount that applies: discounts never add up."""

    source: DiscountSource
    percent: int

    def off(self, price: Money) -> Money:
        """The price after the discount of `floor(price × percent / 100)`, not below `SMALLEST_PURCHASE`."""
        lowest = min(price, SMALLEST_PURCHASE)
        return max(price - price.percent(self.percent), lowest)


def best_discount(price: Money, promo_percent: int | None, *, is_vip: bool, personal_percent: int) -> Discount | None:
    """The discount that makes `price` the lowest; of equal ones the one that lasts: VIP, then personal, then the code.

    A code is entered to pay less and can be used once: where a standing discount gives as much, it is kept.
    """
    offered: list[Discount] = []
    if is_vip:
        offered.append(Discount("vip", VIP_PERCENT))
    if personal_percent:
        offered.append(Discount("personal", personal_percent))
    if promo_percent and Discount("promo", promo_percent).off(price) < price:
        offered.append(Discount("promo", promo_percent))
    return min(offered, key=lambda discount: discount.off(price).amount, default=None)


async def price_list(tx: Tx) -> tuple[Plan, ...]:
    """All plans that are sold, by tariff (lowest rank first) and period."""
    rows = await tx.fetch(
        """
        SELECT p.tariff, p.days, p.amount, p.currency FROM prices p JOIN tariffs t ON t.code = p.tariff
        WHERE t.is_sold ORDER BY t.rank, p.days
        """
    )
    return tuple(Plan(row["tariff"], row["days"], Money(row["amount"], row["currency"])) for row in rows)


async def set_price(tx: Tx, tariff: str, days: int, price: Money, *, actor: str) -> Money | None:
    """Set what a tariff costs for so many days; returns the price before, None if the period was not sold.

    Open orders keep their price, and who has access keeps it. The price that stands already changes nothing. Raises
    `UnknownTariff`, and `BusinessError` for a price that is not in roubles or below `SMALLEST_PURCHASE`.
    """
    if price.currency != "RUB" or price < SMALLEST_PURCHASE:
        raise BusinessError(
            f"a price is in roubles and at least {SMALLEST_PURCHASE}, below which no discount goes, not {price}; nothing was "
            "changed"
        )
    # The row of the tariff: two operators who set one price do it one after the other, and each is told what stood before.
    if await tx.fetchval("SELECT 1 FROM tariffs WHERE code = $1 AND is_sold FOR NO KEY UPDATE", tariff) is None:
        raise UnknownTariff(tariff, {plan.tariff for plan in await price_list(tx)})
    before = await tx.fetchval("SELECT amount FROM prices WHERE tariff = $1 AND days = $2", tariff, days)
    if before == price.amount:
        return price
    await tx.execute(
        """
        INSERT INTO prices (tariff, days, amount) VALUES ($1, $2, $3)
        ON CONFLICT (tariff, days) DO UPDATE SET amount = excluded.amount, currency = excluded.currency
        """,
        tariff,
        days,
        price.amount,
    )
    details = {"days": days, "amount": price.amount, "before": before}
    await record_audit(tx, actor, "price_set", subject=tariff, details=details)
    return None if before is None else Money(before)


async def find_plan(tx: Tx, tariff: str, days: int) -> Plan:
    """One line of the list; raises `UnknownTariff` or `UnknownPeriod`, which name what there is."""
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


@attrs.frozen
class Priced:
    """A price and where it comes from; a top-up has no plan and no discount."""

    list_price: Money
    price: Money
    tariff: str | None = None
    days: int | None = None
    discount: Discount | None = None
    promo_code_id: int | None = None
    """The promo code that the price has."""
    unused_promo_id: int | None = None
    """The promo code that was entered and does not lower the price, because `discount` is as good or better."""

    @property
    def entered_promo_id(self) -> int | None:
        """The promo code that was entered, used or not."""
        return self.promo_code_id or self.unused_promo_id


async def quote_plan(tx: Tx, telegram_id: int, tariff: str, days: int, *, promo_code: str | None = None) -> Priced:
    """What the plan would cost this customer now; nothing is reserved, so an order may find the code used up.

    Raises `UnknownCustomer`, `UnknownTariff`, `UnknownPeriod`, and `BusinessError` for a code that cannot be used.
    """
    customer = await find_customer(tx, telegram_id)
    promo = None if promo_code is None else await usable_promo(tx, promo_code, customer.id)
    return await price_plan(tx, customer, tariff, days, promo)


async def price_plan(tx: Tx, customer: Customer, tariff: str, days: int, promo: UsablePromo | None) -> Priced:
    """Price a plan with the customer's best discount; raises `UnknownTariff` and `UnknownPeriod`."""
    plan = await find_plan(tx, tariff, days)
    discount = best_discount(
        plan.price,
        None if promo is None else promo.percent,
        is_vip=customer.is_vip,
        personal_percent=customer.personal_discount_percent,
    )
    price = plan.price if discount is None else discount.off(plan.price)
    if promo is None:
        return Priced(plan.price, price, tariff, days, discount)
    if discount is not None and discount.source == "promo":
        return Priced(plan.price, price, tariff, days, discount, promo_code_id=promo.id)
    return Priced(plan.price, price, tariff, days, discount, unused_promo_id=promo.id)


async def set_vip(tx: Tx, telegram_id: int, is_vip: bool, *, actor: str) -> bool:
    """Make the customer a VIP, or not; open orders keep their price. `False`: it was so before.

    Raises `UnknownCustomer`.
    """
    customer = await lock_customer(tx, telegram_id)
    if customer.is_vip == is_vip:
        return False
    await tx.execute("UPDATE customers SET is_vip = $2 WHERE id = $1", customer.id, is_vip)
    await record_audit(tx, actor, "set_vip", customer_id=customer.id, details={"is_vip": is_vip})
    return True


async def set_personal_discount(tx: Tx, telegram_id: int, percent: int, *, actor: str) -> bool:
    """Set the customer's personal discount; 0 ends it, open orders keep their price. `False`: it was so before.

    Raises `UnknownCustomer`, and `BusinessError` when it is not a whole percentage from 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise BusinessError(f"a discount is from 0 to 100 percent, not {percent}")
    customer = await lock_customer(tx, telegram_id)
    if customer.personal_discount_percent == percent:
        return False
    await tx.execute("UPDATE customers SET personal_discount_percent = $2 WHERE id = $1", customer.id, percent)
    await record_audit(
        tx,
        actor,
        "set_personal_discount",
        customer_id=customer.id,
        details={"percent": percent, "before": customer.personal_discount_percent},
    )
    return True


RATED = tuple(asset for asset in DIGITS if asset not in ("RUB", UNVALUED))
"""The assets that can have a rate."""


@attrs.frozen
class Rate:
    """One row of `rates`."""

    asset: str
    value: Decimal
    """Roubles for one whole unit."""
    source: str
    """The provider that said so, or who set it."""
    taken_at: datetime
    age: float
    """Seconds since then, on the database's clock."""


async def note_rates(tx: Tx, rates: Mapping[str, Decimal], source: str) -> int:
    """Keep the rates of the assets that we know, replacing those of before; returns how many. Others are left out."""
    known = {asset: rate for asset, rate in rates.items() if asset in RATED and _can_be(rate)}
    await tx.execute(
        """
        INSERT INTO rates (asset, rate, source) SELECT asset, rate, $3 FROM unnest($1::text[], $2::numeric[]) AS r (asset, rate)
        ON CONFLICT (asset) DO UPDATE SET rate = excluded.rate, source = excluded.source, taken_at = excluded.taken_at
        """,
        list(known),
        list(known.values()),
        source,
    )
    return len(known)


async def set_rate(tx: Tx, asset: str, rate: Decimal, *, actor: str) -> Rate:
    """Set one rate by hand; it ages as any other. Raises BusinessError for an asset without rates or a rate that is none."""
    if asset not in RATED:
        raise BusinessError(f"{asset!r} has no rate; assets with one are {', '.join(RATED)}")
    if not _can_be(rate):
        raise BusinessError(
            f"a rate is the roubles for one whole {asset}, above 0 and below a trillion, not {rate:g}; nothing was changed"
        )
    await note_rates(tx, {asset: rate}, actor)
    await record_audit(tx, actor, "set_rate", subject=f"rate:{asset}", details={"rate": str(rate)})
    found = await find_rate(tx, asset)
    assert found is not None, "it was just written"
    return found


async def find_rate(tx: Tx, asset: str) -> Rate | None:
    """The newest rate of the asset, however old; `None` if there never was one."""
    row = await tx.fetchrow(f"{_RATES} WHERE asset = $1", asset)
    return None if row is None else _rate(row)


async def list_rates(tx: Tx) -> Sequence[Rate]:
    """All rates, by asset."""
    return [_rate(row) for row in await tx.fetch(f"{_RATES} ORDER BY asset")]


_RATES = "SELECT asset, rate, source, taken_at, extract(epoch FROM atlas_now() - taken_at)::float8 AS age FROM rates"


def _can_be(rate: Decimal) -> bool:
    """What the column holds, and no other number."""
    return rate.is_finite() and Decimal("1e-12") <= rate < Decimal("1e12")


def _rate(row: Row) -> Rate:
    return Rate(row["asset"], row["rate"], row["source"], row["taken_at"], row["age"])
