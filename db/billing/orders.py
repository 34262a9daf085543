"""Orders: what a customer intends to buy, at a price and a quote that never change afterwards.

Opened by the shop, found by number and by key, and listed for an operator.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import attrs

from db.billing.pricing import Priced, price_plan
from db.billing.promos import check_promo, lock_promo
from db.customers import Customer, find_customer, lock_customer
from db.errors import BusinessError, OrderConflict, UnknownOrder
from db.money import Money
from db.tx import Row, Tx, rows_of
from db.work.audit import record_audit
from db.work.limits import Allowance, Limit, hold_to

ORDER_LIFETIME = timedelta(minutes=30)
SMALLEST_TOPUP = Money(100_00, "RUB")
LARGEST_TOPUP = Money(100_000_00, "RUB")
_EMAIL = re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,185}\.[A-Za-z0-9-]{2,63}")
_PHONE = re.compile(r"\d{7,15}")


@attrs.frozen
class UsedRate:
    """Where the rate of a quote comes from, and what it had to keep to when it was used."""

    source: str
    """The provider that said so, who set it, or the setting."""
    observed_at: datetime | None = None
    """When; with `max_age`, and only with it. `None`: a setting, which has no age."""
    max_age: timedelta | None = None
    lowest: Decimal | None = None
    highest: Decimal | None = None


_UNNAMED = UsedRate("caller")
"""Of a quote whose maker does not say where the rate comes from."""


@attrs.frozen
class Quote:
    """What the provider will charge, exactly, and at which rate it was computed."""

    amount: Money
    """In the smallest unit of the provider's asset."""
    rate: Decimal
    """Roubles for one whole unit of the asset."""
    used: UsedRate = attrs.field(default=_UNNAMED, eq=False)
    """Kept with an order in another asset than roubles, so that it can be audited; not read again with the order."""


@attrs.frozen
class Order:
    """What a customer wants to buy, at which price: one row of `orders`."""

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
    """The promo code that the price has."""
    state: Literal["pending", "paid", "cancelled", "expired"]
    expires_at: datetime
    """Payments after this are credited to the balance instead."""
    unused_promo_id: int | None = None
    """The promo code that was entered and does not lower the price: another discount is as good or better."""

    @property
    def entered_promo_id(self) -> int | None:
        """The promo code that was entered, used or not."""
        return self.promo_code_id or self.unused_promo_id


async def open_order(
    tx: Tx,
    telegram_id: int,
    tariff: str,
    days: int,
    *,
    idempotency_key: str,
    promo_code: str | None = None,
    quote: Quote | None = None,
    receipt_contact: str = "",
    allowance: Allowance | None = None,
) -> Order:
    """Open an order for a plan at today's price with the best discount, payable for `ORDER_LIFETIME`.

    `quote` is what the provider will charge when that is not roubles; `receipt_contact` is an e-mail address or phone number
    for the fiscal receipt, refused as `normalised_contact` does. The same key again returns the first order,
    whatever its state; older orders stay payable. `allowance` holds a new one to the limit of open orders; without it, as for
    a payment that was captured, there is none. The order holds its promo code until it is paid, expires or is
    cancelled. Raises `UnknownCustomer`, `UnknownTariff`, `UnknownPeriod`, `LimitReached`, `BusinessError` for a promo
    code that cannot be used, and `OrderConflict` when the key stands for another plan or promo code.
    """
    customer = await _ordering_customer(tx, telegram_id, idempotency_key, allowance)
    priced = await price_order(tx, customer, tariff, days, idempotency_key=idempotency_key, promo_code=promo_code)
    if isinstance(priced, Order):
        return priced
    order = await _insert(
        tx, customer.id, "subscription", idempotency_key, priced, quote=quote, receipt_contact=receipt_contact
    )
    refuse_other_plan(order, tariff, days, priced.entered_promo_id, idempotency_key)
    return order


async def price_order(
    tx: Tx, customer: Customer, tariff: str, days: int, *, idempotency_key: str, promo_code: str | None
) -> Priced | Order:
    """Price a plan for an order, reserving the promo code, or return the order of an earlier request.

    Raises as `open_order` does.
    """
    promo = None
    if promo_code is not None:
        terms = await lock_promo(tx, promo_code)
        # A repeated request holds the code itself, so it is looked for before the code is asked for another use.
        first = await find_order_by_key(tx, customer.id, idempotency_key)
        if first is not None:
            refuse_other_plan(first, tariff, days, terms.id, idempotency_key)
            return first
        promo = await check_promo(tx, terms, customer.id)
    return await price_plan(tx, customer, tariff, days, promo)


async def insert_paid(tx: Tx, customer_id: int, idempotency_key: str, priced: Priced) -> Order | None:
    """An order that is paid from the balance in this very transaction; `None`: the key was used before."""
    row = await _insert_row(tx, customer_id, "subscription", idempotency_key, priced, None, paid_from="balance")
    return None if row is None else order_from(row)


