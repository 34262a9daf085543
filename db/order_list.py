"""Orders as an operator looks for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.orders import Order, order_from
from db.tx import Tx

OrderState = Literal["pending", "paid", "cancelled", "expired"]


@attrs.frozen
class ListedOrder:
    """An order with the names of what it refers to."""

    order: Order
    telegram_id: int
    promo_code: str | None
    discount_percent: int
    paid_from: str | None
    """``provider`` or ``balance`` once it is paid."""
    created_at: datetime


async def list_orders(
    tx: Tx, state: OrderState | None = None, telegram_id: int | None = None, before: int | None = None, limit: int = 50
) -> Sequence[ListedOrder]:
    """Orders in this state (``None``: in any) of this customer (``None``: of all) below ``before``, the newest first."""
    rows = await tx.fetch(
        """
        SELECT o.*, c.telegram_id, p.code AS promo_code FROM orders o
        JOIN customers c ON c.id = o.customer_id LEFT JOIN promo_codes p ON p.id = o.promo_code_id
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
            row["discount_percent"],
            row["paid_from"],
            row["created_at"],
        )
        for row in rows
    ]
