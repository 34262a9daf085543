"""Buying a plan from the balance: the same effects as a payment, with money that has already come in."""

from datetime import datetime, timedelta

import attrs

from db.access.entitlements import Grant, grant
from db.access.wanted_keys import want_present
from db.billing.ledger import Journal, post, spend
from db.billing.orders import Order, find_order_by_key, insert_paid, price_order, refuse_other_plan
from db.billing.promos import use_promo
from db.billing.referrals import note_spending, reward_notice
from db.customers import lock_with_referrer
from db.errors import BusinessError, PriceChanged
from db.money import Money
from db.tx import Tx
from db.work.audit import Notice, record_audit


@attrs.frozen
class BalancePurchase:
    """What the purchase led to, now or (`replayed`) when it was asked for first."""

    order_id: int
    subscription_id: int
    price: Money
    expires_at: datetime
    key_id: str
    replayed: bool = False


async def finalize_balance_purchase(
    tx: Tx,
    telegram_id: int,
    tariff: str,
    days: int,
    *,
    seen_price: Money,
    idempotency_key: str,
    promo_code: str | None = None,
    actor: str = "customer",
) -> BalancePurchase:
    """Debit the purses and extend or create the subscription, all or nothing; the same key again is one purchase.

    `seen_price` is what the customer was shown and agreed to. The referrer is rewarded for the part that the purse `paid`
    covers. Raises `PriceChanged` when the price is another one, `InsufficientFunds` (roll back: nothing was debited, no
    order stays), and everything that `open_order` raises.
    """
    customer = await lock_with_referrer(tx, telegram_id)
    key = f"balance:{idempotency_key}"
    priced = await price_order(tx, customer, tariff, days, idempotency_key=key, promo_code=promo_code)
    if isinstance(priced, Order):
        return await _first_outcome(tx, priced, seen_price)
    order = await insert_paid(tx, customer.id, key, priced) if priced.price == seen_price else None
    if order is None:
        # The request is repeated, and the price may have changed since it was carried out; or the price is another one.
        first = await find_order_by_key(tx, customer.id, key)
        if first is None:
            raise PriceChanged(f"{tariff} for {days} d", seen_price, priced.price)
        refuse_other_plan(first, tariff, days, priced.entered_promo_id, idempotency_key)
        return await _first_outcome(tx, first, seen_price)
    spending = await spend(tx, customer.id, order.price)
    journal_id = await post(
        tx,
        Journal(
            "balance_purchase",
            f"purchase:{order.id}",
            spending.legs("revenue"),
            customer_id=customer.id,
            order_id=order.id,
        ),
    )
    entitlement = await grant(
        tx,
        Grant(
            customer.id,
            tariff,
            timedelta(days=days),
            "balance",
            actor,
            order_id=order.id,
            journal_id=journal_id,
            price=order.price,
        ),
    )
    key_id = await want_present(tx, entitlement.subscription_id)
    if order.promo_code_id is not None:
        await use_promo(tx, order.id, order.promo_code_id, customer.id)
    reward = await note_spending(tx, customer, journal_id, spending.paid)
    payload = {"tariff": tariff, "days": days, "expires_at": entitlement.new_end.isoformat()}
    await record_audit(
        tx,
        actor,
        "finalize_balance_purchase",
        Notice("purchase", f"order:{order.id}", customer.id, payload),
        *([] if reward is None else [reward_notice(reward)]),
        customer_id=customer.id,
        subject=f"order:{order.id}",
        details={"tariff": tariff, "days": days, "amount": order.price.amount, **spending.details()},
    )
    return BalancePurchase(order.id, entitlement.subscription_id, order.price, entitlement.new_end, key_id)


async def _first_outcome(tx: Tx, order: Order, seen_price: Money) -> BalancePurchase:
    if order.price != seen_price:
        raise PriceChanged(f"order {order.id}, for which this key stands,", seen_price, order.price)
    row = await tx.fetchrow(
        """
        SELECT e.subscription_id, e.new_end,
               (SELECT key_id FROM vpn_keys k WHERE k.subscription_id = e.subscription_id ORDER BY id DESC LIMIT 1) AS key_id
        FROM entitlement_events e WHERE e.order_id = $1
        """,
        order.id,
    )
    if row is None:
        raise BusinessError(f"order {order.id} is {order.state} and was not paid; ask again with a new key")
    return BalancePurchase(order.id, row["subscription_id"], order.price, row["new_end"], row["key_id"], replayed=True)
