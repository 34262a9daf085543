"""Invoices: an order at a provider, from the wish to open one until it is paid or cannot be paid any more.

Opening one is three steps: `reserve_invoice` (a row with the key that makes asking again the same), the provider, over
HTTP with no transaction open, and `open_invoice`. A crash between them leaves a row, and the next request for the same
order goes on with it under the same key. A provider that waits for our word before it takes the money asks
`check_checkout`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import attrs

from db.billing.cases import open_case
from db.billing.orders import Order, find_order
from db.billing.payment_facts import Captured, Checkout, PurchaseOutcome
from db.billing.purchases import finalize_purchase
from db.customers import customer_by_id, lock_customers
from db.errors import BusinessError
from db.money import Money
from db.tx import Row, Tx, rows_of
from db.work.claims import Claimer, claimable, claimed, released, revoked
from db.work.limits import Allowance, Limit, hold_to_rate

FIRST_LOOK_SECONDS = 30.0
LAST_LOOK_SECONDS = 3600.0
DOUBTED_AFTER = timedelta(hours=1)
"""An invoice that its provider does not know after so long is a case: it was opened there, so the key may be wrong."""
WATCHED_FOR = timedelta(days=3)
"""An invoice that its provider still calls open after this is not asked about any more; a payment of it still counts."""


@attrs.frozen
class Invoice:
    """An invoice that a provider has, or is asked to open: one row of `invoices`."""

    id: int
    order_id: int
    provider: str
    request_key: str
    invoice_id: str | None
    pay_url: str | None = attrs.field(repr=False)
    state: Literal["creating", "open", "paid", "closed"]
    amount: Money
    """What the provider charges: the order's quote."""
    kind: str
    """What is bought: `subscription` or `topup`."""
    tariff: str | None
    days: int | None
    order_ends_at: datetime
    """Until when a payment buys what was ordered: as long as the pay page can be paid, at least."""
    seconds_left: float
    """Until the pay page has to end, on the database's clock."""
    page_ends: int
    """The same as Unix seconds of the real clock; equal whenever the provider is asked under the same `request_key`."""
    receipt_contact: str = attrs.field(repr=False)
    """Whom the customer wants the receipt sent to; empty if he did not say."""
    created_at: datetime
    epoch: int = 0
    """The claim's number, which fences what its holder writes."""


_COLUMNS = """i.id, i.order_id, i.provider, i.request_key, i.invoice_id, i.pay_url, i.state, i.created_at, i.claim_epoch,
    o.quoted_amount, o.quoted_asset, o.kind, o.tariff, o.days, o.expires_at, o.receipt_contact,
    extract(epoch FROM coalesce(i.page_ends_at, o.expires_at) - atlas_now())::float8 AS seconds_left,
    ceil(extract(epoch FROM coalesce(i.page_ends_at, o.expires_at) - (atlas_now() - now())))::bigint AS page_ends"""
_TO_ASK_AGAIN = timedelta(minutes=2)
"""How much longer than its provider's minimum a pay page is asked for, so that the same request can be sent again."""


