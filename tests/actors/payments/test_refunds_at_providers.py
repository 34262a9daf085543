"""Money is given back at the provider once, whatever is lost on the way, and booked when the provider says that it was."""

from __future__ import annotations

from functools import partial

import pytest

from actors.payments.events import RefundMade
from actors.payments.provider import ProviderUnavailable
from actors.payments.refunding import ask_for_refund
from db.billing.provider_refunds import ProviderRefund, claim_refunds, reserve_refund, settle_refund
from db.billing.refunds import refund_charge
from db.errors import BusinessError
from db.money import Money
from db.work.claims import enlist_claimer
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY
from tests.actors.payments.test_orders_of_events import result_of
from tests.actors.payments.test_payment_watcher import look
from tests.actors.payments.test_receipts import SHOP, under_54fz

REFUNDING = ("stripe", "yookassa", "telegram")
IN_PARTS = ("stripe", "yookassa")


async def charged(here: Harness, provider: str) -> str:
    """A paid order's charge."""
    invoice = await here.invoice(provider, await here.order(provider))
    assert result_of(await here.deliver(provider, PAY[provider](here, invoice.pay_url or "", 1001))) == "entitlement"
    return str(await here.value("SELECT charge_id FROM money_in"))


async def reserve(
    here: Harness, provider: str, charge: str, amount: int | None = None, key: str = "k"
) -> ProviderRefund:
    whole = here.providers[provider].refunds == "whole"
    asked = partial(
        reserve_refund,
        amount=None if amount is None else Money(amount),
        only_whole=whole,
        actor="operator",
        idempotency_key=key,
    )
    return await here.run(asked, provider, charge)


async def ask(here: Harness, refund: ProviderRefund) -> ProviderRefund:
    return await here.run(settle_refund, refund, await ask_for_refund(here.providers[refund.provider], refund))


def made(here: Harness, provider: str) -> int:
    """How often the provider gave money back."""
    outside = here.outside
    if provider == "telegram":
        return sum("receiver" in each for each in outside.telegram.transactions)
    return len(outside.stripe.refunds if provider == "stripe" else outside.yookassa.refunds)


def told(here: Harness, provider: str, charge: str) -> Event:
    """The provider's own event about what went back."""
    outside = here.outside
    if provider == "stripe":
        return outside.stripe.tell_refunded(charge)
    if provider == "yookassa":
        return outside.yookassa.notification("refund.succeeded", next(iter(outside.yookassa.refunds.values())))
    return outside.telegram.event(outside.telegram.updates[-1])


@pytest.mark.parametrize("provider", REFUNDING)
async def test_a_charge_goes_back_once_and_the_event_about_it_is_no_case(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, provider)
        refund = await reserve(here, provider, charge)
        done = await ask(here, refund)
        assert (done.state, done.booked, made(here, provider)) == ("done", Money(14900), 1)
        assert await here.value("SELECT sum(amount) FROM refunds") == 14900
        assert await here.value("SELECT state FROM subscriptions") == "revoked"
        again = await reserve(here, provider, charge)
        assert (again.state, again.id) == ("done", done.id)
        assert result_of(await here.deliver(provider, told(here, provider, charge))) == "refund"
        assert (await here.counts())[2] == 0


@pytest.mark.parametrize("lost", ["answer", "process", "event first"])
@pytest.mark.parametrize("provider", REFUNDING)
async def test_a_refund_whose_outcome_is_not_known_is_asked_about_and_not_made_twice(
    database_dsn: str, provider: str, lost: str
) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, provider)
        refund = await reserve(here, provider, charge)
        simulator = here.outside.provider(provider)
        if lost == "answer":
            simulator.troubles.after.extend([500] * (1 if provider == "telegram" else 3))
            simulator.troubles.before.extend([])
            if provider == "telegram":
                await ask_for_refund(here.providers[provider], refund)  # the second try is told that it is done
            else:
                with pytest.raises(ProviderUnavailable):
                    await ask_for_refund(here.providers[provider], refund)
        elif lost == "event first":
            await ask_for_refund(here.providers[provider], refund)  # and the answer never reaches the books
            assert result_of(await here.deliver(provider, told(here, provider, charge))) == "refund"
        if provider != "telegram":
            simulator.keys.clear()  # type: ignore[union-attr]  # as after a day
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await here.value("SELECT state FROM provider_refunds") == "done"
        assert made(here, provider) == 1
        assert await here.value("SELECT count(*) FROM refunds") == 1
        assert (await here.until_event(RefundMade)).state == "done"
        assert (await here.counts())[2] == 0


@pytest.mark.parametrize("provider", IN_PARTS)
async def test_parts_go_back_until_nothing_is_left_and_not_a_cent_more(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, provider)
        for number, part in enumerate((5000, 5000)):
            assert (await ask(here, await reserve(here, provider, charge, part, f"part {number}"))).state == "done"
        with pytest.raises(BusinessError, match=r"49\.00 RUB can be refunded, not 50\.00 RUB; nothing was asked"):
            await reserve(here, provider, charge, 5000, "too much")
        assert (await ask(here, await reserve(here, provider, charge, key="rest"))).booked == Money(4900)
        assert await here.value("SELECT sum(booked_amount) FROM provider_refunds") == 14900
        captured = await here.value("SELECT amount FROM money_in")
        assert await here.value("SELECT sum(amount)::bigint FROM provider_refunds") == captured
        with pytest.raises(BusinessError, match="nothing was asked"):
            await reserve(here, provider, charge, key="more")


