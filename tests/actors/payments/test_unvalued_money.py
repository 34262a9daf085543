"""Money that came in an asset or an amount that we cannot hold is kept in the provider's words, with a case; never lost."""

from __future__ import annotations

import json

import pytest

from db.billing.cases import credit_case, find_case
from db.errors import BusinessError
from db.money import Money
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY


async def paid_otherwise(here: Harness, provider: str) -> Event:
    """An order of that provider, paid in what nobody quoted."""
    invoice = await here.invoice(provider, await here.order(provider))
    outside, link = here.outside, invoice.pay_url or ""
    match provider:
        case "telegram":
            return outside.telegram.event(outside.telegram.pay(1001, link, currency="KZT", amount=76_00))
        case "yookassa":
            return outside.yookassa.pay(invoice.invoice_id or "", currency="KZT", value="76.00")
        case "cryptobot":
            return outside.cryptobot.pay(int(invoice.invoice_id or 0), asset="GRAM", amount="76.00")
        case "platega":
            return outside.platega.pay(invoice.invoice_id or "", currency="KZT", amount=76)
        case "heleket":
            return outside.heleket.pay(invoice.invoice_id or "", asset="GRAM", amount="76.00")
    return outside.stripe.pay(invoice.invoice_id or "", currency="kzt", amount=76_00)[0]


@pytest.mark.parametrize("provider", PAY)
async def test_an_unknown_asset_is_a_case_that_keeps_the_money_in(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid_otherwise(here, provider)
        for _ in range(2):
            assert (await here.deliver(provider, event)).json() == {"state": "processed", "result": "case"}
        assert await here.counts() == (1, 0, 1)
        stated = str(await here.value("SELECT stated FROM money_in WHERE asset = 'UNVALUED' AND booked_amount = 0"))
        assert stated.startswith("76") and stated.endswith(("KZT", "GRAM"))
        case = await here.run(find_case, 1)
        assert (case.stated, case.details["stated"], case.suspended) == (stated, stated, Money(0))
        with pytest.raises(BusinessError, match=f"value of {stated} in roubles is not known"):
            await here.run(lambda tx: credit_case(tx, 1, 1001, actor="operator"))
        await here.run(lambda tx: credit_case(tx, 1, 1001, actor="operator", amount=Money(14900)))
        assert await here.value("SELECT state FROM orders") == "pending"


async def test_another_number_of_an_unknown_asset_under_one_charge_is_a_conflict(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid_otherwise(here, "cryptobot")
        await here.deliver("cryptobot", event)
        update = json.loads(event.body)
        update["payload"]["amount"] = "760.00"
        again = await here.deliver("cryptobot", here.outside.cryptobot.update(update["payload"]))
        assert again.json()["state"] == "failed"
        assert await here.value("SELECT count(*) FROM money_in") == 1


async def test_a_part_of_a_smallest_unit_is_kept_in_words(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("cryptobot", await here.order("cryptobot"))
        paid = here.outside.cryptobot.pay(int(invoice.invoice_id or 0), asset="ETH", amount="0.000496666666666667")
        assert (await here.deliver("cryptobot", paid)).json()["result"] == "case"
        assert await here.value("SELECT stated FROM money_in") == "0.000496666666666667 ETH"


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "many", "1" * 500])
async def test_what_is_no_amount_is_no_money(database_dsn: str, amount: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("cryptobot", await here.order("cryptobot"))
        paid = here.outside.cryptobot.pay(int(invoice.invoice_id or 0), amount=amount)
        assert (await here.deliver("cryptobot", paid)).json()["state"] == "failed"
        assert await here.counts() == (0, 0, 1)
