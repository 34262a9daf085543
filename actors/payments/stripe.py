"""Stripe Checkout: signed events, in any order and more than once; money is named by its `payment_intent`.

The same money may be told by the session and by the payment intent: both name the same charge, so together they are one
payment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import httpx

from actors.payments.provider import NewInvoice, NotAuthentic, NotYet, Provider, StillOpen, WebhookDelivery
from actors.payments.settings import StripeSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    configured,
    int_field,
    is_valid_signature,
    minor_units,
    object_field,
    optional_object,
    optional_text,
    order_of,
    order_tag,
    provider_refused,
    read_object,
    text_field,
)
from db.billing.invoices import Invoice
from db.billing.payment_facts import Captured, FinalizePurchase, InvoiceClosed, NothingToBook, ProviderFact, Reversed
from runtime.http import new_client

NAME = "stripe"
TOLERANCE_SECONDS = 300
_SIGNATURE = "stripe-signature"
_MOST_SIGNATURES = 16
_PAID = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
_CLOSED = ("checkout.session.expired", "checkout.session.async_payment_failed")


@attrs.frozen
class Stripe(Provider):
    """Card payments through sessions of Stripe Checkout."""

    name = NAME

    settings: StripeSettings
    client: httpx.AsyncClient
    now: Callable[[], float] = time.time
    """The clock that a signature's age is measured with."""

    @classmethod
    def of(cls, settings: StripeSettings) -> Stripe:
        """Return one with an HTTP client of its own, which `aclose` closes."""
        headers = {"authorization": f"Bearer {settings.secret_key.reveal()}"}
        return cls(settings, new_client(settings.url, headers=headers))

    def authenticate(self, delivery: WebhookDelivery) -> str:
        said, signatures = _parts(delivery.headers.get(_SIGNATURE, ""))
        if not said.isascii() or not said.isdigit() or len(said) > 12 or not signatures:
            raise NotAuthentic(NAME, "its Stripe-Signature has no t and v1")
        signed = said.encode() + b"." + delivery.body
        keys = [
            secret.reveal().encode()
            for secret in configured(self.settings.webhook_secret, self.settings.previous_webhook_secret)
        ]
        if not any(is_valid_signature(key, signed, given) for key in keys for given in signatures):
            raise NotAuthentic(NAME, "none of its signatures signs it")
        if abs(self.now() - int(said)) > TOLERANCE_SECONDS:
            raise NotAuthentic(NAME, f"it was signed more than {TOLERANCE_SECONDS} s away from our clock")
        return text_field(read_object(delivery.body), "id")

    async def understand(self, body: bytes) -> ProviderFact:
        event = read_object(body)
        kind, thing = text_field(event, "type"), object_field(object_field(event, "data"), "object")
        if kind in _PAID:
            if optional_text(thing, "payment_status") != "paid":
                return NothingToBook(
                    f"a session whose payment is {optional_text(thing, 'payment_status')[:40] or 'none'}"
                )
            return _session(thing)
        if kind == "payment_intent.succeeded":
            return _intent(thing)
        if kind in _CLOSED:
            return InvoiceClosed(text_field(thing, "id"), kind.rpartition(".")[2])
        if kind == "charge.refunded":
            said = f"{int_field(thing, 'amount_refunded')} {text_field(thing, 'currency').upper()} in the smallest unit"
            return Reversed(_intent_of(thing), "refund", text_field(event, "id"), said)
        if kind == "charge.dispute.created":
            said = f"{int_field(thing, 'amount')} {text_field(thing, 'currency').upper()} in the smallest unit"
            return Reversed(_intent_of(thing), "dispute", text_field(thing, "id"), said)
        return NothingToBook(f"an event of type {kind[:60]}")

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
        return NewInvoice(text_field(session, "id"), text_field(session, "url"))

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        path = f"/v1/checkout/sessions/{invoice.invoice_id}"
        status, session = await call_provider(self.client, NAME, "GET", path, what="show a session", repeat=True)
        if status == httpx.codes.NOT_FOUND:
            raise NotYet("Stripe does not know this session; look at payments.stripe.secret_key_file")
        if status != httpx.codes.OK:
            raise _refused("to show a session", status, session)
        if optional_text(session, "payment_status") == "paid":
            return _session(session)
        return (
            InvoiceClosed(text_field(session, "id"), "expired") if session.get("status") == "expired" else StillOpen()
        )


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
    amount = minor_units(int_field(session, "amount_total"), text_field(session, "currency"))
    named = optional_text(optional_object(session, "metadata") or {}, "order") or optional_text(
        session, "client_reference_id"
    )
    charge = FinalizePurchase(NAME, _intent_of(session), amount, order_of(named), actor=NAME)
    return Captured(charge, text_field(session, "id"))


def _intent(intent: Fields) -> Captured:
    amount = minor_units(int_field(intent, "amount_received"), text_field(intent, "currency"))
    order_id = order_of(optional_text(optional_object(intent, "metadata") or {}, "order"))
    return Captured(FinalizePurchase(NAME, text_field(intent, "id"), amount, order_id, actor=NAME))


def _intent_of(thing: Fields) -> str:
    """The payment intent, which is an object instead of an id if the request asked to expand it."""
    value = thing.get("payment_intent")
    return text_field(value, "id") if isinstance(value, dict) else text_field(thing, "payment_intent")


def _refused(what: str, status: int, answer: Fields) -> Exception:
    why = optional_text(optional_object(answer, "error") or {}, "message")
    return provider_refused(NAME, what, status, why, "payments.stripe")


def _product(invoice: Invoice) -> str:
    return "Balance" if invoice.kind == "topup" else f"{invoice.tariff}, {invoice.days} days"