async def test_stars_go_back_whole_or_not_at_all(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, "telegram")
        with pytest.raises(BusinessError, match="whole charges only"):
            await reserve(here, "telegram", charge, 5000)
        assert await here.value("SELECT count(*) FROM provider_refunds") == 0


@pytest.mark.parametrize("provider", IN_PARTS)
async def test_a_refund_on_its_way_is_booked_when_it_has_arrived(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, provider)
        outside = here.outside.stripe if provider == "stripe" else here.outside.yookassa
        outside.refund_status = "pending"
        assert (await ask(here, await reserve(here, provider, charge))).state == "pending"
        assert await here.value("SELECT count(*) FROM refunds") == 0
        with pytest.raises(BusinessError, match="on its way"):
            await reserve(here, provider, charge, 100, "another")
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await here.value("SELECT state FROM provider_refunds") == "pending"
        next(iter(outside.refunds.values()))["status"] = "succeeded"
        await here.move_clock(minutes=3)
        await look(here, watcher)
        assert await here.value("SELECT state FROM provider_refunds") == "done"
        assert await here.value("SELECT sum(amount) FROM refunds") == 14900


@pytest.mark.parametrize("provider", IN_PARTS)
async def test_a_refund_that_is_refused_books_nothing_and_may_be_asked_for_again(
    database_dsn: str, provider: str
) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, provider)
        outside = here.outside.stripe if provider == "stripe" else here.outside.yookassa
        outside.refund_status = "failed" if provider == "stripe" else "canceled"
        refund = await ask(here, await reserve(here, provider, charge))
        assert (refund.state, refund.refund_id) == ("refused", None)
        assert await here.value("SELECT count(*) FROM refunds") == 0
        outside.refund_status = "succeeded"
        again = await reserve(here, provider, charge)
        assert (again.id, again.state) == (refund.id, "asking") and again.request_key != refund.request_key
        assert (await ask(here, again)).state == "done"


async def test_a_refund_that_fails_after_it_was_booked_is_a_case_with_the_numbers(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, "stripe")
        await ask(here, await reserve(here, "stripe", charge))
        [refund] = here.outside.stripe.refunds.values()
        failed = here.outside.stripe.tell_refund(refund, "failed")
        assert result_of(await here.deliver("stripe", failed)) == "refund"
        case = "SELECT kind || ' ' || (details->>'booked') || ' ' || (details->>'refunded') FROM cases"
        assert await here.value(case) == "provider_refund_failed 14900 14900"


async def test_a_refund_told_to_have_failed_while_it_was_on_its_way_is_over(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, "stripe")
        here.outside.stripe.refund_status = "pending"
        await ask(here, await reserve(here, "stripe", charge))
        [refund] = here.outside.stripe.refunds.values()
        await here.deliver("stripe", here.outside.stripe.tell_refund(refund, "failed"))
        assert await here.value("SELECT state FROM provider_refunds") == "refused"
        assert (await here.counts())[2] == 0


async def test_what_the_books_refuse_is_refused_before_any_money_moves(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, "stripe")
        by_hand = partial(refund_charge, actor="operator", idempotency_key="by hand")
        await here.run(by_hand, "stripe", charge)
        with pytest.raises(BusinessError, match="nothing was asked"):
            await reserve(here, "stripe", charge)
        with pytest.raises(BusinessError, match="there is no stripe charge"):
            await reserve(here, "stripe", "pi_nobody")
        assert await here.value("SELECT count(*) FROM provider_refunds") == 0
        assert made(here, "stripe") == 0


async def test_what_the_books_refuse_afterwards_is_a_case_with_its_numbers(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        charge = await charged(here, "stripe")
        refund = await reserve(here, "stripe", charge)
        answer = await ask_for_refund(here.providers["stripe"], refund)
        await here.run(partial(refund_charge, actor="operator", idempotency_key="by hand"), "stripe", charge)
        done = await here.run(settle_refund, refund, answer)
        assert (done.state, done.refund_id) == ("done", None)
        assert await here.value("SELECT kind || (details->>'booked') FROM cases") == "provider_refund_unbooked14900"
        assert await here.value("SELECT count(*) FROM refunds") == 1


async def test_a_refund_of_a_customer_with_a_receipt_sends_one_back(database_dsn: str) -> None:
    async with harness(database_dsn, change=under_54fz) as here:
        here.outside.yookassa.is_under_54fz = True
        charge = await charged(here, "yookassa")
        assert (await ask(here, await reserve(here, "yookassa", charge))).state == "done"
        assert here.outside.yookassa.payments[charge]["receipt"]["customer"] == {"email": SHOP}  # type: ignore[index]


async def test_two_watchers_ask_about_a_refund_once(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await reserve(here, "stripe", await charged(here, "stripe"))
        await here.move_clock(seconds=31)
        first = await here.run(enlist_claimer, "here/payment_watcher")
        second = await here.run(enlist_claimer, "elsewhere/payment_watcher")
        assert len(await here.run(claim_refunds, first, ["stripe"], 10, 60.0)) == 1
        assert await here.run(claim_refunds, second, ["stripe"], 10, 60.0) == []
