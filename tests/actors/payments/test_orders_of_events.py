"""Whatever order events come in, a captured payment ends once: entitlement, credit, or a case; and says so again."""

from __future__ import annotations

import attrs
import httpx
import pytest
import trio

from db.billing.invoices import Invoice
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY

PROVIDERS = tuple(PAY)


async def paid(here: Harness, provider: str, *, key: str = "click") -> Event:
    """An order with an invoice, paid outside; the event is on its way."""
    invoice = await here.invoice(provider, await here.order(provider, key=key))
    assert invoice.pay_url
    return PAY[provider](here, invoice.pay_url, 1001)


def result_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"])


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_duplicate_gets_the_first_outcome_and_changes_nothing(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, provider)
        first = await here.deliver(provider, event)
        again = await here.deliver(provider, event)
        assert first.json() == again.json() == {"state": "processed", "result": "entitlement"}
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_eight_deliveries_at_once_are_one_payment(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, provider)
        results = []

        async def one() -> None:
            await here.deliver_until_taken(provider, event)
            results.append(result_of(await here.deliver(provider, event)))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
        assert set(results) == {"entitlement"}
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_payment_of_an_order_that_has_ended_is_credited(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, provider)
        ends_in = await here.value("SELECT extract(epoch FROM expires_at - atlas_now())::float8 FROM orders")
        await here.move_clock(seconds=float(str(ends_in)) + 1)
        assert result_of(await here.deliver(provider, event)) == "balance_credit"
        assert await here.value("SELECT balance FROM accounts WHERE kind = 'paid'") == 14900


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_with_two_orders_open_each_payment_pays_its_own(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        older = await paid(here, provider, key="first")
        newer = await paid(here, provider, key="second")
        assert result_of(await here.deliver(provider, newer)) == "entitlement"
        assert result_of(await here.deliver(provider, older)) == "entitlement"
        assert await here.counts() == (2, 2, 0)
        assert await here.value("SELECT string_agg(DISTINCT state, ',') FROM orders") == "paid"


async def test_an_invoice_of_telegram_that_is_paid_twice_is_two_payments(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("telegram", await here.order("telegram"))
        telegram = here.outside.telegram
        assert invoice.pay_url
        first, second = (telegram.event(telegram.pay(1001, invoice.pay_url)) for _ in range(2))
        assert result_of(await here.deliver("telegram", first)) == "entitlement"
        assert result_of(await here.deliver("telegram", second)) == "balance_credit"
        assert await here.counts() == (2, 1, 0)


async def test_two_updates_of_cryptobot_about_one_invoice_are_one_payment(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        first = await paid(here, "cryptobot")
        [invoice] = here.outside.cryptobot.invoices.values()
        second = here.outside.cryptobot.update(invoice)
        assert first.body != second.body
        assert result_of(await here.deliver("cryptobot", second)) == "entitlement"
        assert result_of(await here.deliver("cryptobot", first)) == "entitlement"
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1, 0)])
async def test_the_two_events_of_stripe_about_one_payment_are_one_payment_in_any_order(
    database_dsn: str, order: tuple[int, ...]
) -> None:
    async with harness(database_dsn) as here:
        await here.invoice("stripe", await here.order("stripe"))
        events = here.outside.stripe.pay(next(iter(here.outside.stripe.sessions)))
        for number in order:
            assert result_of(await here.deliver("stripe", events[number])) == "entitlement"
        assert await here.counts() == (1, 1, 0)
        assert await here.value("SELECT state FROM invoices") == "paid"


@attrs.frozen
class Mismatch:
    """A payment of something else than what was asked, and where it must end."""

    provider: str
    amount: int | str | None
    currency: str | None
    result: str
    credited: int = 0


