"""What the providers publish for shops reads our fixtures and our simulators' words, and signs what our gateway believes.

The packages are for these tests alone: nothing that runs imports them.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import aiogram.methods
import aiogram.types
import aiosend.types
import pytest
import stripe
import stripe.checkout
from aiogram.methods import TelegramMethod
from aiosend.webhook.base import WebhookHandler
from pydantic import BaseModel
from yookassa.domain.notification import WebhookNotificationFactory
from yookassa.domain.request import PaymentRequest, RefundRequest
from yookassa.domain.response import PaymentResponse, RefundResponse

from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import CRYPTOBOT_TOKEN, STRIPE_SECRET, Harness, harness
from tests.actors.payments.test_authenticity import FIXTURES, cryptobot, first_order, fixture
from tests.actors.payments.test_every_provider import PAY
from tests.actors.payments.test_orders_of_events import result_of
from tests.actors.payments.test_receipts import under_54fz
from tests.actors.payments.test_refunds_at_providers import ask, charged, reserve

STRIPE_OBJECTS: dict[str, type] = {
    "checkout.session": stripe.checkout.Session,
    "charge": stripe.Charge,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "payment_intent": stripe.PaymentIntent,
    "refund": stripe.Refund,
}


def names(provider: str) -> list[str]:
    return sorted(path.stem for path in FIXTURES.glob(f"{provider}_*.json"))


def lacking(thing: dict[str, Any]) -> list[str]:
    """What Stripe's own type of this object always has, and this one has not."""
    annotations = inspect.get_annotations(STRIPE_OBJECTS[thing["object"]])
    always = [
        name
        for name, kind in annotations.items()
        if not name.startswith("_") and not str(kind).removeprefix("typing.").startswith(("Optional", "ClassVar"))
    ]
    assert len(always) > 5
    return [name for name in always if name not in thing]


def unread(model: object, path: str = "") -> Iterator[str]:
    """Members that a model kept without knowing them."""
    if isinstance(model, BaseModel):
        yield from (f"{path}.{name}" for name in model.model_extra or {})
        for name in model.model_fields_set & set(type(model).model_fields):
            yield from unread(model.__dict__.get(name), f"{path}.{name}")
    elif isinstance(model, Sequence) and not isinstance(model, str):
        for each in model:
            yield from unread(each, path)


async def paid(here: Harness, provider: str) -> Event:
    invoice = await here.invoice(provider, await here.order(provider))
    return PAY[provider](here, invoice.pay_url or "", 1001)


# -- Stripe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("stripe"))
async def test_stripes_own_library_signs_a_fixture_and_the_gateway_believes_it(database_dsn: str, name: str) -> None:
    body = fixture(name)
    event = json.loads(body)
    assert (lacking(event), lacking(event["data"]["object"])) == ([], [])
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), STRIPE_SECRET)
    async with harness(database_dsn) as here:
        await first_order(here, "stripe")
        answer = await here.deliver("stripe", Event(body, {"Stripe-Signature": header}))
        assert (answer.status_code, answer.json()["state"] != "failed") == (200, True)
        stale = stripe.WebhookSignature.generate_signature_header(body.decode(), STRIPE_SECRET, int(time.time()) - 301)
        assert (await here.deliver("stripe", Event(body, {"Stripe-Signature": stale}))).status_code == 401


