"""Disputes, refunds that fail and money that is held: each has its case with the numbers, in whatever order it is told."""

from __future__ import annotations

from itertools import permutations

import pytest

from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY
from tests.actors.payments.test_orders_of_events import result_of
from tests.actors.payments.test_payment_watcher import look

CASES = "SELECT string_agg(kind || ' ' || state, ', ' ORDER BY kind) FROM cases"


async def paid_at_stripe(here: Harness) -> str:
    """An order that was paid; returns the payment intent."""
    invoice = await here.invoice("stripe", await here.order("stripe"))
    event = PAY["stripe"](here, invoice.pay_url or "", 1001)
    assert result_of(await here.deliver("stripe", event)) == "entitlement"
    return str(here.outside.stripe.sessions[invoice.invoice_id or ""]["payment_intent"])


def dispute(here: Harness, intent: str, end: str) -> list[Event]:
    """All that is told of a dispute that ends so."""
    stripe = here.outside.stripe
    told = [stripe.dispute(intent, "created"), stripe.dispute(intent, "funds_withdrawn")]
    closed = stripe.dispute(intent, "closed", end)
    return [*told, closed] if end == "lost" else [*told, stripe.dispute(intent, "funds_reinstated"), closed]


@pytest.mark.parametrize(
    ("end", "left"),
    [
        ("won", "provider_dispute closed"),
        ("warning_closed", "provider_dispute closed"),
        ("lost", "provider_dispute closed, provider_dispute_lost open"),
    ],
)
async def test_a_dispute_ends_in_the_same_cases_in_whatever_order_it_is_told(
    database_dsn: str, end: str, left: str
) -> None:
    async with harness(database_dsn) as here:
        intent = await paid_at_stripe(here)
        events = dispute(here, intent, end)
        for event in [*events, *events]:
            assert result_of(await here.deliver("stripe", event)) == "dispute"
        assert await here.value(CASES) == left
        assert (await here.counts())[:2] == (1, 1), "the books are changed by a human"


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_a_lost_dispute_keeps_its_numbers_in_every_order(database_dsn: str, order: tuple[int, ...]) -> None:
    async with harness(database_dsn) as here:
        intent = await paid_at_stripe(here)
        events = dispute(here, intent, "lost")
        for number in order:
            assert result_of(await here.deliver("stripe", events[number])) == "dispute"
        assert await here.value(CASES) == "provider_dispute closed, provider_dispute_lost open"
        details = "SELECT details->>'{}' FROM cases WHERE kind = 'provider_dispute_lost' AND customer_id IS NOT NULL"
        assert await here.value(details.format("booked")) == "14900"
        assert await here.value(details.format("refunded")) == "0"
        assert await here.value(details.format("access_until"))
        assert f"--charge {intent} --chargeback" in str(await here.value(details.format("advice")))
        told = "SELECT string_agg(details->>'stage', ' ' ORDER BY details->>'stage') FROM audit WHERE action = 'provider_dispute'"
        assert await here.value(told) == "lost told withdrawn"


@pytest.mark.parametrize(("status", "kind"), [("failed", "failed"), ("canceled", "cancelled")])
async def test_a_refund_that_does_not_arrive_is_a_case(database_dsn: str, status: str, kind: str) -> None:
    async with harness(database_dsn) as here:
        intent = await paid_at_stripe(here)
        refund: dict[str, object] = {
            "id": "re_elsewhere", "object": "refund", "amount": 161, "currency": "usd", "payment_intent": intent,
            "metadata": {}, "status": "succeeded",
        }  # fmt: skip
        fine = here.outside.stripe.tell_refund(dict(refund), "succeeded")
        assert result_of(await here.deliver("stripe", fine)) == "nothing"
        told = here.outside.stripe.tell_refund(refund, status)
        assert result_of(await here.deliver("stripe", told)) == "refund"
        assert await here.value(CASES) == f"provider_refund_{kind} open"


async def test_a_refund_that_yookassa_cancelled_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        await here.deliver("yookassa", here.outside.yookassa.pay(invoice.invoice_id or ""))
        event = here.outside.yookassa.refund(invoice.invoice_id or "")
        next(iter(here.outside.yookassa.refunds.values()))["status"] = "canceled"
        assert result_of(await here.deliver("yookassa", event)) == "refund"
        assert await here.value(CASES) == "provider_refund_cancelled open"


@pytest.mark.parametrize("provider", ["stripe", "yookassa"])
async def test_money_that_is_held_is_a_case_until_it_is_captured(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice(provider, await here.order(provider))
        number = invoice.invoice_id or ""
        outside = here.outside
        held = outside.stripe.hold(number) if provider == "stripe" else outside.yookassa.hold(number)
        for _ in range(2):
            assert result_of(await here.deliver(provider, held)) == "hold"
        assert await here.value(CASES) == "provider_hold open"
        assert (await here.counts())[:2] == (0, 0)
        if provider == "yookassa":
            assert result_of(await here.deliver(provider, outside.yookassa.pay(number))) == "entitlement"
            assert await here.value(CASES) == "provider_hold closed"


async def test_money_that_was_held_and_let_go_has_no_case_any_more(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        await here.deliver("yookassa", here.outside.yookassa.hold(invoice.invoice_id or ""))
        event = here.outside.yookassa.cancel(invoice.invoice_id or "")
        assert result_of(await here.deliver("yookassa", event)) == "invoice_closed"
        assert await here.value(CASES) == "provider_hold closed"


@pytest.mark.parametrize("found_by", ["event", "watcher"])
async def test_a_part_that_was_captured_is_credited_as_the_part_that_it_is(database_dsn: str, found_by: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("stripe", await here.order("stripe"))
        _, intent = here.outside.stripe.pay(invoice.invoice_id or "", captured=100)
        if found_by == "event":
            assert result_of(await here.deliver("stripe", intent)) == "balance_credit"
        else:
            watcher = await here.watcher()
            await here.move_clock(seconds=31)
            await look(here, watcher)
        assert await here.value("SELECT amount || asset || booked_amount FROM money_in") == "100USD9310"
