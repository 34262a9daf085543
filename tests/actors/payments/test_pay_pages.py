"""A pay page ends with its order; where its provider lets none end so soon, the order is payable at its price until then."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from actors.payments.provider import ProviderUnavailable
from db.billing.orders import expire_orders
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY

HOUR = 3600.0


def seconds_told(here: Harness, provider: str, invoice_id: str) -> float:
    """How long the provider was told that the page may be paid."""
    if provider == "stripe":
        return float(str(here.outside.stripe.sessions[invoice_id]["expires_at"])) - time.time()
    until = str(here.outside.cryptobot.invoices[int(invoice_id)]["expiration_date"])
    return datetime.fromisoformat(until).timestamp() - datetime.now(UTC).timestamp()


@pytest.mark.parametrize("minutes", [0, 20, 29])
async def test_a_page_that_can_be_told_its_end_ends_with_its_order(database_dsn: str, minutes: int) -> None:
    async with harness(database_dsn) as here:
        order = await here.order("cryptobot")
        await here.move_clock(minutes=minutes)
        invoice = await here.invoice("cryptobot", order)
        told = seconds_told(here, "cryptobot", invoice.invoice_id or "")
        assert 0 < told <= (30 - minutes) * 60
        assert told > (30 - minutes) * 60 - 60
        assert invoice.order_ends_at == order.expires_at


@pytest.mark.parametrize(("provider", "shortest"), [("stripe", HOUR / 2), ("yookassa", HOUR)])
async def test_an_order_whose_page_cannot_end_with_it_is_honoured_at_its_price(
    database_dsn: str, provider: str, shortest: float
) -> None:
    async with harness(database_dsn) as here:
        order = await here.order(provider)
        await here.move_clock(minutes=29)
        invoice = await here.invoice(provider, order)
        lasts = (invoice.order_ends_at - order.expires_at).total_seconds()
        assert shortest - 60 < lasts + 60 < shortest + 180
        if provider == "stripe":
            assert seconds_told(here, provider, invoice.invoice_id or "") >= shortest
        await here.move_clock(minutes=29, seconds=shortest - 5)  # long after the order's half hour
        assert await here.run(expire_orders) == 0
        answer = await here.deliver(provider, PAY[provider](here, invoice.pay_url or "", 1001))
        assert answer.json()["result"] == "entitlement"
        assert await here.counts() == (1, 1, 0)


async def test_after_its_page_an_order_ends_and_a_payment_is_credited(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("stripe", await here.order("stripe"))
        await here.move_clock(seconds=(invoice.order_ends_at - invoice.created_at).total_seconds() + 1)
        assert await here.run(expire_orders) == 1
        answer = await here.deliver("stripe", PAY["stripe"](here, invoice.pay_url or "", 1001))
        assert answer.json()["result"] == "balance_credit"


async def test_asking_again_is_the_same_request_until_too_little_time_is_left(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        order, stripe = await here.order("stripe"), here.outside.stripe
        stripe.troubles.before.extend([500] * 3)
        with pytest.raises(ProviderUnavailable):
            await here.invoice("stripe", order)
        first = await here.value("SELECT request_key || page_ends_at FROM invoices")
        await here.move_clock(seconds=90)
        stripe.troubles.before.extend([500] * 3)
        with pytest.raises(ProviderUnavailable):
            await here.invoice("stripe", order)
        assert await here.value("SELECT request_key || page_ends_at FROM invoices") == first
        await here.move_clock(minutes=4)
        invoice = await here.invoice("stripe", order)
        assert invoice.request_key + str(invoice.order_ends_at) not in str(first)
        assert seconds_told(here, "stripe", invoice.invoice_id or "") >= HOUR / 2
        assert len(stripe.sessions) == 1


async def test_telegram_which_can_be_told_no_end_asks_before_it_takes_money(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram, order = here.outside.telegram, await here.order("telegram")
        invoice = await here.invoice("telegram", order)
        assert invoice.order_ends_at == order.expires_at
        await here.move_clock(minutes=31)
        update = telegram.check_out(1001, invoice.pay_url or "")
        await here.deliver("telegram", telegram.event(update))
        assert (await telegram.answer_to(update))["ok"] is False
