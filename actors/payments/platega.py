"""Platega: payments in roubles by SBP or card. A callback is a hint with a shared secret; the transaction it names counts.

The secret in its headers signs no body, so only the transaction's id is used, and the transaction is fetched with our own
credentials. It has no idempotency key: asked twice, it opens two, and a payment of either one names the order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

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
    half_configured,
)
from actors.payments.quotes import PaidInRoubles
from actors.payments.wire import (
    Fields,
    call_provider,
    came_as_text,
    configured,
    matches_any,
    object_field,
    optional_text,
    order_of,
    order_tag,
    provider_refused,
    read_object,
    text_field,
)
from db.billing.invoices import Invoice
from db.billing.payment_facts import Captured, FinalizePurchase, InvoiceClosed, NothingToBook, ProviderFact, Reversed
from runtime.config import Secret
from runtime.http import new_client

NAME = "platega"
_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_CLOSED = ("CANCELED", "CANCELLED", "FAILED", "EXPIRED")
_LOOK = "look at payments.platega.merchant_id and secret_file"
_DESCRIPTION_BYTES = 64


@attrs.frozen
class PlategaSettings(PaidInRoubles):
    """`[payments.platega]`: Platega."""

    merchant_id: str = ""
    """The merchant's UUID."""
    secret: Secret = attrs.field(factory=Secret)
    """The API's key, which comes with its callbacks too. Without it, Platega is off."""
    previous_secret: Secret = attrs.field(factory=Secret)
    """Callbacks with it are accepted as well, while a new one is being rolled out."""
    method: Literal[2, 3, 10, 11, 12, 13] = 2
    """How customers pay: 2 SBP, 3 ERIP, 10 and 11 cards of Russian banks, 12 cards of others, 13 crypto."""
    return_url: str = ""
    """Where the customer comes back to after paying."""
    failed_url: str = ""
    """Where he comes back to if he could not; by default the same."""
    url: str = "https://app.platega.io"

    def check_configuration(self) -> Iterable[str]:
        """Refuse credentials by half."""
        if self.secret and not self.merchant_id:
            yield half_configured(NAME, "merchant_id", "the merchant's UUID")
        if self.secret and not self.return_url:
            yield half_configured(NAME, "return_url", "where the customer comes back to")


@attrs.frozen
class Platega(Provider):
    """Payments in roubles through Platega."""

    name = NAME
    shortest_page = 900.0
    """It can be told no end: a page lives for as long as its answer says, a quarter of an hour at the least."""

    settings: PlategaSettings
    client: httpx.AsyncClient

    @classmethod
    def open(cls, settings: PlategaSettings) -> Platega | None:
        if not settings.secret:
            return None
        headers = {"x-merchantid": settings.merchant_id, "x-secret": settings.secret.reveal()}
        return cls(settings, new_client(settings.url, headers=headers))

    def authenticate(self, delivery: WebhookDelivery) -> str:
        secrets = configured(self.settings.secret, self.settings.previous_secret)
        is_ours = matches_any(delivery.headers.get("x-secret", ""), secrets)
        if not is_ours or delivery.headers.get("x-merchantid", "") != self.settings.merchant_id:
            raise NotAuthentic(NAME, "its X-MerchantId and X-Secret are not ours")
        status, number = _named(read_object(delivery.body))
        return f"{status}:{number}"

    async def understand(self, body: bytes) -> ProviderFact:
        told, number = _named(read_object(body))
        transaction = await self._get(number)
        status = "unknown" if transaction is None else _status(transaction)
        if transaction is not None and status == "CONFIRMED":
            return _captured(transaction)
        if transaction is not None and status == "CHARGEBACKED":
            return Reversed(number, "dispute", number, _told(transaction), "lost")
        if status in _CLOSED:
            return InvoiceClosed(number, status.lower())
        if told in ("CONFIRMED", "CHARGEBACKED"):
            # Settled as it is now, the event's repetition would find that outcome when the money has come.
            raise NotYet(
                f"Platega says that a transaction is {told.lower()}, and shows it as {status.lower()[:40]}; {_LOOK}"
            )
        return NothingToBook(f"a transaction that is {status.lower()[:40]}")

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        settings = self.settings
        body = {
            "paymentMethod": settings.method,
            # It wants a number; two decimals of a double are written as they are.
            "paymentDetails": {"amount": invoice.amount.amount / 100, "currency": invoice.amount.currency},
            "description": f"Order {invoice.order_id}"[:_DESCRIPTION_BYTES],
            "return": settings.return_url,
            "failedUrl": settings.failed_url or settings.return_url,
            "payload": order_tag(invoice.order_id),
        }
        status, made = await call_provider(
            self.client, NAME, "POST", "/transaction/process", what="open a transaction", body=body
        )
        if status != httpx.codes.OK:
            raise provider_refused(
                NAME, "to open a transaction", status, optional_text(made, "message"), "payments.platega"
            )
        lives = _seconds(optional_text(made, "expiresIn"))
        return NewInvoice(text_field(made, "transactionId"), text_field(made, "redirect"), lives)

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        number = invoice.invoice_id or ""
        transaction = await self._get(number)
        if transaction is None:
            raise NotYet(f"Platega does not know this transaction; {_LOOK}")
        status = _status(transaction)
        if status in ("CONFIRMED", "CHARGEBACKED"):  # what was taken back later had come
            return _captured(transaction)
        return InvoiceClosed(number, status.lower()) if status in _CLOSED else StillOpen()

    async def _get(self, number: str) -> Fields | None:
        status, found = await call_provider(
            self.client, NAME, "GET", f"/transaction/{number}", what="show a transaction", repeat=True
        )
        if status == httpx.codes.NOT_FOUND:
            return None
        if status != httpx.codes.OK:
            raise provider_refused(
                NAME, "to show a transaction", status, optional_text(found, "message"), "payments.platega"
            )
        if text_field(found, "id") != number:
            raise NotUnderstood("Platega was asked about a transaction and showed another")
        return found


def _named(callback: Fields) -> tuple[str, str]:
    """The status and the id of a callback. Only these are used, and the id only where it cannot change the path."""
    number = text_field(callback, "id")
    if not _ID.fullmatch(number):
        raise NotUnderstood("the id of the callback's transaction is none of Platega's")
    return text_field(callback, "status").upper()[:40], number


def _status(transaction: Fields) -> str:
    return text_field(transaction, "status").upper()


def _amount(transaction: Fields) -> tuple[str, str]:
    details = object_field(transaction, "paymentDetails")
    return str(details.get("amount")), text_field(details, "currency")


def _told(transaction: Fields) -> str:
    return " ".join(_amount(transaction))


def _captured(transaction: Fields) -> Captured:
    number = text_field(transaction, "id")
    came = came_as_text(*_amount(transaction))
    order_id = order_of(optional_text(transaction, "payload"))
    charge = FinalizePurchase(NAME, number, came.amount, order_id, actor=NAME, stated=came.stated)
    return Captured(charge, number)


def _seconds(text: str) -> float:
    """What `00:15:00` says; 0 for what says nothing."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        return 0.0
    hours, minutes, seconds = map(int, parts)
    return float(hours * 3600 + minutes * 60 + seconds)
