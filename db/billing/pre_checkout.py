"""May this order be paid now? Asked by a provider that waits for the answer before it takes the money."""

from enum import StrEnum

from db.billing.payment_facts import Checkout
from db.tx import Tx


class CheckoutVerdict(StrEnum):
    """The answer to a customer who is about to pay."""

    FINE = "fine"
    UNKNOWN_ORDER = "unknown_order"
    NOT_YOURS = "not_yours"
    PAID = "paid"
    ENDED = "ended"
    """Cancelled, or its time is over."""
    AMOUNT = "amount"
    """Not the amount and currency that were quoted."""
    NOT_SOLD = "not_sold"
    """The tariff has left the price list."""
    SOLD_OUT = "sold_out"
    """Every node is closed to new keys, and this customer has none yet."""


async def check_checkout(tx: Tx, checkout: Checkout) -> CheckoutVerdict:
    """Validate order, payer, price and stock. It changes nothing and promises nothing: the payment decides.

    Whether nodes are healthy does not matter, only whether they are open to new customers.
    """
    row = await tx.fetchrow(
        """
        SELECT o.state, o.kind, o.expires_at <= atlas_now() AS is_over, o.quoted_amount, o.quoted_asset, c.telegram_id,
               EXISTS (SELECT FROM tariffs t JOIN prices p ON p.tariff = t.code
                       WHERE t.code = o.tariff AND t.is_sold AND p.days = o.days) AS is_sold,
               EXISTS (SELECT FROM vpn_nodes)
               AND NOT EXISTS (SELECT FROM vpn_nodes WHERE accepts_keys)
               AND NOT EXISTS (SELECT FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
                               WHERE s.customer_id = o.customer_id AND k.wanted = 'present') AS is_full
        FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = $1
        """,
        checkout.order_id,
    )
    if row is None:
        return CheckoutVerdict.UNKNOWN_ORDER
    if row["telegram_id"] != checkout.telegram_id:
        return CheckoutVerdict.NOT_YOURS
    if row["state"] == "paid":
        return CheckoutVerdict.PAID
    if row["state"] != "pending" or row["is_over"]:
        return CheckoutVerdict.ENDED
    amount = checkout.amount
    if amount is None or (amount.amount, amount.currency) != (row["quoted_amount"], row["quoted_asset"]):
        return CheckoutVerdict.AMOUNT
    if row["kind"] == "subscription" and not row["is_sold"]:
        return CheckoutVerdict.NOT_SOLD
    if row["kind"] == "subscription" and row["is_full"]:
        return CheckoutVerdict.SOLD_OUT
    return CheckoutVerdict.FINE
