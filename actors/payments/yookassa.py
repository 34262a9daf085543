"""YooKassa: notifications are hints from known networks; what counts is the payment that it shows when asked.

Nothing in a notification is signed, so only its event and the id are used, and the payment is fetched with our own
credentials. HTTP 500 and silence mean "unknown": the request is repeated with the same Idempotence-Key.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import attrs
import httpx

from actors.payments.provider import (
    NewInvoice,
    NotAuthentic,
    NotUnderstood,
    NotYet,
    Provider,
    StillOpen,
    WebhookDelivery,
)
from actors.payments.settings import YooKassaSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    came_as_text,
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
from db.billing.orders import normalised_contact
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
from db.money import Money
from runtime.http import new_client

NAME = "yookassa"
_LOOK = "look at payments.yookassa.shop_id and secret_key_file"
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@attrs.frozen
class YooKassa(Provider):
    """Payments in roubles through YooKassa."""

    name = NAME
    shortest_page = 3600.0
    """It can be told no end: what is not paid within an hour is cancelled by itself."""
    refunds = "parts"

    settings: YooKassaSettings
    client: httpx.AsyncClient
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def open(cls, settings: YooKassaSettings) -> YooKassa | None:
        if not settings.secret_key:
            return None
        networks = tuple(ip_network(network) for network in settings.networks)
        client = new_client(settings.url)
        client.auth = httpx.BasicAuth(settings.shop_id, settings.secret_key.reveal())
        return cls(settings, client, networks)

    def authenticate(self, delivery: WebhookDelivery) -> str:
        if not any(delivery.source in network for network in self.networks):
            raise NotAuthentic(NAME, f"{delivery.source} is in none of payments.yookassa.networks", status=403)
        event, identifier = _named(read_object(delivery.body))
        return f"{event}:{identifier}"

    async def understand(self, body: bytes) -> ProviderFact:
        event, identifier = _named(read_object(body))
        match event.partition(".")[0]:
            case "payment":
                return await self._payment(identifier, event)
            case "refund":
                return await self._refund(identifier, event)
        return NothingToBook(f"an event of type {event[:40]}")

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        body = {
            "amount": _amount(invoice.amount),
            "capture": True,
            "confirmation": {"type": "redirect", "return_url": self.settings.return_url},
            "description": _description(invoice),
            "metadata": {"order": order_tag(invoice.order_id)},
            **self._receipt(invoice.amount, _description(invoice), invoice.receipt_contact),
        }
        status, payment = await call_provider(
            self.client,
            NAME,
            "POST",
            "/v3/payments",
            what="create a payment",
            body=body,
            headers={"idempotence-key": invoice.request_key},
            repeat=True,
        )
        if status != httpx.codes.OK:
            why = self._without_contacts(optional_text(payment, "description"), invoice.receipt_contact)
            raise provider_refused(NAME, "to create a payment", status, why, "payments.yookassa")
        confirmation = optional_object(payment, "confirmation") or {}
        return NewInvoice(text_field(payment, "id"), text_field(confirmation, "confirmation_url"))

    def _receipt(self, amount: Money, what: str, contact: str) -> dict[str, object]:
        """What the tax office wants to know (54-FZ), if the shop has to tell it: one item, to the customer or to the shop."""
        settings = self.settings
        if not settings.receipt_vat_code:
            return {}
        to = contact or normalised_contact(settings.receipt_contact)
        receipt: dict[str, object] = {
            "customer": {"email" if "@" in to else "phone": to},
            "items": [
                {
                    "description": what[:128],
                    "quantity": "1.00",
                    "amount": _amount(amount),
                    "vat_code": settings.receipt_vat_code,
                    "payment_subject": settings.receipt_subject,
                    "payment_mode": settings.receipt_mode,
                }
            ],
        }
        if settings.receipt_tax_system:
            receipt["tax_system_code"] = settings.receipt_tax_system
        return {"receipt": receipt}

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        payment = await self._get("payments", invoice.invoice_id or "")
        if payment is None:
            raise NotYet(f"YooKassa does not know this payment; {_LOOK}")
        status = text_field(payment, "status")
        if status == "succeeded":
            return _captured(payment)
        return InvoiceClosed(text_field(payment, "id"), status) if status == "canceled" else StillOpen()

    async def _payment(self, identifier: str, event: str) -> ProviderFact:
        payment = await self._get("payments", identifier)
        status = "unknown" if payment is None else text_field(payment, "status")
        if payment is not None and status == "succeeded":
            return _captured(payment)
        if payment is not None and status == "waiting_for_capture":
            order_id = order_of(optional_text(optional_object(payment, "metadata") or {}, "order"))
            return Held(identifier, order_id, _told(payment), optional_text(payment, "expires_at"))
        if event == "payment.succeeded" and status != "canceled":
            # Settled as it is now, the event's repetition would find that outcome when the money has come.
            raise NotYet(f"YooKassa says that a payment succeeded, and shows it as {status[:40]}; {_LOOK}")
        if status == "canceled":
            return InvoiceClosed(identifier, "canceled")
        return NothingToBook(f"a payment that is {status[:40]}")

    async def _refund(self, identifier: str, event: str) -> ProviderFact:
        refund = await self._get("refunds", identifier)
        status = "unknown" if refund is None else text_field(refund, "status")
        if refund is None or status != "succeeded":
            if event == "refund.succeeded" and status != "canceled":
                raise NotYet(f"YooKassa says that a refund succeeded, and shows it as {status[:40]}; {_LOOK}")
            if refund is None or status != "canceled":
                return NothingToBook(f"a refund that is {status[:40]}")
            return _reversed(refund, "cancelled")
        return _reversed(refund, "told")

    async def refund(self, refund: ProviderRefund) -> RefundAnswer:
        """Its keys are forgotten after a day, so a refund that may have been asked for is looked for first."""
        if refund.reference:
            shown = await self._get("refunds", refund.reference)
            if shown is None:
                raise NotYet(f"YooKassa does not know a refund of its own; {_LOOK}")
            return _answer(shown)
        if refund.asked_before:
            for made in await self._refunds_of(refund.charge_id):
                if _request_of(made) == refund.request_key:
                    return _answer(made)
        what = f"Refund, order {refund.order_id}"
        body = {
            "payment_id": refund.charge_id,
            "amount": _amount(refund.amount),
            "description": what,
            "metadata": {"request": refund.request_key},
            **self._receipt(refund.amount, what, refund.receipt_contact),
        }
        status, made = await call_provider(
            self.client,
            NAME,
            "POST",
            "/v3/refunds",
            what="refund a payment",
            body=body,
            headers={"idempotence-key": refund.request_key},
            repeat=True,
        )
        why = self._without_contacts(optional_text(made, "description"), refund.receipt_contact)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise provider_refused(NAME, "to refund a payment", status, why, "payments.yookassa")
        return _answer(made) if status == httpx.codes.OK else RefundAnswer("refused", "", why)

    async def _refunds_of(self, charge_id: str) -> list[Fields]:
        params = {"payment_id": charge_id, "limit": "100"}
        status, page = await call_provider(
            self.client, NAME, "GET", "/v3/refunds", what="list refunds", params=params, repeat=True
        )
        items = page.get("items")
        if status != httpx.codes.OK or not isinstance(items, list):
            why = optional_text(page, "description")
            raise provider_refused(NAME, "to list refunds", status, why, "payments.yookassa")
        return [item for item in items if isinstance(item, dict)]

    def _without_contacts(self, why: str, contact: str) -> str:
        for each in filter(None, (contact, self.settings.receipt_contact)):
            why = why.replace(each, "…")
        return why

    async def _get(self, kind: str, identifier: str) -> Fields | None:
        status, found = await call_provider(
            self.client, NAME, "GET", f"/v3/{kind}/{identifier}", what=f"show one of its {kind}", repeat=True
        )
        if status == httpx.codes.NOT_FOUND:
            return None
        if status != httpx.codes.OK:
            why = optional_text(found, "description")
            raise provider_refused(NAME, f"to show one of its {kind}", status, why, "payments.yookassa")
        if text_field(found, "id") != identifier:
            raise NotUnderstood(f"YooKassa was asked about one of its {kind} and showed another")
        return found


def _named(notification: Fields) -> tuple[str, str]:
    """The event and the id of what it is about. Only these are used, and the id only where it cannot change the path."""
    identifier = text_field(object_field(notification, "object"), "id")
    if len(identifier) > 64 or not _ID.issuperset(identifier):
        raise NotUnderstood("the id of the notification's object is none of YooKassa's")
    return text_field(notification, "event")[:64], identifier


def _captured(payment: Fields) -> Captured:
    if payment.get("paid") is not True:
        raise NotUnderstood("a payment that succeeded and was not paid")
    amount = object_field(payment, "amount")
    came = came_as_text(text_field(amount, "value"), text_field(amount, "currency"))
    identifier = text_field(payment, "id")
    order_id = order_of(optional_text(optional_object(payment, "metadata") or {}, "order"))
    charge = FinalizePurchase(NAME, identifier, came.amount, order_id, actor=NAME, stated=came.stated)
    return Captured(charge, identifier)


def _told(thing: Fields) -> str:
    amount = object_field(thing, "amount")
    return f"{text_field(amount, 'value')} {text_field(amount, 'currency')}"


def _reversed(refund: Fields, stage: ReversalStage) -> Reversed:
    number = text_field(refund, "id")
    charge = text_field(refund, "payment_id")
    return Reversed(charge, "refund", number, _told(refund), stage, request_key=_request_of(refund))


def _request_of(refund: Fields) -> str:
    return optional_text(optional_object(refund, "metadata") or {}, "request")


def _answer(refund: Fields) -> RefundAnswer:
    status, reference = text_field(refund, "status"), text_field(refund, "id")
    if status == "succeeded":
        return RefundAnswer("done", reference)
    if status == "canceled":
        details = optional_object(refund, "cancellation_details") or {}
        return RefundAnswer("refused", reference, optional_text(details, "reason") or status)
    return RefundAnswer("pending", reference)


def _amount(money: Money) -> dict[str, str]:
    value, currency = str(money).split()
    return {"value": value, "currency": currency}


def _description(invoice: Invoice) -> str:
    if invoice.kind == "topup":
        return f"Balance, order {invoice.order_id}"
    return f"{invoice.tariff} {invoice.days} d, order {invoice.order_id}"
