"""Each provider, from the order to the entitlement, over real HTTP in its own format."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.announcements import PurchaseFinal
from actors.payments.provider import ProviderUnavailable
from actors.payments.wire import REPEATS
from db.money import Money
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness

Pay = Callable[[Harness, str, int], Event]


def pay_telegram(here: Harness, link: str, telegram_id: int) -> Event:
    telegram = here.outside.telegram
    return telegram.event(telegram.pay(telegram_id, link))


def pay_cryptobot(here: Harness, link: str, _: int) -> Event:
    cryptobot = here.outside.cryptobot
    [number] = [number for number, invoice in cryptobot.invoices.items() if invoice["bot_invoice_url"] == link]
    return cryptobot.pay(number)


def pay_yookassa(here: Harness, link: str, _: int) -> Event:
    yookassa = here.outside.yookassa
    [number] = [number for number, payment in yookassa.payments.items() if link in str(payment["confirmation"])]
    return yookassa.pay(number)


def pay_stripe(here: Harness, _: str, __: int) -> Event:
    return here.outside.stripe.pay(next(reversed(here.outside.stripe.sessions)))[0]


def pay_platega(here: Harness, link: str, _: int) -> Event:
    return here.outside.platega.pay(link.rpartition("=")[2])


def pay_heleket(here: Harness, link: str, _: int) -> Event:
    return here.outside.heleket.pay(link.rpartition("/")[2])


PAY: dict[str, Pay] = {
    "telegram": pay_telegram,
    "cryptobot": pay_cryptobot,
    "yookassa": pay_yookassa,
    "stripe": pay_stripe,
    "platega": pay_platega,
    "heleket": pay_heleket,
}
QUOTES = {
    "telegram": Money(115, "XTR"),
    "cryptobot": Money(1_610_811, "USDT"),
    "yookassa": Money(14900, "RUB"),
    "stripe": Money(161, "USD"),
    "platega": Money(14900, "RUB"),
    "heleket": Money(1_610_811, "USDT"),
}


@pytest.mark.parametrize("provider", PAY)
async def test_a_paid_order_becomes_an_entitlement_at_the_price_in_roubles(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        listener = await here.system.probe()
        here.system.services.topics.subscribe(PurchaseFinal, listener.ref.address)
        order = await here.order(provider)
        assert order.quote.amount == QUOTES[provider]
        invoice = await here.invoice(provider, order)
        assert invoice.pay_url
        assert (await here.invoice(provider, order)).pay_url == invoice.pay_url
        answer = await here.deliver(provider, PAY[provider](here, invoice.pay_url, 1001))
        assert (answer.status_code, answer.json()) == (200, {"state": "processed", "result": "entitlement"})
        final = await listener.receive(PurchaseFinal)
        assert (final.paid_with, final.result, final.order_id) == (provider, "entitlement", order.id)
        assert await here.counts() == (1, 1, 0)
        assert await here.value("SELECT booked_amount FROM money_in") == 14900
        assert await here.value("SELECT amount FROM money_in") == QUOTES[provider].amount
        assert await here.value("SELECT state FROM invoices") == "paid"


@pytest.mark.parametrize("provider", PAY)
async def test_a_topup_is_credited_to_the_kopeck(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        order = await here.order(provider, topup=123_45)
        invoice = await here.invoice(provider, order)
        assert invoice.pay_url
        answer = await here.deliver(provider, PAY[provider](here, invoice.pay_url, 1001))
        assert answer.json()["result"] == "balance_credit"
        assert await here.value("SELECT balance FROM accounts WHERE kind = 'paid'") == 123_45


@pytest.mark.parametrize("lost", [1, 3])
@pytest.mark.parametrize("provider", ["yookassa", "stripe"])
async def test_an_invoice_whose_answer_was_lost_is_opened_once(database_dsn: str, provider: str, lost: int) -> None:
    async with harness(database_dsn) as here:
        outside = getattr(here.outside, provider)
        order = await here.order(provider)
        outside.troubles.after.extend([500] * lost)
        if lost > REPEATS:
            with pytest.raises(ProviderUnavailable):
                await here.invoice(provider, order)
        invoice = await here.invoice(provider, order)
        assert not outside.troubles.after
        assert len(outside.keys) == len(outside.payments if provider == "yookassa" else outside.sessions) == 1
        answer = await here.deliver(provider, PAY[provider](here, invoice.pay_url or "", 1001))
        assert answer.json()["result"] == "entitlement"


async def test_at_a_provider_without_keys_either_one_of_two_invoices_pays_the_order(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        cryptobot, order = here.outside.cryptobot, await here.order("cryptobot")
        cryptobot.troubles.after.append(500)
        with pytest.raises(ProviderUnavailable):
            await here.invoice("cryptobot", order)
        await here.invoice("cryptobot", order)
        lost, _ = cryptobot.invoices
        assert (await here.deliver("cryptobot", cryptobot.pay(lost))).json()["result"] == "entitlement"
        assert await here.counts() == (1, 1, 0)