async def open_topup(
    tx: Tx,
    telegram_id: int,
    amount: Money,
    *,
    idempotency_key: str,
    quote: Quote | None = None,
    receipt_contact: str = "",
    allowance: Allowance | None = None,
) -> Order:
    """Open an order that credits `amount` to the balance, from 100 to 100 000 RUB; otherwise like `open_order`."""
    if not SMALLEST_TOPUP <= amount <= LARGEST_TOPUP:
        raise BusinessError(f"a top-up is from {SMALLEST_TOPUP} to {LARGEST_TOPUP}, not {amount}")
    customer = await _ordering_customer(tx, telegram_id, idempotency_key, allowance)
    priced = Priced(amount, amount)
    order = await _insert(
        tx, customer.id, "topup", idempotency_key, priced, quote=quote, receipt_contact=receipt_contact
    )
    if (order.kind, order.price) != ("topup", amount):
        raise OrderConflict(f"key {idempotency_key!r} already stands for order {order.id} ({order.kind} {order.price})")
    return order


async def _ordering_customer(tx: Tx, telegram_id: int, idempotency_key: str, allowance: Allowance | None) -> Customer:
    """The customer, whose row is locked if there are limits to hold to; a key that was used before opens no other order."""
    if allowance is None:
        return await find_customer(tx, telegram_id)
    customer = await lock_customer(tx, telegram_id)
    if await find_order_by_key(tx, customer.id, idempotency_key) is None:
        rows = await tx.fetch(
            """
            SELECT created_at, expires_at FROM orders
            WHERE customer_id = $1 AND state = 'pending' AND expires_at > atlas_now() ORDER BY expires_at
            """,
            customer.id,
        )
        limit = Limit(
            "open orders",
            "limits.open_orders",
            allowance.limits.open_orders,
            ", or when one of them is paid or cancelled",
        )
        await hold_to(
            tx,
            allowance,
            limit,
            customer,
            sorted(row["created_at"] for row in rows),
            [row["expires_at"] for row in rows],
        )
    return customer


async def find_order(tx: Tx, order_id: int) -> Order:
    """Return the order with this number. Raises `UnknownOrder`."""
    row = await tx.fetchrow("SELECT * FROM orders WHERE id = $1", order_id)
    if row is None:
        raise UnknownOrder(order_id)
    return order_from(row)


async def find_order_by_key(tx: Tx, customer_id: int, idempotency_key: str) -> Order | None:
    """The order that this key stands for, if it was used."""
    row = await tx.fetchrow(
        "SELECT * FROM orders WHERE customer_id = $1 AND idempotency_key = $2", customer_id, idempotency_key
    )
    return None if row is None else order_from(row)


async def cancel_order(tx: Tx, order_id: int, *, actor: str) -> bool:
    """Give up an order that is not paid, so that its promo code is free again; a payment that still comes is credited.

    `False`: it was cancelled or had expired before. Raises `UnknownOrder`, and `BusinessError` when it is paid.
    """
    customer_id = await tx.fetchval(
        "UPDATE orders SET state = 'cancelled' WHERE id = $1 AND state = 'pending' RETURNING customer_id", order_id
    )
    if customer_id is None:
        if (await find_order(tx, order_id)).state == "paid":
            raise BusinessError(f"order {order_id} is paid and stays so; a refund gives the money back")
        return False
    await record_audit(tx, actor, "cancel_order", customer_id=customer_id, subject=f"order:{order_id}")
    return True


async def expire_orders(tx: Tx, limit: int = 100) -> int:
    """Mark up to `limit` unpaid orders that have outlived their time; returns how many. A payment still finds them."""
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
    return rows_of(tag)


def order_from(row: Row) -> Order:
    """Read an `Order` from a row with all columns of `orders`."""
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
        unused_promo_id=row["unused_promo_id"],
    )


def refuse_other_plan(order: Order, tariff: str, days: int, promo_code_id: int | None, idempotency_key: str) -> None:
    """Raises `OrderConflict` when the key stands for something else than this plan with this promo code."""
    asked = idempotency_key.removeprefix("balance:")  # as the caller wrote it
    if (order.kind, order.tariff, order.days) != ("subscription", tariff, days):
        raise OrderConflict(
            f"key {asked!r} already stands for order {order.id} ({order.kind} {order.tariff} {order.days} d), "
            f"not for {tariff} {days} d; use a new key"
        )
    if order.entered_promo_id != promo_code_id:
        kept = "no promo code" if order.entered_promo_id is None else f"promo code number {order.entered_promo_id}"
        raise OrderConflict(
            f"key {asked!r} already stands for order {order.id} of the same plan with {kept}, for {order.price}; "
            "use a new key for another promo code"
        )