async def reserve_invoice(
    tx: Tx,
    order_id: int,
    provider: str,
    assets: Sequence[str],
    shortest_page: float = 0.0,
    allowance: Allowance | None = None,
) -> Invoice:
    """The order's invoice with this provider: the one that is open, the one that is being opened, or a new row.

    The pay page ends with the order. Where the provider has none shorter than `shortest_page` seconds, the order is payable
    for as long as its page is, at its price; a key under which too little time is left is replaced. `allowance` holds a new
    one to the limit of checkouts. Raises `UnknownOrder`, `LimitReached`, and `BusinessError` when the order is not payable
    any more or was quoted in an asset that the provider does not take.
    """
    order = await find_order(tx, order_id)
    if allowance is not None:
        await _hold_to_checkouts(tx, order, provider, allowance)
    if order.quote.amount.currency not in assets:
        raise BusinessError(
            f"order {order_id} was quoted in {order.quote.amount.currency}, and {provider} takes {', '.join(assets)}; "
            "open an order with a quote of this provider"
        )
    payable = await tx.fetchval(
        "SELECT state = 'pending' AND expires_at > atlas_now() FROM orders WHERE id = $1 FOR NO KEY UPDATE", order_id
    )
    if not payable:
        raise BusinessError(f"order {order_id} is {order.state} and ended {order.expires_at:%Y-%m-%d %H:%M:%S %Z}")
    shortest = timedelta(seconds=shortest_page)
    await tx.execute(
        """
        INSERT INTO invoices (order_id, provider, page_ends_at)
        SELECT id, $2, greatest(expires_at, atlas_now() + $3::interval) FROM orders WHERE id = $1
        ON CONFLICT (order_id, provider) WHERE state IN ('creating', 'open') DO UPDATE
            SET request_key = excluded.request_key, page_ends_at = excluded.page_ends_at
            WHERE invoices.state = 'creating'
              AND (invoices.page_ends_at IS NULL OR invoices.page_ends_at < atlas_now() + $4::interval)
        """,
        order_id,
        provider,
        shortest + _TO_ASK_AGAIN if shortest else shortest,
        shortest,
    )
    await _let_order_last(tx, order_id)
    row = await tx.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM invoices i JOIN orders o ON o.id = i.order_id
        WHERE i.order_id = $1 AND i.provider = $2 AND i.state IN ('creating', 'open')
        """,  # noqa: S608 - our own column list
        order_id,
        provider,
    )
    assert row is not None, "it was just inserted or found"
    return _invoice(row)


async def _hold_to_checkouts(tx: Tx, order: Order, provider: str, allowance: Allowance) -> None:
    """Raise `LimitReached` if the order needs another checkout than the customer may open now."""
    await lock_customers(tx, [order.customer_id])
    window = timedelta(seconds=allowance.limits.checkout_seconds)
    rows = await tx.fetch(
        """
        SELECT i.created_at, i.order_id = $2 AND i.provider = $3 AND i.state IN ('creating', 'open') AS is_this
        FROM invoices i JOIN orders o ON o.id = i.order_id
        WHERE o.customer_id = $1 AND (i.created_at > atlas_now() - $4::interval OR i.order_id = $2)
        ORDER BY i.created_at
        """,
        order.customer_id,
        order.id,
        provider,
        window,
    )
    if any(row["is_this"] for row in rows):
        return
    now: datetime = await tx.fetchval("SELECT atlas_now()")
    times = [row["created_at"] for row in rows if row["created_at"] > now - window]
    limit = Limit("checkouts opened lately", "limits.checkouts", allowance.limits.checkouts)
    await hold_to_rate(tx, allowance, limit, await customer_by_id(tx, order.customer_id), times, window)


async def open_invoice(
    tx: Tx, invoice: Invoice, invoice_id: str, pay_url: str, *, watched: bool, lives: float = 0.0
) -> Invoice:
    """Note what the provider answered. Repeating it changes nothing; of two answers the first is kept.

    If the page lives for longer than it was asked to, `lives` seconds from now, so does the order.
    """
    # The order first, as a payment locks it.
    await tx.execute("SELECT FROM orders WHERE id = $1 FOR NO KEY UPDATE", invoice.order_id)
    await tx.execute(
        """
        UPDATE invoices
        SET state = 'open', invoice_id = $2, pay_url = $3, watched = $4, opened_at = atlas_now(),
            next_attempt_at = atlas_now() + $5::interval, page_ends_at = greatest(page_ends_at, atlas_now() + $6::interval)
        WHERE id = $1 AND state = 'creating'
        """,
        invoice.id,
        invoice_id,
        pay_url,
        watched,
        timedelta(seconds=FIRST_LOOK_SECONDS),
        timedelta(seconds=lives),
    )
    await _let_order_last(tx, invoice.order_id)
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM invoices i JOIN orders o ON o.id = i.order_id WHERE i.id = $1",  # noqa: S608 - as above
        invoice.id,
    )
    assert row is not None, "invoices are never deleted"
    return _invoice(row)


async def _let_order_last(tx: Tx, order_id: int) -> None:
    """An order that can be paid is payable for as long as any of its pages; its row is locked already."""
    await tx.execute(
        """
        UPDATE orders o SET expires_at = page.ends_at
        FROM (SELECT max(page_ends_at) AS ends_at FROM invoices WHERE order_id = $1 AND state IN ('creating', 'open')) page
        WHERE o.id = $1 AND o.state = 'pending' AND o.expires_at < page.ends_at
        """,
        order_id,
    )


async def mark_invoice_paid(tx: Tx, provider: str, invoice_id: str, order_id: int | None) -> bool:
    """Settle an invoice as paid, found by the provider's id of it, or by its order if `invoice_id` is empty.

    `False`: it was settled before, or is not ours.
    """
    tag = await tx.execute(
        f"""
        UPDATE invoices
        SET state = 'paid', settled_at = atlas_now(), {revoked()}
        WHERE provider = $1 AND state IN ('creating', 'open')
          AND CASE WHEN $2 = '' THEN order_id = $3 ELSE invoice_id = $2 END
        """,  # noqa: S608 - our own fragments
        provider,
        invoice_id,
        order_id,
    )
    return rows_of(tag) > 0


async def close_invoice(tx: Tx, provider: str, invoice_id: str, why: str) -> bool:
    """The provider takes no payment of it any more. `False`: it was settled before, or is not ours."""
    tag = await tx.execute(
        f"""
        UPDATE invoices
        SET state = 'closed', why_closed = $3, settled_at = atlas_now(), {revoked()}
        WHERE provider = $1 AND invoice_id = $2 AND state IN ('creating', 'open')
        """,  # noqa: S608 - our own fragments
        provider,
        invoice_id,
        why[:200],
    )
    return rows_of(tag) > 0


async def claim_invoices(
    tx: Tx, owner: Claimer, providers: Sequence[str], limit: int, lease_seconds: float
) -> Sequence[Invoice]:
    """Claim up to `limit` open invoices of these providers that are due to be asked about, oldest first."""
    rows = await tx.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM invoices
            WHERE state = 'open' AND watched AND next_attempt_at <= (SELECT atlas_now()) AND provider = ANY($3::text[])
              AND {claimable()}
            ORDER BY next_attempt_at, id LIMIT $4
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE invoices i
        SET {claimed("atlas_now() + $5::interval", of="i.")}
        FROM due, orders o WHERE i.id = due.id AND o.id = i.order_id
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - as above
        owner.name,
        owner.incarnation,
        list(providers),
        limit,
        timedelta(seconds=lease_seconds),
    )
    return sorted((_invoice(row) for row in rows), key=lambda invoice: invoice.id)


async def settle_invoice(tx: Tx, invoice: Invoice, fact: Captured) -> PurchaseOutcome | None:
    """Book the payment that the provider told of when asked. `None`: the claim was lost, and nothing was written.

    The charge is the same one that the provider's event names, so that both together are one payment.
    """
    tag = await tx.execute(
        f"""
        UPDATE invoices SET state = 'paid', settled_at = atlas_now(),
                            {released()}
        WHERE id = $1 AND claim_epoch = $2 AND state = 'open'
        """,  # noqa: S608 - our own fragments
        invoice.id,
        invoice.epoch,
    )
    if rows_of(tag) != 1:
        return None
    return await finalize_purchase(tx, fact.command)


async def postpone_invoice(tx: Tx, invoice: Invoice, error: str = "") -> bool:
    """Ask again later: after half its age, 30 seconds to an hour, jittered. Too old, it is closed as not watched any more.

    `False`: the claim was lost.
    """
    tag = await tx.execute(
        f"""
        UPDATE invoices
        SET attempts = attempts + 1, last_error = nullif($3, ''),
            next_attempt_at = atlas_now() + least($5::float8, greatest($4::float8,
                extract(epoch FROM atlas_now() - created_at) / 2)) * (0.75 + random() / 2) * interval '1 second',
            state = CASE WHEN created_at < atlas_now() - $6::interval THEN 'closed' ELSE state END,
            why_closed = CASE WHEN created_at < atlas_now() - $6::interval THEN 'not watched any more' END,
            settled_at = CASE WHEN created_at < atlas_now() - $6::interval THEN atlas_now() END,
            {released()}
        WHERE id = $1 AND claim_epoch = $2 AND state = 'open'
        """,  # noqa: S608 - our own fragments
        invoice.id,
        invoice.epoch,
        error[:500],
        FIRST_LOOK_SECONDS,
        LAST_LOOK_SECONDS,
        WATCHED_FOR,
    )
    return rows_of(tag) == 1


async def question_invoice(tx: Tx, invoice: Invoice, why: str) -> bool:
    """The provider's answer about it cannot be booked: a case for a human, once, and the invoice is looked at later."""
    await open_case(
        tx,
        "invoice",
        f"invoice:{invoice.id}",
        details={"provider": invoice.provider, "order": invoice.order_id, "error": why[:300]},
    )
    return await postpone_invoice(tx, invoice, why)


