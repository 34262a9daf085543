"""Every other event of the providers' documentation, as it stands there: a checkout, refunds, disputes, lapses, late captures."""

from __future__ import annotations

import json

import pytest
import trio

from db.tx import Tx
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_authenticity import FIXTURES, GOOD, first_order, fixture, stripe, telegram, yookassa
from tests.actors.payments.test_orders_of_events import result_of

HERE_USED = {
    *("telegram_pre_checkout_query", "telegram_refunded_payment", "yookassa_refund_succeeded"),
    *("yookassa_payment_canceled", "stripe_charge_refunded", "stripe_charge_dispute_created"),
    *("stripe_checkout_session_expired", "stripe_checkout_session_completed_unpaid"),
    *("stripe_checkout_session_async_payment_succeeded", "stripe_checkout_session_async_payment_failed"),
}


def test_every_fixture_is_used_and_names_its_source() -> None:
    names = {path.stem for path in FIXTURES.glob("*.json")}
    assert names == {*GOOD, *HERE_USED, "cryptobot_fiat_invoice_paid"}
    sources = (FIXTURES / "SOURCES.md").read_text()
    assert {name for name in names if name not in sources and "async_payment" not in name} == set()


async def open_session(here: Harness) -> None:
    """Order number 1 with an invoice, which is the session of the fixtures."""
    invoice = await here.invoice("stripe", await here.order("stripe"))
    session = json.loads(fixture("stripe_checkout_session_completed"))["data"]["object"]["id"]

    async def name(tx: Tx) -> None:
        await tx.execute("UPDATE invoices SET invoice_id = $2 WHERE id = $1", invoice.id, session)

    await here.run(name)


async def test_a_documented_checkout_is_answered(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, "telegram")
        query = json.loads(fixture("telegram_pre_checkout_query"))
        here.outside.telegram.asked_at[query["pre_checkout_query"]["id"]] = trio.current_time()
        await here.deliver("telegram", telegram(fixture("telegram_pre_checkout_query")))
        assert (await here.outside.telegram.answer_to(query))["ok"] is True


async def assert_reversed(here: Harness, provider: str, paid: Event, back: Event, what: str) -> None:
    """The payment is booked, and its reversal is one case of the customer's, however often it is told."""
    assert result_of(await here.deliver(provider, paid)) == "entitlement"
    for _ in range(2):
        assert result_of(await here.deliver(provider, back)) == what
    assert await here.counts() == (1, 1, 1)
    assert await here.value("SELECT kind FROM cases WHERE customer_id IS NOT NULL") == f"provider_{what}"


async def test_a_documented_refund_of_stars_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, "telegram")
        paid, back = telegram(fixture("telegram_successful_payment")), telegram(fixture("telegram_refunded_payment"))
        await assert_reversed(here, "telegram", paid, back, "refund")


async def test_a_documented_refund_at_yookassa_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, "yookassa")
        refund = json.loads(fixture("yookassa_refund_succeeded"))["object"]
        here.outside.yookassa.refunds[refund["id"]] = refund
        paid, back = yookassa(fixture("yookassa_payment_succeeded")), yookassa(fixture("yookassa_refund_succeeded"))
        await assert_reversed(here, "yookassa", paid, back, "refund")


async def test_a_documented_refund_and_a_documented_dispute_at_stripe_are_cases(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, "stripe")
        paid = stripe(fixture("stripe_payment_intent_succeeded"))
        await assert_reversed(here, "stripe", paid, stripe(fixture("stripe_charge_refunded")), "refund")
        assert result_of(await here.deliver("stripe", stripe(fixture("stripe_charge_dispute_created")))) == "dispute"
        assert await here.counts() == (1, 1, 2)


async def test_a_session_that_is_complete_and_not_paid_counts_when_its_money_comes(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await open_session(here)
        assert result_of(await here.deliver("stripe", stripe(fixture("stripe_checkout_session_completed_unpaid")))) == (
            "nothing"
        )
        assert await here.counts() == (0, 0, 0)
        paid = stripe(fixture("stripe_checkout_session_async_payment_succeeded"))
        assert result_of(await here.deliver("stripe", paid)) == "entitlement"
        assert await here.value("SELECT state FROM invoices") == "paid"


@pytest.mark.parametrize("name", ["stripe_checkout_session_async_payment_failed", "stripe_checkout_session_expired"])
async def test_a_session_whose_money_does_not_come_is_closed(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        await open_session(here)
        assert result_of(await here.deliver("stripe", stripe(fixture(name)))) == "invoice_closed"
        assert await here.value("SELECT state FROM invoices") == "closed"
        assert await here.counts() == (0, 0, 0)


async def test_a_payment_that_lapsed_at_yookassa_closes_its_invoice(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        lapsed = json.loads(fixture("yookassa_payment_canceled"))
        lapsed["object"]["id"] = invoice.invoice_id
        here.outside.yookassa.payments[invoice.invoice_id or ""] = lapsed["object"]
        answer = await here.deliver("yookassa", yookassa(json.dumps(lapsed).encode()))
        assert result_of(answer) == "invoice_closed"
        assert await here.value("SELECT state FROM invoices") == "closed"
