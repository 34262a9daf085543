"""What no update told of stands in Telegram's own list of Stars: it is read, and is the same payment as the update's."""

from __future__ import annotations

import pytest
from httpx import codes

from actors.payments.events import LatePayment, ProviderAway
from db.billing.provider_events import OVERLAP
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_orders_of_events import result_of
from tests.actors.payments.test_payment_watcher import look

PAGE = 100


async def pay_untold(here: Harness, key: str = "click") -> object:
    """An order that is paid, and of which Telegram tells nobody; the update that got lost."""
    invoice = await here.invoice("telegram", await here.order("telegram", key=key))
    return here.outside.telegram.pay(1001, invoice.pay_url or "")


async def test_a_payment_that_no_update_told_of_is_found_at_the_start(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        update = await pay_untold(here)
        await look(here, await here.watcher())
        assert await here.counts() == (1, 1, 0)
        assert (await here.until_event(LatePayment)).result == "entitlement"
        assert await here.value("SELECT state FROM invoices") == "paid"
        assert isinstance(update, dict)
        assert result_of(await here.deliver("telegram", here.outside.telegram.event(update))) == "entitlement"
        assert await here.counts() == (1, 1, 0)


async def test_what_was_told_and_what_was_read_is_one_payment(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        update = await pay_untold(here)
        assert isinstance(update, dict)
        await here.deliver("telegram", here.outside.telegram.event(update))
        for name in ("first", "second"):
            await look(here, await here.watcher(name))
        assert await here.counts() == (1, 1, 0)
        assert not [event for event in here.events if isinstance(event, LatePayment)]


async def test_long_statements_are_read_page_by_page_and_from_where_they_were_left(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        gift = {"id": "gift", "amount": 5, "date": 1, "source": {"type": "user", "transaction_type": "gift_purchase"}}
        telegram.transactions += [{**gift, "id": f"gift{number}"} for number in range(2 * PAGE + 7)]
        await pay_untold(here)
        await look(here, await here.watcher("first"))
        assert await here.counts() == (1, 1, 0)
        assert await here.value("SELECT position FROM provider_statements") == 2 * PAGE + 8
        telegram.transactions[: 2 * PAGE + 8 - OVERLAP] = [{"id": "old", "amount": "unreadable"}] * (
            2 * PAGE + 8 - OVERLAP
        )
        await pay_untold(here, "another")
        await look(here, await here.watcher("second"))
        assert await here.counts() == (2, 2, 0)


async def test_a_charge_that_is_listed_with_another_amount_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        update = await pay_untold(here)
        here.outside.telegram.transactions *= 2
        here.outside.telegram.transactions[1] = {**here.outside.telegram.transactions[1], "amount": 1}
        await look(here, await here.watcher())
        assert await here.counts() == (1, 1, 1)
        assert isinstance(update, dict)
        assert result_of(await here.deliver("telegram", here.outside.telegram.event(update))) == "entitlement"


async def test_stars_that_went_back_untold_are_a_case_once(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await pay_untold(here)
        [charge] = here.outside.telegram.charges
        update = here.outside.telegram.give_back(charge)
        await look(here, await here.watcher("first"))
        await look(here, await here.watcher("second"))
        assert result_of(await here.deliver("telegram", here.outside.telegram.event(update))) == "refund"
        assert await here.counts() == (1, 1, 1)
        assert await here.value("SELECT kind FROM cases") == "provider_refund"


async def test_an_entry_that_cannot_be_read_is_a_case_and_holds_up_no_other(
    database_dsn: str,
) -> None:
    async with harness(database_dsn) as here:
        update = await pay_untold(here)
        assert isinstance(update, dict)
        await here.deliver("telegram", here.outside.telegram.event(update))
        here.outside.telegram.transactions[0]["id"] = "x" * 300
        await pay_untold(here, "another")
        await look(here, await here.watcher())
        assert await here.counts() == (2, 2, 1)
        assert await here.value("SELECT kind || ' ' || subject FROM cases") == "provider_statement telegram:entry 0"


@pytest.mark.parametrize("status", [codes.INTERNAL_SERVER_ERROR, codes.UNAUTHORIZED])
async def test_a_telegram_that_is_away_is_read_at_its_next_turn(database_dsn: str, status: int) -> None:
    async with harness(database_dsn) as here:
        await pay_untold(here)
        here.outside.telegram.troubles.before.extend([status] * 3)
        await look(here, await here.watcher("first"))
        assert (await here.until_event(ProviderAway)).provider == "telegram"
        assert await here.counts() == (0, 0, 0)
        here.outside.telegram.troubles.before.clear()
        await look(here, await here.watcher("second"))
        assert await here.counts() == (1, 1, 0)
