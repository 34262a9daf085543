"""Opening an invoice for an order: a row, the provider, the row again; no lease is held while the provider is asked."""

from __future__ import annotations

from actors.payments.events import INVOICES
from actors.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from actors.pool.client import Pool
from db.billing.invoices import Invoice, open_invoice, reserve_invoice
from db.tx import Tx
from db.work.limits import Allowance


async def open_invoice_for(
    pool: Pool, provider: Provider, order_id: int, *, allowance: Allowance | None = None, within: float = 5.0
) -> Invoice:
    """The order's open invoice with this provider, whose `pay_url` the customer needs; asked twice, it is the same one.

    `allowance` holds a new one to the customer's limit of checkouts. Raises LimitReached, BusinessError (the order cannot be
    paid, or not in the provider's asset; ProviderRefused is one too), ProviderUnavailable (ask again: the same key makes it the
    same invoice), and what `pool.run` raises.
    """
    invoice = await pool.run(
        "invoice.reserve",
        reserve_invoice,
        order_id,
        provider.name,
        provider.assets,
        provider.shortest_page,
        allowance,
        within=within,
    )
    if invoice.state == "open":
        return invoice
    try:
        created = await provider.create_invoice(invoice)
    except ProviderRefused:
        INVOICES.labels(provider.name, "refused").inc()
        raise
    except ProviderUnavailable:
        INVOICES.labels(provider.name, "unavailable").inc()
        raise

    async def note(tx: Tx) -> Invoice:
        return await open_invoice(
            tx, invoice, created.invoice_id, created.pay_url, watched=provider.is_watched, lives=created.lives
        )

    INVOICES.labels(provider.name, "opened").inc()
    return await pool.run("invoice.open", note, within=within)