async def test_stripes_own_library_reads_what_the_simulator_says(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        outside = here.outside.stripe
        intent = await charged(here, "stripe")
        invoice = await here.invoice("stripe", await here.order("stripe", key="held"))
        await ask(here, await reserve(here, "stripe", intent))
        [refund] = outside.refunds.values()
        assert [lacking(session) for session in outside.sessions.values()] == [[], []]
        assert lacking(refund) == []
        told = [
            outside.hold(invoice.invoice_id or ""),
            *outside.pay(invoice.invoice_id or ""),
            outside.dispute(intent, "closed", "lost"),
            outside.tell_refunded(intent),
            outside.tell_refund(refund, "failed"),
        ]
        for event in told:
            read = stripe.Webhook.construct_event(event.body, event.headers["stripe-signature"], STRIPE_SECRET)
            assert lacking(json.loads(event.body)["data"]["object"]) == [], read.type


# -- YooKassa ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("yookassa"))
def test_yookassas_own_library_reads_a_fixture(name: str) -> None:
    told = json.loads(fixture(name))
    read = WebhookNotificationFactory().create(told)
    assert (read.event, read.object.id) == (told["event"], told["object"]["id"])
    assert str(read.object.amount.value) == told["object"]["amount"]["value"]


async def test_yookassas_own_library_reads_the_simulator_and_accepts_what_we_ask_for(database_dsn: str) -> None:
    async with harness(database_dsn, change=under_54fz) as here:
        outside = here.outside.yookassa
        outside.is_under_54fz = True
        charge = await charged(here, "yookassa")
        await ask(here, await reserve(here, "yookassa", charge))
        [payment], [refund] = outside.payments.values(), outside.refunds.values()
        assert PaymentResponse(payment).status == "succeeded"
        assert RefundResponse(refund).payment_id == charge
        for event in (
            outside.notification("payment.succeeded", payment),
            outside.notification("refund.succeeded", refund),
        ):
            assert WebhookNotificationFactory().create(json.loads(event.body)).object.id
        requests = {"payment": PaymentRequest, "refund": RefundRequest}
        assert [kind for kind, _ in outside.asked] == ["payment", "refund"]
        for kind, body in outside.asked:
            request = requests[kind](body)
            request.validate()
            assert dict(request)["receipt"]["items"][0]["vat_code"] == 1


# -- Telegram ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("telegram"))
def test_aiogram_reads_a_fixture_and_knows_every_member_of_it(name: str) -> None:
    assert list(unread(aiogram.types.Update.model_validate(json.loads(fixture(name))))) == []


async def test_aiogram_reads_the_simulator_and_knows_every_call_of_ours(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        invoice = await here.invoice("telegram", await here.order("telegram"))
        link = invoice.pay_url or ""
        checkout = telegram.check_out(1001, link)
        await here.deliver("telegram", telegram.event(checkout))
        await telegram.answer_to(checkout)
        await here.deliver("telegram", telegram.event(telegram.pay(1001, link)))
        telegram.write(1001)
        telegram.block(1001)
        charge = str(await here.value("SELECT charge_id FROM money_in"))
        await ask(here, await reserve(here, "telegram", charge))
        await here.providers["telegram"].read_statement(0)
        assert len(telegram.updates) == 5
        for update in telegram.updates:
            assert list(unread(aiogram.types.Update.model_validate(update))) == []
        statement = aiogram.types.StarTransactions.model_validate({"transactions": telegram.transactions})
        assert list(unread(statement)) == []
        known = {method.__api_method__: method for method in vars(aiogram.methods).values() if _is_method(method)}
        called = {method for method, _ in telegram.calls}
        assert called == {"createInvoiceLink", "answerPreCheckoutQuery", "refundStarPayment", "getStarTransactions"}
        for method, body in telegram.calls:
            assert list(unread(known[method].model_validate(body))) == []


def _is_method(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, TelegramMethod) and thing is not TelegramMethod


# -- Crypto Pay -------------------------------------------------------------------------------------------------------


class Checker(WebhookHandler):
    """The library's own check of a signature, for our app."""

    def __init__(self) -> None:
        super().__init__(None)
        self._token = CRYPTOBOT_TOKEN

    def believes(self, event: Event) -> bool:
        return self._check_signature(event.body, event.headers)


@pytest.mark.parametrize("name", names("cryptobot"))
def test_aiosend_reads_a_fixture_and_knows_every_member_of_it(name: str) -> None:
    read = aiosend.types.Update.model_validate(json.loads(fixture(name)), context={"client": None})
    assert list(unread(read)) == []
    assert Checker().believes(cryptobot(fixture(name)))


async def test_aiosend_believes_and_reads_the_simulator_as_our_gateway_does(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, "cryptobot")
        assert Checker().believes(event)
        assert not Checker().believes(Event(event.body + b" ", event.headers))
        read = aiosend.types.Update.model_validate(json.loads(event.body), context={"client": None})
        assert list(unread(read)) == []
        assert result_of(await here.deliver("cryptobot", event)) == "entitlement"
