"""Who may say that money came: each provider's own proof, on the documentation's own bodies; anything else leaves no trace.

The signatures are made here with `hashlib` alone, from the documentation, by neither the adapters nor the simulators.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path

import attrs
import pytest

from actors.payments.events import DeliveryRefused
from actors.payments.settings import PaymentSettings
from actors.payments.stripe import TOLERANCE_SECONDS
from db.billing.orders import Quote, open_order
from db.money import Money
from db.tx import Tx
from runtime.config import Secret
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import CRYPTOBOT_TOKEN, STRIPE_SECRET, WEBHOOK_SECRET, Harness, harness

FIXTURES = Path(__file__).parent / "fixtures"
OLD = "the-secret-before"


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.json").read_bytes()


def telegram(body: bytes, secret: str = WEBHOOK_SECRET) -> Event:
    return Event(body, {"X-Telegram-Bot-Api-Secret-Token": secret})


def cryptobot(body: bytes, token: str = CRYPTOBOT_TOKEN) -> Event:
    key = hashlib.sha256(token.encode()).digest()
    return Event(body, {"crypto-pay-api-signature": hmac.new(key, body, hashlib.sha256).hexdigest()})


def stripe(body: bytes, secret: str = STRIPE_SECRET, *, age: int = 0) -> Event:
    moment = int(time.time()) - age
    signature = hmac.new(secret.encode(), b"%d.%s" % (moment, body), hashlib.sha256).hexdigest()
    return Event(body, {"Stripe-Signature": f"t={moment},v1={signature}"})


def yookassa(body: bytes) -> Event:
    return Event(body, {})


def both(settings: PaymentSettings) -> PaymentSettings:
    """Every secret has a predecessor that is still accepted."""
    return attrs.evolve(
        settings,
        telegram=attrs.evolve(settings.telegram, previous_webhook_secret=Secret(OLD)),
        cryptobot=attrs.evolve(settings.cryptobot, previous_token=Secret(OLD)),
        stripe=attrs.evolve(settings.stripe, previous_webhook_secret=Secret(OLD)),
    )


async def first_order(here: Harness, provider: str) -> None:
    """Order number 1, which the fixtures pay."""
    order = await here.order(provider)
    assert order.id == 1
    if provider == "yookassa":
        payment = json.loads(fixture("yookassa_payment_succeeded"))["object"]
        here.outside.yookassa.payments[payment["id"]] = payment


GOOD = {
    "telegram_successful_payment": ("telegram", telegram),
    "cryptobot_invoice_paid": ("cryptobot", cryptobot),
    "yookassa_payment_succeeded": ("yookassa", yookassa),
    "stripe_payment_intent_succeeded": ("stripe", stripe),
    "stripe_checkout_session_completed": ("stripe", stripe),
}


@pytest.mark.parametrize("name", GOOD)
async def test_the_documented_event_pays_its_order(database_dsn: str, name: str) -> None:
    provider, sign = GOOD[name]
    async with harness(database_dsn) as here:
        await first_order(here, provider)
        answer = await here.deliver(provider, sign(fixture(name)))
        assert answer.json() == {"state": "processed", "result": "entitlement"}
        assert await here.value("SELECT convert_from(body, 'UTF8') FROM provider_events") == fixture(name).decode()


PAID = fixture("stripe_payment_intent_succeeded")
UPDATE = fixture("telegram_successful_payment")
INVOICE = fixture("cryptobot_invoice_paid")
BAD = {
    "telegram: no secret": ("telegram", Event(UPDATE, {}), 401),
    "telegram: an empty secret": ("telegram", telegram(UPDATE, ""), 401),
    "telegram: another secret": ("telegram", telegram(UPDATE, "a-secret_of-Telegra"), 401),
    "telegram: a secret that is no ASCII": ("telegram", telegram(UPDATE, "\u00e9"), 401),
    "cryptobot: no signature": ("cryptobot", Event(INVOICE, {}), 401),
    "cryptobot: another token": ("cryptobot", cryptobot(INVOICE, "12345:another"), 401),
    "cryptobot: the token itself as the key": (
        "cryptobot",
        Event(
            INVOICE,
            {"crypto-pay-api-signature": hmac.new(CRYPTOBOT_TOKEN.encode(), INVOICE, hashlib.sha256).hexdigest()},
        ),
        401,
    ),
    "cryptobot: the same JSON in other bytes": (
        "cryptobot",
        attrs.evolve(cryptobot(INVOICE), body=json.dumps(json.loads(INVOICE)).encode()),
        401,
    ),
    "stripe: no signature": ("stripe", Event(PAID, {}), 401),
    "stripe: another secret": ("stripe", stripe(PAID, "whsec_another"), 401),
    "stripe: too old": ("stripe", stripe(PAID, age=TOLERANCE_SECONDS + 5), 401),
    "stripe: from the future": ("stripe", stripe(PAID, age=-TOLERANCE_SECONDS - 900), 401),
    "stripe: another time than was signed": (
        "stripe",
        Event(PAID, {"stripe-signature": stripe(PAID, age=9).headers["Stripe-Signature"].replace("t=1", "t=2")}),
        401,
    ),
    "stripe: another body": ("stripe", attrs.evolve(stripe(PAID), body=PAID.replace(b"161", b"999")), 401),
    "stripe: only the scheme of tests": (
        "stripe",
        Event(PAID, {"stripe-signature": stripe(PAID).headers["Stripe-Signature"].replace("v1=", "v0=")}),
        401,
    ),
    "stripe: no time": ("stripe", Event(PAID, {"stripe-signature": "v1=00"}), 401),
    "stripe: a time that is none": ("stripe", Event(PAID, {"stripe-signature": "t=\u00b2,v1=00"}), 401),
}


@pytest.mark.parametrize("provider", ["telegram", "cryptobot", "stripe"])
async def test_what_is_not_authentic_is_refused_and_leaves_no_trace(database_dsn: str, provider: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, provider)
        for name, (whose, event, status) in BAD.items():
            if whose != provider:
                continue
            answer = await here.deliver(provider, event)
            assert answer.status_code == status, name
            assert await here.value("SELECT count(*) FROM provider_events") == 0, name
            assert await here.counts() == (0, 0, 0), name
        told = [event for event in here.events if isinstance(event, DeliveryRefused)]
        assert len(told) == 1, "one line a minute and source, however many come"
        assert told[0].provider == provider and told[0].left_out == 0


async def test_a_notification_from_elsewhere_is_refused_and_nobody_is_asked_about_it(database_dsn: str) -> None:
    def elsewhere(settings: PaymentSettings) -> PaymentSettings:
        return attrs.evolve(settings, yookassa=attrs.evolve(settings.yookassa, networks=("185.71.76.0/27",)))

    async with harness(database_dsn, change=elsewhere) as here:
        await first_order(here, "yookassa")
        event = yookassa(fixture("yookassa_payment_succeeded"))
        assert (await here.deliver("yookassa", event)).status_code == 403
        pretended = attrs.evolve(event, headers={"x-forwarded-for": "185.71.76.1"})
        assert (await here.deliver("yookassa", pretended)).status_code == 403
        assert await here.value("SELECT count(*) FROM provider_events") == 0


async def test_what_a_notification_says_counts_for_nothing(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        lie = json.loads(fixture("yookassa_payment_succeeded"))
        lie["object"].update(id=invoice.invoice_id, amount={"value": "999999.00", "currency": "RUB"})
        here.outside.yookassa.pay(invoice.invoice_id or "", value="149.00")
        assert (await here.deliver("yookassa", yookassa(json.dumps(lie).encode()))).json()["result"] == "entitlement"
        assert await here.value("SELECT amount FROM money_in") == 14900
        lie["object"]["id"] = "22d6d597-000f-5000-9000-00000000dead"
        assert (await here.deliver("yookassa", yookassa(json.dumps(lie).encode()))).status_code == 503
        assert (await here.counts())[:2] == (1, 1)


async def test_the_id_in_a_notification_cannot_lead_elsewhere(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        for identifier in ("../../v3/me", "a/b", "a?b=c", "a%2Fb", "", "é", "x" * 65, 5):
            body = json.dumps({"type": "notification", "event": "payment.succeeded", "object": {"id": identifier}})
            assert (await here.deliver("yookassa", yookassa(body.encode()))).status_code == 400, identifier
        assert await here.value("SELECT count(*) FROM provider_events") == 0


@pytest.mark.parametrize(
    "name", ["telegram_successful_payment", "cryptobot_invoice_paid", "stripe_payment_intent_succeeded"]
)
async def test_during_a_rotation_the_secret_before_is_accepted_and_after_it_no_more(
    database_dsn: str, name: str
) -> None:
    provider = name.partition("_")[0]
    old = {"telegram": telegram, "cryptobot": cryptobot, "stripe": stripe}[provider](fixture(name), OLD)
    async with harness(database_dsn) as here:
        await first_order(here, provider)
        assert (await here.deliver(provider, old)).status_code == 401
    async with harness(database_dsn, change=both) as here:
        assert (await here.deliver(provider, old)).json()["result"] == "entitlement"


async def test_any_one_of_several_signatures_of_stripe_is_enough(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await first_order(here, "stripe")
        here.outside.stripe.webhook_secrets = ["whsec_that_we_do_not_know_yet", STRIPE_SECRET]
        moment = int(time.time())
        header = here.outside.stripe.signature(PAID, moment)
        assert header.count("v1=") == 2
        assert (await here.deliver("stripe", Event(PAID, {"stripe-signature": header}))).status_code == 200


async def test_an_invoice_in_a_fiat_currency_counts_as_the_asset_that_was_paid(database_dsn: str) -> None:
    async with harness(database_dsn) as here:

        async def order(tx: Tx) -> int:
            quote = Quote(Money.parse("0.274", "TON"), here.providers["yookassa"].quote(Money(1)).rate)
            return (await open_order(tx, 1001, "basic", 30, idempotency_key="ton", quote=quote)).id

        await here.order("yookassa", key="one that makes the customer")
        number = await here.run(order)
        body = fixture("cryptobot_fiat_invoice_paid").replace(b"order:1", b"order:%d" % number)
        assert (await here.deliver("cryptobot", cryptobot(body))).json()["result"] == "entitlement"
        assert await here.value("SELECT amount || asset FROM money_in") == "274000000TON"


async def test_an_authentic_body_without_an_id_is_400_and_not_stored(database_dsn: str) -> None:
    bodies = (b"", b"[]", b"null", b"{", b'{"update_id": "1"}', b"\xff\xfe", b"[" * 100_000, b'{"update_id": 1.5}')
    async with harness(database_dsn) as here:
        for body in bodies:
            assert (await here.deliver("telegram", telegram(body))).status_code == 400, body[:20]
            assert (await here.deliver("stripe", stripe(body))).status_code == 400, body[:20]
            assert (await here.deliver("cryptobot", cryptobot(body))).status_code == 400, body[:20]
            assert (await here.deliver("yookassa", yookassa(body))).status_code == 400, body[:20]
        assert await here.value("SELECT count(*) FROM provider_events") == 0
