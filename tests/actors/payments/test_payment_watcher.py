"""What nobody told us of is found by asking; what was stored and not booked is booked; one row's trouble is its own."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from actors.payments.events import EventFailed, LatePayment, ProviderAway
from actors.payments.settings import PaymentSettings, YooKassaSettings
from db.billing.invoices import claim_invoices
from db.billing.provider_events import MAX_ATTEMPTS
from db.work.claims import enlist_claimer
from runtime import Ref, WakeUp
from tests.actors.locks import locked
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn


def schedule(watcher: Ref) -> dict[str, object]:
    own = watcher.address.inspect()["actor"]
    assert isinstance(own, dict)
    return own


async def look(here: Harness, watcher: Ref) -> None:
    """Let the watcher look once more, and wait until it has."""
    with trio.fail_after(15):
        own = schedule(watcher)
        # One that runs now may have looked too early.
        wanted = int(str(own["iterations"])) + (2 if own["running"] else 1)
        watcher.tell(WakeUp())
        while int(str(schedule(watcher)["iterations"])) < wanted:
            await trio.lowlevel.checkpoint()  # the end of an iteration is no event of the system's


async def state_of(here: Harness, table: str = "invoices") -> object:
    return await here.value(f"SELECT string_agg(state, ',' ORDER BY id) FROM {table}")


async def test_a_payment_that_nobody_told_of_is_found_at_every_provider_that_can_be_asked(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        first = await here.invoice("yookassa", await here.order("yookassa", key="1"))
        second = await here.invoice("stripe", await here.order("stripe", key="2"))
        third = await here.invoice("cryptobot", await here.order("cryptobot", key="3"))
        here.outside.yookassa.pay(first.invoice_id or "")
        here.outside.stripe.pay(second.invoice_id or "")
        here.outside.cryptobot.pay(int(third.invoice_id or 0))
        watcher = await here.watcher()
        await look(here, watcher)
        assert await here.counts() == (0, 0, 0)  # too early to ask
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await here.counts() == (3, 3, 0)
        assert await state_of(here) == "paid,paid,paid"
        assert (await here.until_event(LatePayment)).result == "entitlement"


async def test_an_event_that_comes_after_the_watcher_finds_the_payment_booked(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        event = here.outside.yookassa.pay(invoice.invoice_id or "")
        await here.move_clock(seconds=31)
        await look(here, await here.watcher())
        assert (await here.deliver("yookassa", event)).json()["result"] == "entitlement"
        assert await here.counts() == (1, 1, 0)


async def test_an_open_invoice_is_asked_about_again_and_one_that_lapsed_is_closed(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        opened = await here.invoice("cryptobot", await here.order("cryptobot", key="1"))
        lapsed = await here.invoice("yookassa", await here.order("yookassa", key="2"))
        here.outside.yookassa.cancel(lapsed.invoice_id or "")
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await state_of(here) == "open,closed"
        here.outside.cryptobot.pay(int(opened.invoice_id or 0))
        await here.move_clock(minutes=3)
        await look(here, watcher)
        assert await state_of(here) == "paid,closed"


@pytest.mark.parametrize("provider", ["yookassa", "stripe", "cryptobot"])
async def test_an_invoice_unknown_to_its_provider_is_asked_about_and_a_human_is_told(
    database_dsn: str, provider: str
) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice(provider, await here.order(provider))
        outside = here.outside
        shelves: dict[str, dict[Any, Any]] = {
            "yookassa": outside.yookassa.payments,
            "stripe": outside.stripe.sessions,
            "cryptobot": outside.cryptobot.invoices,
        }
        kept = dict(shelves[provider])  # as the account of another key sees it
        shelves[provider].clear()
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert (await state_of(here), await here.counts()) == ("open", (0, 0, 0))
        for hours in (2, 4):
            await here.move_clock(hours=hours)
            await look(here, watcher)
        assert (await state_of(here), await here.counts()) == ("open", (0, 0, 1))
        shelves[provider].update(kept)
        PAY[provider](here, invoice.pay_url or "", 1001)
        await here.move_clock(hours=6)
        await look(here, watcher)
        assert (await state_of(here), await here.counts()) == ("paid", (1, 0, 1))


async def test_an_answer_without_a_list_says_nothing_about_an_invoice(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await here.invoice("cryptobot", await here.order("cryptobot"))
        here.outside.cryptobot.says_nothing = True
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await state_of(here) == "open"
        assert "without a list" in (await here.until_event(ProviderAway)).why


async def test_a_provider_that_is_away_delays_only_its_own_invoices(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        first = await here.invoice("yookassa", await here.order("yookassa", key="1"))
        second = await here.invoice("stripe", await here.order("stripe", key="2"))
        here.outside.yookassa.pay(first.invoice_id or "")
        here.outside.stripe.pay(second.invoice_id or "")
        here.outside.yookassa.troubles.before.extend([503] * 3)
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await state_of(here) == "open,paid"
        assert (await here.until_event(ProviderAway)).provider == "yookassa"
        await here.move_clock(minutes=3)
        await look(here, watcher)
        assert await here.counts() == (2, 2, 0)


async def test_an_invoice_that_was_paid_in_an_unknown_currency_is_a_case_once(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        here.outside.yookassa.pay(invoice.invoice_id or "", currency="KZT")
        watcher = await here.watcher()
        for minutes in (1, 10):
            await here.move_clock(minutes=minutes)
            await look(here, watcher)
        assert await here.counts() == (1, 0, 1)
        assert await here.value("SELECT kind || ' ' || (details->>'stated') FROM cases") == "payment 149.00 KZT"


async def test_an_event_of_a_provider_that_was_switched_off_waits_until_it_is_on_again(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        here.outside.yookassa.troubles.before.extend([500] * 3)
        await here.deliver("yookassa", here.outside.yookassa.pay(invoice.invoice_id or ""))
        settings, here.outside.settings = here.outside.settings, PaymentSettings(yookassa=YooKassaSettings())
        await here.move_clock(minutes=1)
        off = await here.watcher("off")
        await look(here, off)
        assert await state_of(here, "provider_events") == "received"
        assert "is off" in (await here.until_event(ProviderAway)).why
        here.outside.settings = settings
        await here.move_clock(minutes=20)
        await look(here, await here.watcher("on"))
        assert await here.counts() == (1, 1, 0)


async def test_an_event_that_never_becomes_true_ends_as_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        yookassa = here.outside.yookassa
        early = yookassa.notification("payment.succeeded", yookassa.payments[invoice.invoice_id or ""])
        assert (await here.deliver("yookassa", early)).status_code == 503
        watcher = await here.watcher()
        for attempt in range(MAX_ATTEMPTS):
            await here.move_clock(hours=attempt + 1)
            await look(here, watcher)
        assert await state_of(here, "provider_events") == "failed"
        assert (await here.until_event(EventFailed)).provider == "yookassa"
        assert await here.value("SELECT count(*) FROM cases WHERE kind = 'provider_event'") == 1


async def test_two_watchers_ask_about_an_invoice_once(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await here.invoice("yookassa", await here.order("yookassa"))
        await here.move_clock(seconds=31)
        other = await here.run(enlist_claimer, "elsewhere/payment_watcher")
        claimed = await here.run(claim_invoices, other, ["yookassa"], 10, 60.0)
        assert len(claimed) == 1
        here.outside.yookassa.pay(claimed[0].invoice_id or "")
        await look(here, await here.watcher())
        assert await here.counts() == (0, 0, 0)  # claimed by the other one


async def test_without_its_database_the_watcher_waits_and_does_not_crash(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        watcher = await here.watcher(pool="pool.gateway")
        await here.system.stop(here.system.address("pool.gateway").ref)
        await look(here, watcher)
        assert watcher.incarnation == 1
        last = schedule(watcher)["last"]
        assert isinstance(last, dict)
        assert last["note"] == "no database"


async def test_an_order_that_stays_locked_delays_no_other_payment_and_crashes_nobody(
    database_dsn: str,
) -> None:
    async with harness(database_dsn) as here:
        first = await here.invoice("yookassa", await here.order("yookassa", key="1"))
        # Somebody else's: what one customer pays waits for the customer's own row.
        second = await here.invoice("stripe", await here.order("stripe", key="2", telegram_id=1002))
        here.outside.yookassa.pay(first.invoice_id or "")
        here.outside.stripe.pay(second.invoice_id or "")
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        async with locked(here.pool, f"SELECT FROM orders WHERE id = {first.order_id} FOR UPDATE"):
            await look(here, watcher)
            assert await state_of(here) == "open,paid"
        await look(here, watcher)
        assert await state_of(here) == "paid,paid"
        assert await here.counts() == (2, 2, 0)
        assert watcher.incarnation == 1
