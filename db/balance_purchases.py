"""Buying a plan from the balance: the same effects as a payment, with money that has already come in."""

from datetime import datetime, timedelta

import attrs

from db.audit import record
from db.customers import lock_customers
from db.entitlements import Grant, grant
from db.errors import BusinessError
from db.key_rows import want_present
from db.ledger import Journal, move, post
from db.money import Money
from db.orders import find_order, open_order, use_promo
from db.outbox import add_message
from db.tx import Tx


@attrs.frozen
class BalancePurchase:
    """What the purchase led to, now or (``replayed``) when it was asked for first."""

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
    idempotency_key: str,
    promo_code: str | None = None,
    actor: str = "customer",
) -> BalancePurchase:
    """Debit the balance and extend or create the subscription, all or nothing; the same key again is one purchase.

    No referral reward: this money was rewarded when it came in. Raises ``InsufficientFunds`` (roll back: nothing was
    debited, no order stays) and everything that ``open_order`` raises.
    """
    order = await open_order(
        tx, telegram_id, tariff, days, idempotency_key=f"balance:{idempotency_key}", promo_code=promo_code
    )
    await lock_customers(tx, [order.customer_id])
    tag = await tx.execute(
        """
        UPDATE orders SET state = 'paid', paid_from = 'balance', paid_at = atlas_now()
        WHERE id = $1 AND state = 'pending' AND expires_at > atlas_now()
        """,
        order.id,
    )
    if tag != "UPDATE 1":
        return await _first_outcome(tx, order.id)
    journal_id = await post(
        tx,
        Journal(
            "balance_purchase",
            f"purchase:{order.id}",
            move(order.customer_id, "revenue", order.price),
            customer_id=order.customer_id,
            order_id=order.id,
        ),
    )
    entitlement = await grant(
        tx,
        Grant(
            order.customer_id,
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
        await use_promo(tx, order)
    await add_message(
        tx,
        "purchase",
        f"order:{order.id}",
        customer_id=order.customer_id,
        payload={"tariff": tariff, "days": days, "expires_at": entitlement.new_end.isoformat()},
    )
    await record(
        tx,
        actor,
        "finalize_balance_purchase",
        customer_id=order.customer_id,
        subject=f"order:{order.id}",
        details={"tariff": tariff, "days": days, "amount": order.price.amount},
    )
    return BalancePurchase(order.id, entitlement.subscription_id, order.price, entitlement.new_end, key_id)


async def _first_outcome(tx: Tx, order_id: int) -> BalancePurchase:
    order = await find_order(tx, order_id)
    row = await tx.fetchrow(
        """
        SELECT e.subscription_id, e.new_end,
               (SELECT key_id FROM vpn_keys k WHERE k.subscription_id = e.subscription_id ORDER BY id DESC LIMIT 1) AS key_id
        FROM entitlement_events e WHERE e.order_id = $1
        """,
        order_id,
    )
    if row is None:
        raise BusinessError(f"order {order_id} is {order.state} and was not paid; ask again with a new key")
    return BalancePurchase(order_id, row["subscription_id"], order.price, row["new_end"], row["key_id"], replayed=True)
