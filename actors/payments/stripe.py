"""Stripe Checkout: signed events, in any order and more than once; money is named by its `payment_intent`.

The same money may be told by the session and by the payment intent: both name the same charge, so together they are one
payment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import httpx

from actors.payments.provider import (
    NewInvoice,
    NotAuthentic,
    NotYet,
    Provider,
    StillOpen,
    WebhookDelivery,
)
from actors.payments.settings import StripeSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    came_in_minor_units,
    configured,
    event_name,
    int_field,
    is_valid_signature,
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
from db.billing.payment_facts import (
    Captured,
    FinalizePurchase,
    Held,
    InvoiceClosed,
    NothingToBook,
    ProviderFact,
    ReversalStage,
    Reversed,
)
from db.billing.provider_refunds import ProviderRefund, RefundAnswer
from runtime.http import new_client

NAME = "stripe"
TOLERANCE_SECONDS = 300
_OUR_FAULT = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_SIGNATURE = "stripe-signature"
_MOST_SIGNATURES = 16
_PAID = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
_REFUND_UPDATES = ("refund.updated", "refund.failed", "charge.refund.updated")
_DISPUTE_STAGES: dict[str, ReversalStage] = {
    "charge.dispute.created": "told",
    "charge.dispute.funds_withdrawn": "withdrawn",
    "charge.dispute.funds_reinstated": "reinstated",
}
_CLOSED = ("checkout.session.expired", "checkout.session.async_payment_failed")


@attrs.frozen
class Stripe(Provider):
    """Card payments through sessions of Stripe Checkout."""

    name = NAME
    shortest_page = 1800.0
    refunds = "parts"

    settings: StripeSettings
    client: httpx.AsyncClient
    now: Callable[[], float] = time.time
    """The clock that a signature's age is measured with."""

    @classmethod
    def open(cls, settings: StripeSettings) -> Stripe | None:
        if not (settings.secret_key or settings.webhook_secret):
            return None
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
        return event_name(read_object(delivery.body), "id")

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
        if kind == "payment_intent.amount_capturable_updated":
            return _held(thing)
        if kind == "charge.refunded":
            refunded = came_in_minor_units(int_field(thing, "amount_refunded"), text_field(thing, "currency"))
            said = _said(thing, "amount_refunded")
            return Reversed(_intent_of(thing), "refund", text_field(event, "id"), said, in_all=refunded.amount)
        if kind in _REFUND_UPDATES:
            return _refund_update(thing)
        if kind.startswith("charge.dispute."):
            return _dispute(kind, thing)
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
            "expires_at": str(invoice.page_ends),
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
        # What was captured is in the payment: a part of it, where somebody captured no more.
        expand = {"expand[]": "payment_intent"}
        status, session = await call_provider(
            self.client, NAME, "GET", path, what="show a session", params=expand, repeat=True
        )
        if status == httpx.codes.NOT_FOUND:
            raise NotYet("Stripe does not know this session; look at payments.stripe.secret_key_file")
        if status != httpx.codes.OK:
            raise _refused("to show a session", status, session)
        if optional_text(session, "payment_status") == "paid":
            return _session(session)
        return (
            InvoiceClosed(text_field(session, "id"), "expired") if session.get("status") == "expired" else StillOpen()
        )

    async def refund(self, refund: ProviderRefund) -> RefundAnswer:
        """Its keys are forgotten after a day, so a refund that may have been asked for is looked for first."""
        if refund.reference:
            return _answer(await self._show_refund(refund.reference))
        if refund.asked_before:
            for made in await self._refunds_of(refund.charge_id):
                if optional_text(optional_object(made, "metadata") or {}, "request") == refund.request_key:
                    return _answer(made)
        form = {
            "payment_intent": refund.charge_id,
            "amount": str(refund.amount.amount),
            "metadata[request]": refund.request_key,
        }
        status, made = await call_provider(
            self.client,
            NAME,
            "POST",
            "/v1/refunds",
            what="refund a payment",
            form=form,
            headers={"idempotency-key": refund.request_key},
            repeat=True,
        )
        if status in _OUR_FAULT:
            raise _refused("to refund a payment", status, made)
        if status != httpx.codes.OK:
            return RefundAnswer("refused", "", optional_text(optional_object(made, "error") or {}, "message"))
        return _answer(made)

    async def _show_refund(self, reference: str) -> Fields:
        status, made = await call_provider(
            self.client, NAME, "GET", f"/v1/refunds/{reference}", what="show a refund", repeat=True
        )
        if status != httpx.codes.OK:
            raise _refused("to show a refund", status, made)
        return made

    async def _refunds_of(self, charge_id: str) -> list[Fields]:
        params = {"payment_intent": charge_id, "limit": "100"}
        status, page = await call_provider(
            self.client, NAME, "GET", "/v1/refunds", what="list refunds", params=params, repeat=True
        )
        found = page.get("data")
        if status != httpx.codes.OK or not isinstance(found, list):
            raise _refused("to list refunds", status, page)
        return [each for each in found if isinstance(each, dict)]


