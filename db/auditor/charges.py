"""What each captured charge had to become, from the charge, its order and the order of their arrival alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import attrs

from db.auditor.books import Books, by, grouped
from db.money import Money, convert
from db.tx import Row

CLOCKS_APART: Final = timedelta(minutes=1)
"""A transaction's time is that of its begin: what another one changed while it waited for a lock may bear a later time."""

End = Literal["purchase", "topup", "payment_credit", "suspense", "unvalued"]


@attrs.frozen
class ChargeEnd:
    """Where a captured charge ends."""

    kind: End
    customer_id: int | None
    value: int
    """In kopecks; 0 if it is not known."""
    order: Row | None


def charge_ends(books: Books) -> dict[int, ChargeEnd]:
    """The end of each charge, by its number."""
    orders = by(books["orders"], "id")
    cancelled = {
        row["subject"].partition(":")[2]: row["at"] for row in books["audit"] if row["action"] == "cancel_order"
    }
    ends: dict[int, ChargeEnd] = {}
    for order_id, charges in grouped(books["money_in"], "order_id").items():
        order = orders.get(order_id)
        is_paid = False
        for charge in sorted(charges, key=lambda row: row["id"]):
            pays = (
                order is not None
                and not is_paid
                and charge["customer_id"] == order["customer_id"]
                and (charge["amount"], charge["asset"]) == (order["quoted_amount"], order["quoted_asset"])
                and charge["received_at"] < order["expires_at"]
                and not _was_closed(order, charge["received_at"], cancelled.get(str(order_id)))
            )
            is_paid = is_paid or pays
            ends[charge["id"]] = _end_of(charge, order, pays=pays)
    return ends


def _was_closed(order: Row, at: datetime, cancelled_at: datetime | None) -> bool:
    if order["state"] == "cancelled":
        return cancelled_at is not None and cancelled_at <= at + CLOCKS_APART
    return bool(order["state"] == "expired" and at + CLOCKS_APART >= order["expires_at"])


def _end_of(charge: Row, order: Row | None, *, pays: bool) -> ChargeEnd:
    value = value_of(charge, order)
    customer = charge["customer_id"]
    if pays:
        assert order is not None
        return ChargeEnd("purchase" if order["kind"] == "subscription" else "topup", customer, value, order)
    if value == 0:
        return ChargeEnd("unvalued", customer, 0, order)
    if customer is None or (order is not None and order["customer_id"] != customer):
        return ChargeEnd("suspense", None, value, order)
    return ChargeEnd("payment_credit", customer, value, order)


def value_of(charge: Row, order: Row | None) -> int:
    """What a charge is worth in kopecks: roubles as they are, another asset as its order quoted it, else nothing is known."""
    if charge["asset"] == "RUB":
        return int(charge["amount"])
    if order is None or order["quoted_asset"] != charge["asset"]:
        return 0
    if order["quoted_amount"] == charge["amount"]:
        return int(order["price_amount"])
    return convert(Money(charge["amount"], charge["asset"]), Decimal(order["quoted_rate"])).amount


def paying_charges(ends: Mapping[int, ChargeEnd]) -> dict[Any, int]:
    """The charge that pays each order."""
    return {
        end.order["id"]: number
        for number, end in ends.items()
        if end.kind in ("purchase", "topup") and end.order is not None
    }
