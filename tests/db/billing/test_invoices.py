"""An invoice is asked for under one key, watched until its provider is done with it, and settled once."""

from __future__ import annotations

import pytest

from db.billing.invoices import (
    Invoice,
    claim_invoices,
    close_invoice,
    close_stale_invoices,
    mark_invoice_paid,
    open_invoice,
    postpone_invoice,
    reserve_invoice,
    settle_invoice,
)
from db.billing.orders import open_order
from db.billing.payment_facts import Captured, FinalizePurchase, PaymentResult
from db.errors import BusinessError, UnknownOrder
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database

RUB = ("RUB",)


async def order_of(database: Database, key: str = "click") -> int:
    await database.add_customer()
    return (await database.run(open_order, 1001, "basic", 30, idempotency_key=key)).id


async def opened(database: Database, key: str = "click", invoice_id: str = "pay-1") -> Invoice:
    invoice = await database.run(reserve_invoice, await order_of(database, key), "yookassa", RUB)
    return await database.run(open_invoice, invoice, invoice_id, "https://pay.example/1", watched=True)


async def claimed(database: Database) -> tuple[Claimer, list[Invoice]]:
    owner = await database.run(enlist_claimer, "main/payment_watcher")
    return owner, list(await database.run(claim_invoices, owner, ["yookassa"], 10, 60.0))


def captured(invoice: Invoice) -> Captured:
    charge = invoice.invoice_id or ""
    return Captured(FinalizePurchase("yookassa", charge, invoice.amount, invoice.order_id), charge)


async def test_an_interrupted_request_goes_on_under_the_same_key(database: Database) -> None:
    order = await order_of(database)
    first = await database.run(reserve_invoice, order, "yookassa", RUB)
    again = await database.run(reserve_invoice, order, "yookassa", RUB)
    assert (first.id, first.request_key, first.state) == (again.id, again.request_key, "creating")
    other = await database.run(reserve_invoice, order, "stripe", RUB)
    assert other.request_key != first.request_key


async def test_an_order_has_one_open_invoice_with_a_provider(database: Database) -> None:
    invoice = await opened(database)
    again = await database.run(reserve_invoice, invoice.order_id, "yookassa", RUB)
    assert (again.id, again.pay_url, again.state) == (invoice.id, "https://pay.example/1", "open")
    late = await database.run(open_invoice, invoice, "pay-2", "https://pay.example/2", watched=True)
    assert late.invoice_id == "pay-1"


async def test_after_a_closed_invoice_a_new_one_is_opened_under_a_new_key(database: Database) -> None:
    invoice = await opened(database)
    assert await database.run(close_invoice, "yookassa", "pay-1", "canceled")
    assert not await database.run(close_invoice, "yookassa", "pay-1", "canceled")
    second = await database.run(reserve_invoice, invoice.order_id, "yookassa", RUB)
    assert second.request_key != invoice.request_key


async def test_an_order_that_cannot_be_paid_gets_no_invoice(database: Database) -> None:
    order = await order_of(database)
    with pytest.raises(BusinessError, match="quoted in RUB"):
        await database.run(reserve_invoice, order, "cryptobot", ("USDT",))
    with pytest.raises(UnknownOrder):
        await database.run(reserve_invoice, 999, "yookassa", RUB)
    await database.move_clock(minutes=31)
    with pytest.raises(BusinessError, match="ended"):
        await database.run(reserve_invoice, order, "yookassa", RUB)


async def test_open_invoices_are_looked_at_oldest_first_and_not_by_two_at_once(database: Database) -> None:
    for number in range(3):
        await opened(database, f"click-{number}", f"pay-{number}")
    _, none = await claimed(database)
    assert none == []
    await database.move_clock(seconds=31)
    owner, found = await claimed(database)
    assert [invoice.invoice_id for invoice in found] == ["pay-0", "pay-1", "pay-2"]
    assert await database.run(claim_invoices, owner, ["yookassa"], 10, 60.0) == []


async def test_an_unpaid_invoice_is_asked_about_ever_more_rarely_and_given_up_after_days(database: Database) -> None:
    await opened(database)
    await database.move_clock(seconds=31)
    _, [invoice] = await claimed(database)
    assert await database.run(postpone_invoice, invoice)
    assert (await claimed(database))[1] == []
    await database.move_clock(minutes=2)
    _, [invoice] = await claimed(database)
    await database.run(postpone_invoice, invoice, "502")
    await database.move_clock(days=4)
    _, [invoice] = await claimed(database)
    await database.run(postpone_invoice, invoice)
    assert await database.fetchval("SELECT state || ' ' || why_closed FROM invoices") == "closed not watched any more"


async def test_a_payment_found_by_asking_and_the_same_told_by_an_event_are_one(database: Database) -> None:
    await opened(database)
    await database.move_clock(seconds=31)
    _, [invoice] = await claimed(database)
    outcome = await database.run(settle_invoice, invoice, captured(invoice))
    assert outcome is not None
    assert outcome.result is PaymentResult.ENTITLEMENT
    assert await database.run(settle_invoice, invoice, captured(invoice)) is None
    assert not await database.run(mark_invoice_paid, "yookassa", "pay-1", None)
    assert await database.count("money_in") == 1


async def test_an_invoice_that_was_paid_meanwhile_is_not_settled_again(database: Database) -> None:
    await opened(database)
    await database.move_clock(seconds=31)
    _, [invoice] = await claimed(database)
    assert await database.run(mark_invoice_paid, "yookassa", "", invoice.order_id)
    assert await database.run(settle_invoice, invoice, captured(invoice)) is None
    assert not await database.run(postpone_invoice, invoice)
    assert await database.count("money_in") == 0


async def test_what_nobody_can_be_asked_about_is_closed_a_day_later(database: Database) -> None:
    order = await order_of(database)
    await database.run(reserve_invoice, order, "yookassa", RUB)
    watched = await opened(database, "other")
    assert await database.run(close_stale_invoices) == 0
    await database.move_clock(days=2)
    assert await database.run(close_stale_invoices) == 1
    assert await database.fetchval("SELECT state FROM invoices WHERE id = $1", watched.id) == "open"