async def doubt_invoice(tx: Tx, invoice: Invoice, why: str) -> bool:
    """The provider does not know it. It is asked again, and once that has lasted for `DOUBTED_AFTER` a human is told.

    `False`: the claim was lost.
    """
    if await tx.fetchval("SELECT $1::timestamptz < atlas_now() - $2::interval", invoice.created_at, DOUBTED_AFTER):
        return await question_invoice(tx, invoice, why)
    return await postpone_invoice(tx, invoice, why)


async def close_stale_invoices(tx: Tx, limit: int = 100) -> int:
    """Close invoices about which no provider can be asked, long after their orders ended; returns how many.

    They were never opened as far as we know, or their provider cannot be asked. A payment of one still counts.
    """
    tag = await tx.execute(
        """
        WITH stale AS MATERIALIZED (
            SELECT i.id FROM invoices i JOIN orders o ON o.id = i.order_id
            WHERE i.state IN ('creating', 'open') AND (i.state = 'creating' OR NOT i.watched)
              AND i.created_at < atlas_now() - interval '1 day' AND o.expires_at < atlas_now()
            ORDER BY i.created_at LIMIT $1 FOR NO KEY UPDATE OF i SKIP LOCKED
        )
        UPDATE invoices i SET state = 'closed', why_closed = 'its order ended', settled_at = atlas_now()
        FROM stale WHERE i.id = stale.id
        """,
        limit,
    )
    return rows_of(tag)


def _invoice(row: Row) -> Invoice:
    return Invoice(
        id=row["id"],
        order_id=row["order_id"],
        provider=row["provider"],
        request_key=row["request_key"],
        invoice_id=row["invoice_id"],
        pay_url=row["pay_url"],
        state=row["state"],
        amount=Money(row["quoted_amount"], row["quoted_asset"]),
        kind=row["kind"],
        tariff=row["tariff"],
        days=row["days"],
        order_ends_at=row["expires_at"],
        seconds_left=row["seconds_left"],
        page_ends=row["page_ends"],
        receipt_contact=row["receipt_contact"] or "",
        created_at=row["created_at"],
        epoch=row["claim_epoch"],
    )


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