async def _insert(
    tx: Tx,
    customer_id: int,
    kind: Literal["subscription", "topup"],
    idempotency_key: str,
    priced: Priced,
    *,
    quote: Quote | None,
    receipt_contact: str,
) -> Order:
    contact = normalised_contact(receipt_contact) if receipt_contact else None
    row = await _insert_row(tx, customer_id, kind, idempotency_key, priced, quote, receipt_contact=contact)
    if row is not None:
        return order_from(row)
    order = await find_order_by_key(tx, customer_id, idempotency_key)
    assert order is not None, "the conflicting order is committed and orders are never deleted"
    return order


async def _insert_row(
    tx: Tx,
    customer_id: int,
    kind: Literal["subscription", "topup"],
    idempotency_key: str,
    priced: Priced,
    quote: Quote | None,
    *,
    paid_from: Literal["balance"] | None = None,
    receipt_contact: str | None = None,
) -> Row | None:
    charged = quote or Quote(priced.price, Decimal(1))
    if charged.amount.currency == priced.price.currency and charged.amount != priced.price:
        raise BusinessError(f"the provider was asked for {charged.amount}, the price is {priced.price}")
    row = await tx.fetchrow(
        """
        INSERT INTO orders (customer_id, kind, tariff, days, list_amount, discount_source, discount_percent,
                            promo_code_id, price_amount, price_currency, quoted_amount, quoted_asset, quoted_rate,
                            idempotency_key, expires_at, paid_from, unused_promo_id, receipt_contact, state, paid_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now.at + $15::interval, $16::text, $17, $18,
               CASE WHEN $16::text IS NULL THEN 'pending' ELSE 'paid' END, CASE WHEN $16::text IS NOT NULL THEN now.at END
        FROM (SELECT atlas_now() AS at) AS now
        ON CONFLICT (customer_id, idempotency_key) DO NOTHING
        RETURNING *
        """,
        customer_id,
        kind,
        priced.tariff,
        priced.days,
        priced.list_price.amount,
        None if priced.discount is None else priced.discount.source,
        0 if priced.discount is None else priced.discount.percent,
        priced.promo_code_id,
        priced.price.amount,
        priced.price.currency,
        charged.amount.amount,
        charged.amount.currency,
        charged.rate,
        idempotency_key,
        ORDER_LIFETIME,
        paid_from,
        priced.unused_promo_id,
        receipt_contact,
    )
    if row is not None and charged.amount.currency != priced.price.currency:
        await _keep_rate(tx, row["id"], charged, priced.price.currency)
    return row


async def _keep_rate(tx: Tx, order_id: int, quote: Quote, currency: str) -> None:
    await tx.execute(
        """
        INSERT INTO rates_kept (order_id, asset, currency, rate, source, observed_at, max_age, lowest, highest)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        order_id,
        quote.amount.currency,
        currency,
        quote.rate,
        quote.used.source,
        quote.used.observed_at,
        quote.used.max_age,
        quote.used.lowest,
        quote.used.highest,
    )


OrderState = Literal["pending", "paid", "cancelled", "expired"]


@attrs.frozen
class ListedOrder:
    """An order with the names of what it refers to."""

    order: Order
    telegram_id: int
    promo_code: str | None
    unused_promo: str | None
    """The promo code that was entered and not used, because another discount is as good or better."""
    discount_percent: int
    paid_from: str | None
    """`provider` or `balance` once it is paid."""
    created_at: datetime


async def list_orders(
    tx: Tx, state: OrderState | None = None, telegram_id: int | None = None, before: int | None = None, limit: int = 50
) -> Sequence[ListedOrder]:
    """Orders in this state (`None`: in any) of this customer (`None`: of all) below `before`, the newest first."""
    rows = await tx.fetch(
        """
        SELECT o.*, c.telegram_id, p.code AS promo_code, u.code AS unused_promo FROM orders o
        JOIN customers c ON c.id = o.customer_id LEFT JOIN promo_codes p ON p.id = o.promo_code_id
        LEFT JOIN promo_codes u ON u.id = o.unused_promo_id
        WHERE ($1::text IS NULL OR o.state = $1) AND ($2::bigint IS NULL OR c.telegram_id = $2)
          AND ($3::bigint IS NULL OR o.id < $3)
        ORDER BY o.id DESC LIMIT $4
        """,
        state,
        telegram_id,
        before,
        limit,
    )
    return [
        ListedOrder(
            order_from(row),
            row["telegram_id"],
            row["promo_code"],
            row["unused_promo"],
            row["discount_percent"],
            row["paid_from"],
            row["created_at"],
        )
        for row in rows
    ]


def normalised_contact(text: str) -> str:
    """An address as it is, a phone number as its digits alone (ITU-T E.164).

    Raises BusinessError for anything else, without repeating it: it may be somebody's.
    """
    contact = text.strip()
    if _EMAIL.fullmatch(contact) and len(contact) <= 254:
        return contact
    digits = re.sub(r"[ ()+-]", "", contact)
    if contact.isascii() and _PHONE.fullmatch(digits):
        return digits
    raise BusinessError(
        "a receipt goes to an e-mail address, such as name@example.org, or to a phone number with its country, such as "
        "+7 900 000-00-00; what was given is neither, and nothing was changed"
    )