MISMATCHES = (
    Mismatch("yookassa", "100.00", None, "balance_credit", 100_00),
    Mismatch("yookassa", None, "USD", "case"),
    Mismatch("yookassa", None, "KZT", "case"),
    Mismatch("cryptobot", "1.00", None, "balance_credit", 92_50),
    Mismatch("cryptobot", None, "TON", "case"),
    Mismatch("cryptobot", None, "DOGE", "case"),
    Mismatch("cryptobot", "1.6200001", None, "case"),
    Mismatch("stripe", 100, None, "balance_credit", 93_10),
    Mismatch("stripe", None, "eur", "case"),
    Mismatch("stripe", None, "jpy", "case"),
    Mismatch("telegram", 114, None, "balance_credit", 148_20),
    Mismatch("telegram", None, "RUB", "balance_credit", 1_15),
    Mismatch("telegram", None, "KZT", "case"),
    Mismatch("platega", 100, None, "balance_credit", 100_00),
    Mismatch("platega", None, "USD", "case"),
    Mismatch("platega", None, "KZT", "case"),
    Mismatch("heleket", "1.00", None, "balance_credit", 92_50),
    Mismatch("heleket", None, "TON", "case"),
    Mismatch("heleket", None, "DOGE", "case"),
    Mismatch("heleket", "1.6108110001", None, "case"),
)


