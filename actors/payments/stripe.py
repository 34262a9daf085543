"""Stripe Checkout: signed events, in any order and more than once; money is named by its `payment_intent`.

The same money may be told by the session and by the payment intent: both name the same charge, so together they are one
payment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import attrs
import httpx

from actors.payments.provider import NewInvoice, NotAuthentic, NotYet, StillOpen, WebhookDelivery, quote_in
from actors.payments.settings import StripeSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    in_use,
    maybe_sub,
    maybe_text,
    minor_units,
    order_of,
    order_tag,
    provider_refused,
    read_object,
    signs,
    sub,
    text,
    whole,
)
from db.billing.invoices import Invoice
from db.billing.orders import Quote
from db.billing.payments import Captured, FinalizePurchase, InvoiceClosed, NothingToBook, ProviderFact, Reversed
from db.billing.provider_events import StoredEvent
from db.money import Money
from runtime.http import new_client

NAME = "stripe"
TOLERANCE_SECONDS = 300
_SIGNATURE = "stripe-signature"
_MOST_SIGNATURES = 16
_PAID = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
_CLOSED = ("checkout.session.expired", "checkout.session.async_payment_failed")


@attrs.frozen
class Stripe:
    """The adapter of Stripe."""

    settings: StripeSettings
    client: httpx.AsyncClient
    now: Callable[[], float] = time.time
    """The clock that a signature's age is measured with."""

    @classmethod
    def of(cls, settings: StripeSettings) -> Stripe:
        """With a client of its own."""
        headers = {"authorization": f"Bearer {settings.secret_key.reveal()}"}
        return cls(settings, new_client(settings.url, headers=headers))

    @property
    def name(self) -> str:
        return NAME

    @property
    def assets(self) -> tuple[str, ...]:
        return (self.settings.asset,)

    @property
    def is_watched(self) -> bool:
        return True

    def quote(self, price: Money) -> Quote:
        return quote_in(price, self.settings.asset, self.settings.rate, "payments.stripe.rate")

    def authenticate(self, delivery: WebhookDelivery) -> str:
        said, signatures = _parts(delivery.headers.get(_SIGNATURE, ""))
        if not said.isascii() or not said.isdigit() or len(said) > 12 or not signatures:
            raise NotAuthentic(NAME, "its Stripe-Signature has no t and v1")
        signed = said.encode() + b"." + delivery.body
        keys = [
            secret.reveal().encode()
            for secret in in_use(self.settings.webhook_secret, self.settings.previous_webhook_secret)
        ]
        if not any(signs(key, signed, given) for key in keys for given in signatures):
            raise NotAuthentic(NAME, "none of its signatures signs it")
        if abs(self.now() - int(said)) > TOLERANCE_SECONDS:
            raise NotAuthentic(NAME, f"it was signed more than {TOLERANCE_SECONDS} s away from our clock")
        return text(read_object(delivery.body), "id")

    async def understand(self, body: bytes) -> ProviderFact:
        event = read_object(body)
        kind, thing = text(event, "type"), sub(sub(event, "data"), "object")
        if kind in _PAID:
            if maybe_text(thing, "payment_status") != "paid":
                return NothingToBook(f"a session whose payment is {maybe_text(thing, 'payment_status')[:40] or 'none'}")
            return _session(thing)
        if kind == "payment_intent.succeeded":
            return _intent(thing)
        if kind in _CLOSED:
            return InvoiceClosed(text(thing, "id"), kind.rpartition(".")[2])
        if kind == "charge.refunded":
            said = f"{whole(thing, 'amount_refunded')} {text(thing, 'currency').upper()} in the smallest unit"
            return Reversed(_intent_of(thing), "refund", text(event, "id"), said)
        if kind == "charge.dispute.created":
            said = f"{whole(thing, 'amount')} {text(thing, 'currency').upper()} in the smallest unit"
            return Reversed(_intent_of(thing), "dispute", text(thing, "id"), said)
        return NothingToBook(f"an event of type {kind[:60]}")

    async def follow_up(self, body: bytes, event: StoredEvent) -> None:
        return

    def judge_within(self, body: bytes) -> float:
        return math.inf

    async def without_verdict(self, body: bytes) -> None:
        return

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        tag = order_tag(invoice.order_id)
        form = {
            "mode": "payment",
            "client_reference_id": tag,
            "metadata[order]": tag,
            "payment_intent_data[metadata][order]": tag,
            "line_items[0][quantity]": "1",
            "line_items[0][price_data][currency]": invoice.amount.currency.lower(),
            "line_items[0][price_data][unit_amount]": str(invoice.amount.amount),
            "line_items[0][price_data][product_data][name]": _product(invoice),
            "success_url": self.settings.success_url,
            "cancel_url": self.settings.cancel_url,
        }
        status, session = await call_provider(
            self.client,
            NAME,
            "POST",
            "/v1/checkout/sessions",
            what="create a session",
            form={name: value for name, value in form.items() if value},
            headers={"idempotency-key": invoice.request_key},
            repeat=True,
        )
        if status != httpx.codes.OK:
            raise _refused("to create a session", status, session)
        return NewInvoice(text(session, "id"), text(session, "url"))

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        path = f"/v1/checkout/sessions/{invoice.invoice_id}"
        status, session = await call_provider(self.client, NAME, "GET", path, what="show a session", repeat=True)
        if status == httpx.codes.NOT_FOUND:
            raise NotYet("Stripe does not know this session; look at payments.stripe.secret_key_file")
        if status != httpx.codes.OK:
            raise _refused("to show a session", status, session)
        if maybe_text(session, "payment_status") == "paid":
            return _session(session)
        return InvoiceClosed(text(session, "id"), "expired") if session.get("status") == "expired" else StillOpen()

    async def aclose(self) -> None:
        await self.client.aclose()


def _parts(header: str) -> tuple[str, list[str]]:
    """The time and the v1 signatures; other schemes are ignored, as Stripe asks."""
    said = ""
    signatures: list[str] = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            said = value
        elif name == "v1" and len(signatures) < _MOST_SIGNATURES:
            signatures.append(value)
    return said, signatures


def _session(session: Fields) -> Captured:
    amount = minor_units(whole(session, "amount_total"), text(session, "currency"))
    named = maybe_text(maybe_sub(session, "metadata") or {}, "order") or maybe_text(session, "client_reference_id")
    charge = FinalizePurchase(NAME, _intent_of(session), amount, order_of(named), actor=NAME)
    return Captured(charge, text(session, "id"))


def _intent(intent: Fields) -> Captured:
    amount = minor_units(whole(intent, "amount_received"), text(intent, "currency"))
    order_id = order_of(maybe_text(maybe_sub(intent, "metadata") or {}, "order"))
    return Captured(FinalizePurchase(NAME, text(intent, "id"), amount, order_id, actor=NAME))


def _intent_of(thing: Fields) -> str:
    """The payment intent, which is an object instead of an id if whoever asked wanted it so."""
    value = thing.get("payment_intent")
    return text(value, "id") if isinstance(value, dict) else text(thing, "payment_intent")


def _refused(what: str, status: int, answer: Fields) -> Exception:
    why = maybe_text(maybe_sub(answer, "error") or {}, "message")
    return provider_refused(NAME, what, status, why, "payments.stripe")


def _product(invoice: Invoice) -> str:
    return "Balance" if invoice.kind == "topup" else f"{invoice.tariff}, {invoice.days} days"
