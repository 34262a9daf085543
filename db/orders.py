"""Orders: what a customer intends to buy, at a price and a quote that never change afterwards."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import attrs

from db.customers import find_customer
from db.errors import BusinessError, OrderConflict, UnknownOrder
from db.money import Money
from db.plans import Discount, best_discount, find_plan
from db.tx import Row, Tx

ORDER_LIFETIME = timedelta(minutes=30)
SMALLEST_TOPUP = Money(100_00, "RUB")
LARGEST_TOPUP = Money(100_000_00, "RUB")


@attrs.frozen
class Quote:
    """What the provider will charge, exactly, and at which rate it was computed."""

    amount: Money
    """In the smallest unit of the provider's asset."""
    rate: Decimal
    """Roubles for one whole unit of the asset."""


@attrs.frozen
class Order:
    """One row of ``orders``."""

    id: int
    customer_id: int
    kind: Literal["subscription", "topup"]
    tariff: str | None
    days: int | None
    list_price: Money
    price: Money
    """What the ledger will book."""
    quote: Quote
    promo_code_id: int | None
    state: Literal["pending", "paid", "cancelled", "expired"]
    expires_at: datetime
    """Payments after this are credited to the balance instead."""


async def open_order(
    tx: Tx,
    telegram_id: int,
    tariff: str,
    days: int,
    *,
    idempotency_key: str,
    promo_code: str | None = None,
    quote: Quote | None = None,
) -> Order:
    """Open an order for a plan at today's price with the best discount, payable for ``ORDER_LIFETIME``.

    ``quote`` is what the provider will charge when that is not roubles. The same key again returns the first order,
    whatever its state; older orders stay payable. Raises ``UnknownCustomer``, ``UnknownTariff``, ``UnknownPeriod``,
    ``BusinessError`` for a promo code that cannot be used, and ``OrderConflict`` when the key stands for another plan.
    """
    customer = await find_customer(tx, telegram_id)
    plan = await find_plan(tx, tariff, days)
    promo = None if promo_code is None else await _usable_promo(tx, promo_code, customer.id)
    discount = best_discount(
        None if promo is None else promo[1],
        is_vip=customer.is_vip,
        personal_percent=customer.personal_discount_percent,
    )
    price = plan.price if discount is None else discount.off(plan.price)
    order = await _insert(
        tx,
        customer.id,
        "subscription",
        idempotency_key,
        list_price=plan.price,
        price=price,
        quote=quote or Quote(price, Decimal(1)),
        tariff=tariff,
        days=days,
        discount=discount,
        promo_code_id=None if promo is None else promo[0],
    )
    if (order.kind, order.tariff, order.days) != ("subscription", tariff, days):
        raise OrderConflict(
            f"key {idempotency_key!r} already stands for order {order.id} ({order.kind} {order.tariff} {order.days} d), "
            f"not for {tariff} {days} d; use a new key"
        )
    return order


async def open_topup(
    tx: Tx, telegram_id: int, amount: Money, *, idempotency_key: str, quote: Quote | None = None
) -> Order:
    """Open an order that credits ``amount`` to the balance, from 100 to 100 000 RUB; otherwise like ``open_order``."""
    if not SMALLEST_TOPUP <= amount <= LARGEST_TOPUP:
        raise BusinessError(f"a top-up is from {SMALLEST_TOPUP} to {LARGEST_TOPUP}, not {amount}")
    customer = await find_customer(tx, telegram_id)
    order = await _insert(
        tx,
        customer.id,
        "topup",
        idempotency_key,
        list_price=amount,
        price=amount,
        quote=quote or Quote(amount, Decimal(1)),
    )
    if (order.kind, order.price) != ("topup", amount):
        raise OrderConflict(f"key {idempotency_key!r} already stands for order {order.id} ({order.kind} {order.price})")
    return order


async def find_order(tx: Tx, order_id: int) -> Order:
    """The order with this number; raises ``UnknownOrder``."""
    row = await tx.fetchrow("SELECT * FROM orders WHERE id = $1", order_id)
    if row is None:
        raise UnknownOrder(order_id)
    return order_from(row)