def _answer(refund: Fields) -> RefundAnswer:
    status, reference = text_field(refund, "status"), text_field(refund, "id")
    if status == "succeeded":
        return RefundAnswer("done", reference)
    if status in ("failed", "canceled"):
        return RefundAnswer("refused", reference, optional_text(refund, "failure_reason") or status)
    return RefundAnswer("pending", reference)


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
    intent = session.get("payment_intent")
    shown, name = (intent, "amount_received") if isinstance(intent, dict) else (session, "amount_total")
    came = came_in_minor_units(int_field(shown, name), text_field(shown, "currency"))
    named = optional_text(optional_object(session, "metadata") or {}, "order") or optional_text(
        session, "client_reference_id"
    )
    charge = FinalizePurchase(NAME, _intent_of(session), came.amount, order_of(named), actor=NAME, stated=came.stated)
    return Captured(charge, text_field(session, "id"))


def _intent(intent: Fields) -> Captured:
    came = came_in_minor_units(int_field(intent, "amount_received"), text_field(intent, "currency"))
    order_id = order_of(optional_text(optional_object(intent, "metadata") or {}, "order"))
    charge = FinalizePurchase(NAME, text_field(intent, "id"), came.amount, order_id, actor=NAME, stated=came.stated)
    return Captured(charge)


def _intent_of(thing: Fields) -> str:
    """The payment intent, which is an object instead of an id if the request asked to expand it."""
    value = thing.get("payment_intent")
    return text_field(value, "id") if isinstance(value, dict) else text_field(thing, "payment_intent")


def _held(intent: Fields) -> ProviderFact:
    if optional_text(intent, "status") != "requires_capture":
        return NothingToBook(f"a payment that is {optional_text(intent, 'status')[:40] or 'unknown'}")
    order_id = order_of(optional_text(optional_object(intent, "metadata") or {}, "order"))
    return Held(text_field(intent, "id"), order_id, _said(intent, "amount_capturable"), "")


def _refund_update(refund: Fields) -> ProviderFact:
    """What was refunded is told by `charge.refunded`; here it is of interest when it was not, after all."""
    stages: dict[str, ReversalStage] = {"failed": "failed", "canceled": "cancelled"}
    status = optional_text(refund, "status")
    if status not in stages:
        return NothingToBook(f"a refund that is {status[:40] or 'unknown'}")
    key = optional_text(optional_object(refund, "metadata") or {}, "request")
    said = _said(refund, "amount")
    return Reversed(_intent_of(refund), "refund", text_field(refund, "id"), said, stages[status], request_key=key)


def _dispute(kind: str, dispute: Fields) -> ProviderFact:
    stage = _DISPUTE_STAGES.get(kind)
    status = optional_text(dispute, "status")
    if kind == "charge.dispute.closed":
        stage = "lost" if status == "lost" else "won" if status in ("won", "warning_closed", "prevented") else None
    if stage is None:
        return NothingToBook(f"a dispute that is {status[:40] or 'unknown'}")
    return Reversed(_intent_of(dispute), "dispute", text_field(dispute, "id"), _said(dispute, "amount"), stage)


def _said(thing: Fields, name: str) -> str:
    return f"{int_field(thing, name)} {text_field(thing, 'currency').upper()} in the smallest unit"


def _refused(what: str, status: int, answer: Fields) -> Exception:
    why = optional_text(optional_object(answer, "error") or {}, "message")
    return provider_refused(NAME, what, status, why, "payments.stripe")


def _product(invoice: Invoice) -> str:
    return "Balance" if invoice.kind == "topup" else f"{invoice.tariff}, {invoice.days} days"
