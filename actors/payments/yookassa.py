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
    decimal_text,
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

NAME = "yookassa"
_LOOK = "look at payments.yookassa.shop_id and secret_key_file"
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@attrs.frozen
class YooKassa(Provider):
    """Payments in roubles through YooKassa."""

    name = NAME

    settings: YooKassaSettings
    client: httpx.AsyncClient
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def of(cls, settings: YooKassaSettings) -> YooKassa:
        """Return one with an HTTP client of its own, which `aclose` closes. Raises ValueError for a network that is none."""
        client = new_client(settings.url)
        client.auth = httpx.BasicAuth(settings.shop_id, settings.secret_key.reveal())
        return cls(settings, client, tuple(ip_network(network) for network in settings.networks))

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
            "amount": {"value": str(invoice.amount).split()[0], "currency": invoice.amount.currency},
            "capture": True,
            "confirmation": {"type": "redirect", "return_url": self.settings.return_url},
            "description": _description(invoice),
            "metadata": {"order": order_tag(invoice.order_id)},
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
            raise provider_refused(
                NAME, "to create a payment", status, optional_text(payment, "description"), "payments.yookassa"
            )
        confirmation = optional_object(payment, "confirmation") or {}
        return NewInvoice(text_field(payment, "id"), text_field(confirmation, "confirmation_url"))

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
            return NothingToBook(f"a refund that is {status[:40]}")
        amount = object_field(refund, "amount")
        said = f"{text_field(amount, 'value')} {text_field(amount, 'currency')}"
        return Reversed(text_field(refund, "payment_id"), "refund", identifier, said)

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
    money = decimal_text(text_field(amount, "value"), text_field(amount, "currency"))
    identifier = text_field(payment, "id")
    order_id = order_of(optional_text(optional_object(payment, "metadata") or {}, "order"))
    return Captured(FinalizePurchase(NAME, identifier, money, order_id, actor=NAME), identifier)


def _description(invoice: Invoice) -> str:
    if invoice.kind == "topup":
        return f"Balance, order {invoice.order_id}"
    return f"{invoice.tariff} {invoice.days} d, order {invoice.order_id}"