def pay_wrongly(here: Harness, wrong: Mismatch, invoice: Invoice) -> Event:
    """The invoice is paid with something else."""
    outside, number = here.outside, invoice.invoice_id or ""
    if wrong.provider == "yookassa":
        assert wrong.amount is None or isinstance(wrong.amount, str)
        return outside.yookassa.pay(number, value=wrong.amount, currency=wrong.currency)
    if wrong.provider == "cryptobot":
        assert wrong.amount is None or isinstance(wrong.amount, str)
        return outside.cryptobot.pay(int(number), amount=wrong.amount, asset=wrong.currency)
    if wrong.provider == "heleket":
        assert wrong.amount is None or isinstance(wrong.amount, str)
        return outside.heleket.pay(number, amount=wrong.amount, asset=wrong.currency, status="wrong_amount")
    assert wrong.amount is None or isinstance(wrong.amount, int)
    if wrong.provider == "platega":
        return outside.platega.pay(number, amount=wrong.amount, currency=wrong.currency)
    if wrong.provider == "stripe":
        return outside.stripe.pay(number, amount=wrong.amount, currency=wrong.currency)[0]
    link = invoice.pay_url or ""
    telegram = outside.telegram
    return telegram.event(telegram.pay(1001, link, amount=wrong.amount, currency=wrong.currency or ""))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_another_amount_or_currency_buys_nothing_and_is_not_lost(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        cases = balance = 0
        for charges, wrong in enumerate((wrong for wrong in MISMATCHES if wrong.provider == provider), 1):
            invoice = await here.invoice(provider, await here.order(provider, key=str(charges)))
            event = pay_wrongly(here, wrong, invoice)
            assert result_of(await here.deliver(provider, event)) == wrong.result, wrong
            cases += wrong.result == "case"
            balance += wrong.credited
            assert await here.counts() == (charges, 0, cases), wrong
            assert await here.value("SELECT balance FROM accounts WHERE kind = 'paid'") == balance, wrong
            assert result_of(await here.deliver(provider, event)) == wrong.result, wrong
            assert await here.counts() == (charges, 0, cases), wrong


@pytest.mark.parametrize(("known", "result"), [(True, "balance_credit"), (False, "case")])
async def test_a_payment_that_names_no_order_of_ours_goes_to_its_payer_or_to_a_human(
    database_dsn: str, known: bool, result: str
) -> None:
    async with harness(database_dsn) as here:
        order = await here.order("telegram")
        await here.invoice("telegram", order)
        telegram = here.outside.telegram
        telegram.invoices["elsewhere"] = {
            "payload": "subscription-of-another-bot",
            "currency": "RUB" if known else "XTR",
            "prices": [{"label": "x", "amount": 14900}],
        }
        event = telegram.event(telegram.pay(1001, "elsewhere"))
        assert result_of(await here.deliver("telegram", event)) == result
        assert (await here.counts())[:2] == (1, 0)


async def test_an_unknown_order_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        yookassa = here.outside.yookassa
        tags = ("order:999999", "order:", "order:1; DROP", "", "order:99999999999999999999")
        for number, tag in enumerate(tags, start=1):
            invoice = await here.invoice("yookassa", await here.order("yookassa", key=tag or "none"))
            yookassa.payments[invoice.invoice_id or ""]["metadata"] = {"order": tag}
            assert result_of(await here.deliver("yookassa", yookassa.pay(invoice.invoice_id or ""))) == "case", tag
            assert await here.counts() == (number, 0, number), tag


async def test_somebody_else_who_pays_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("telegram", await here.order("telegram"))
        telegram = here.outside.telegram
        event = telegram.event(telegram.pay(2002, invoice.pay_url or ""))
        assert result_of(await here.deliver("telegram", event)) == "case"
        assert await here.value("SELECT details ->> 'why' FROM cases") == "payer"


async def test_a_charge_repeated_with_another_amount_is_a_case_and_the_first_one_stands(
    database_dsn: str,
) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("telegram", await here.order("telegram"))
        telegram, link = here.outside.telegram, invoice.pay_url or ""
        first = telegram.event(telegram.pay(1001, link, charge="stx1"))
        changed = telegram.event(telegram.pay(1001, link, charge="stx1", amount=1))
        assert result_of(await here.deliver("telegram", first)) == "entitlement"
        assert result_of(await here.deliver("telegram", changed)) == "failed"
        assert await here.counts() == (1, 1, 1)


async def test_a_payment_that_succeeded_but_is_not_shown_so_yet_is_booked_when_it_is(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        yookassa = here.outside.yookassa
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        payment = yookassa.payments[invoice.invoice_id or ""]
        early = yookassa.notification("payment.succeeded", {**payment, "status": "succeeded", "paid": True})
        assert (await here.deliver("yookassa", early)).status_code == 503
        assert await here.counts() == (0, 0, 0)
        yookassa.pay(invoice.invoice_id or "")
        assert result_of(await here.deliver("yookassa", early)) == "entitlement"


@pytest.mark.parametrize("kind", ["payment", "refund"])
async def test_a_success_that_the_provider_does_not_know_yet_is_booked_when_it_does(
    database_dsn: str, kind: str
) -> None:
    async with harness(database_dsn) as here:
        yookassa = here.outside.yookassa
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        event = yookassa.pay(invoice.invoice_id or "")
        things = yookassa.payments
        if kind == "refund":
            await here.deliver("yookassa", event)
            event, things = yookassa.refund(invoice.invoice_id or ""), yookassa.refunds
        kept = dict(things)
        things.clear()
        assert (await here.deliver("yookassa", event)).status_code == 503
        things.update(kept)
        assert result_of(await here.deliver("yookassa", event)) == ("entitlement" if kind == "payment" else "refund")
        assert await here.counts() == ((1, 1, 0) if kind == "payment" else (1, 1, 1))


@pytest.mark.parametrize("provider", ["yookassa", "stripe"])
async def test_money_that_goes_back_at_the_provider_is_a_case(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, provider)
        assert result_of(await here.deliver(provider, event)) == "entitlement"
        if provider == "yookassa":
            back = here.outside.yookassa.refund(next(iter(here.outside.yookassa.payments)))
        else:
            [session] = here.outside.stripe.sessions.values()
            charge: dict[str, object] = {
                "payment_intent": session["payment_intent"],
                "amount_refunded": 161,
                "currency": "usd",
            }
            back = here.outside.stripe.event("charge.refunded", charge)
        assert result_of(await here.deliver(provider, back)) == "refund"
        assert await here.counts() == (1, 1, 1)
        assert await here.value("SELECT customer_id IS NOT NULL FROM cases") is True


async def test_an_invoice_that_lapses_is_closed(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        first = await here.invoice("yookassa", await here.order("yookassa"))
        second = await here.invoice("stripe", await here.order("stripe", key="second"))
        await here.deliver("yookassa", here.outside.yookassa.cancel(first.invoice_id or ""))
        await here.deliver("stripe", here.outside.stripe.expire(second.invoice_id or ""))
        assert await here.value("SELECT string_agg(state, ',') FROM invoices") == "closed,closed"
        assert await here.counts() == (0, 0, 0)