async def expire_orders(tx: Tx, limit: int = 100) -> int:
    """Mark up to ``limit`` unpaid orders that have outlived their time; returns how many. A payment still finds them."""
    tag = await tx.execute(
        """
        WITH due AS MATERIALIZED (
            SELECT id FROM orders WHERE state = 'pending' AND expires_at <= atlas_now()
            ORDER BY expires_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE orders SET state = 'expired' FROM due WHERE orders.id = due.id
        """,
        limit,
    )
    return int(tag.split()[-1])


async def use_promo(tx: Tx, order: Order) -> None:
    """Count the order's promo code as used. A code that ran out since the order was opened is honoured."""
    await tx.execute(
        """
        WITH used AS (
            INSERT INTO promo_uses (order_id, promo_code_id, customer_id) VALUES ($1, $2, $3)
        )
        UPDATE promo_codes SET uses = uses + 1 WHERE id = $2
        """,
        order.id,
        order.promo_code_id,
        order.customer_id,
    )


def order_from(row: Row) -> Order:
    """Read an ``Order`` from a row with all columns of ``orders``."""
    return Order(
        id=row["id"],
        customer_id=row["customer_id"],
        kind=row["kind"],
        tariff=row["tariff"],
        days=row["days"],
        list_price=Money(row["list_amount"], row["price_currency"]),
        price=Money(row["price_amount"], row["price_currency"]),
        quote=Quote(Money(row["quoted_amount"], row["quoted_asset"]), row["quoted_rate"]),
        promo_code_id=row["promo_code_id"],
        state=row["state"],
        expires_at=row["expires_at"],
    )


async def _insert(
    tx: Tx,
    customer_id: int,
    kind: Literal["subscription", "topup"],
    idempotency_key: str,
    *,
    list_price: Money,
    price: Money,
    quote: Quote,
    tariff: str | None = None,
    days: int | None = None,
    discount: Discount | None = None,
    promo_code_id: int | None = None,
) -> Order:
    if quote.amount.currency == price.currency and quote.amount != price:
        raise BusinessError(f"the provider was asked for {quote.amount}, the price is {price}")
    row = await tx.fetchrow(
        """
        INSERT INTO orders (customer_id, kind, tariff, days, list_amount, discount_source, discount_percent,
                            promo_code_id, price_amount, price_currency, quoted_amount, quoted_asset, quoted_rate,
                            idempotency_key, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, atlas_now() + $15::interval)
        ON CONFLICT (customer_id, idempotency_key) DO NOTHING
        RETURNING *
        """,
        customer_id,
        kind,
        tariff,
        days,
        list_price.amount,
        None if discount is None else discount.source,
        0 if discount is None else discount.percent,
        promo_code_id,
        price.amount,
        price.currency,
        quote.amount.amount,
        quote.amount.currency,
        quote.rate,
        idempotency_key,
        ORDER_LIFETIME,
    )
    if row is None:
        row = await tx.fetchrow(
            "SELECT * FROM orders WHERE customer_id = $1 AND idempotency_key = $2", customer_id, idempotency_key
        )
    assert row is not None, "the conflicting order is committed and orders are never deleted"
    return order_from(row)


async def _usable_promo(tx: Tx, code: str, customer_id: int) -> tuple[int, int]:
    row = await tx.fetchrow(
        """
        SELECT id, percent, valid_until < atlas_now() AS is_over, uses >= max_uses AS is_used_up,
               EXISTS (SELECT FROM promo_uses u WHERE u.promo_code_id = p.id AND u.customer_id = $2) AS was_used
        FROM promo_codes p WHERE code = lower($1)
        """,
        code,
        customer_id,
    )
    if row is None:
        raise BusinessError(f"there is no promo code {code!r}")
    for column, why in (
        ("is_over", "is over"),
        ("is_used_up", "has been used up"),
        ("was_used", "was used by this customer before"),
    ):
        if row[column]:
            raise BusinessError(f"promo code {code!r} {why}")
    return row["id"], row["percent"]
