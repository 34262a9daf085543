"""CryptoBot (Crypto Pay): webhooks signed with the app's token over the raw body; money is named by `invoice_id`.

`update_id` is not unique, so an event is named by its type and its invoice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

import attrs
import httpx

from actors.payments.provider import (
    NewInvoice,
    NotAuthentic,
    NotUnderstood,
    NotYet,
    Provider,
    ProviderUnavailable,
    StillOpen,
    WebhookDelivery,
)
from actors.payments.settings import CryptoBotSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    came_as_text,
    configured,
    event_name,
    identifier,
    is_valid_signature,
    object_field,
    optional_text,
    order_of,
    order_tag,
    provider_refused,
    read_object,
    text_field,
)
from db.billing.invoices import Invoice
from db.billing.payment_facts import Captured, FinalizePurchase, InvoiceClosed, NothingToBook, ProviderFact
from runtime.http import new_client

NAME = "cryptobot"
SIGNATURE = "crypto-pay-api-signature"


@attrs.frozen
class CryptoBot(Provider):
    """Payments in crypto assets through Crypto Pay, the HTTP interface of @CryptoBot."""

    name = NAME

    settings: CryptoBotSettings
    client: httpx.AsyncClient

    @classmethod
    def open(cls, settings: CryptoBotSettings) -> CryptoBot | None:
        if not settings.token:
            return None
        headers = {"crypto-pay-api-token": settings.token.reveal()}
        return cls(settings, new_client(settings.url, headers=headers))

    def authenticate(self, delivery: WebhookDelivery) -> str:
        given = delivery.headers.get(SIGNATURE, "")
        tokens = configured(self.settings.token, self.settings.previous_token)
        keys = [hashlib.sha256(token.reveal().encode()).digest() for token in tokens]
        if not any(is_valid_signature(key, delivery.body, given) for key in keys):
            raise NotAuthentic(NAME, f"its {SIGNATURE} does not sign it" if given else f"it has no {SIGNATURE}")
        update = read_object(delivery.body)
        return f"{event_name(update, 'update_type')}:{event_name(object_field(update, 'payload'), 'invoice_id')}"

    async def understand(self, body: bytes) -> ProviderFact:
        update = read_object(body)
        if text_field(update, "update_type") != "invoice_paid":
            return NothingToBook(f"an update of type {optional_text(update, 'update_type')[:40]}")
        return _captured(object_field(update, "payload"))

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        """It has no idempotency key: asked twice, it opens two, and a payment of either one names the order."""
        body = {
            "currency_type": "crypto",
            "asset": invoice.amount.currency,
            "amount": str(invoice.amount).split()[0],
            "payload": order_tag(invoice.order_id),
            "expires_in": max(1, int(invoice.seconds_left)),
            "allow_anonymous": True,
            "allow_comments": False,
        }
        result = await self._api("createInvoice", body=body)
        return NewInvoice(identifier(result, "invoice_id"), text_field(result, "bot_invoice_url"))

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        result = await self._api("getInvoices", params={"invoice_ids": invoice.invoice_id or ""})
        items = result.get("items")
        if not isinstance(items, list):
            raise ProviderUnavailable(f"{NAME} answered getInvoices without a list of invoices")
        for item in items:
            if isinstance(item, dict) and identifier(item, "invoice_id") == invoice.invoice_id:
                status = text_field(item, "status")
                if status == "paid":
                    return _captured(item)
                return InvoiceClosed(invoice.invoice_id, status) if status == "expired" else StillOpen()
        raise NotYet("CryptoBot does not know this invoice; look at payments.cryptobot.token_file and url")

    async def exchange_rates(self) -> Mapping[str, Decimal]:
        """The rates at which Crypto Pay itself converts, of its assets in roubles; those that it calls invalid are left out."""
        rates: dict[str, Decimal] = {}
        for item in await self._list("getExchangeRates"):
            if isinstance(item, dict) and item.get("is_valid") is True and item.get("target") == "RUB":
                try:
                    rates[text_field(item, "source")] = Decimal(str(item.get("rate")))
                except InvalidOperation as error:
                    raise ProviderUnavailable(
                        f"{NAME} answered getExchangeRates with a rate that is no number"
                    ) from error
        return rates

    async def _list(self, method: str) -> Sequence[object]:
        status, answer = await call_provider(self.client, NAME, "GET", f"/api/{method}", what=method, repeat=True)
        if answer.get("ok") is not True:
            raise provider_refused(NAME, method, status, str(answer.get("error", "")), "payments.cryptobot")
        result = answer.get("result")
        if not isinstance(result, list):
            raise ProviderUnavailable(f"{NAME} answered {method} without a list")
        return result

    async def _api(self, method: str, *, body: object = None, params: dict[str, str] | None = None) -> Fields:
        status, answer = await call_provider(
            self.client,
            NAME,
            "GET" if body is None else "POST",
            f"/api/{method}",
            what=method,
            body=body,
            params=params,
            repeat=body is None,
        )
        if answer.get("ok") is True:
            return _result(answer)
        raise provider_refused(NAME, method, status, str(answer.get("error", "")), "payments.cryptobot")


def _result(answer: Fields) -> Fields:
    try:
        return object_field(answer, "result")
    except NotUnderstood as error:
        raise ProviderUnavailable(f"{NAME} answered without a result: {error}") from error


def _captured(invoice: Fields) -> Captured:
    """What was really paid: for an invoice in a fiat currency that is another asset than the one that it names."""
    invoice_id = identifier(invoice, "invoice_id")
    if text_field(invoice, "status") != "paid":
        raise NotUnderstood(f"invoice {invoice_id} was told to be paid, and is {invoice.get('status')!r}")
    if optional_text(invoice, "currency_type") == "fiat":
        came = came_as_text(text_field(invoice, "paid_amount"), text_field(invoice, "paid_asset"))
    else:
        came = came_as_text(text_field(invoice, "amount"), text_field(invoice, "asset"))
    order_id = order_of(optional_text(invoice, "payload"))
    charge = FinalizePurchase(NAME, invoice_id, came.amount, order_id, actor=NAME, stated=came.stated)
    return Captured(charge, invoice_id)
