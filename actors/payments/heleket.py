"""Heleket: payments in crypto assets on a page of its own, of which it tells with signed webhooks.

A signature is the MD5 of the JSON in base64 and our key, over the body as PHP writes it without its member `sign`. MD5 with a
secret at its end is what Heleket has; a webhook is believed for its signature, and money for nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterable

import attrs
import httpx

from actors.payments.provider import (
    NewInvoice,
    NotAuthentic,
    NotYet,
    Provider,
    ProviderUnavailable,
    StillOpen,
    WebhookDelivery,
    half_configured,
)
from actors.payments.quotes import RateSettings
from actors.payments.wire import (
    Fields,
    call_provider,
    came_as_text,
    configured,
    event_name,
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
    InvoiceClosed,
    NothingToBook,
    ProviderFact,
    ReversalStage,
    Reversed,
)
from runtime.config import Secret
from runtime.http import new_client

NAME = "heleket"
_LONGEST_PAGE = 43200.0
_PAID = ("paid", "paid_over")
_CLOSED = ("cancel", "fail", "system_fail")
_REFUNDS: dict[str, ReversalStage] = {"refund_paid": "told", "refund_fail": "failed"}
_SIGN = re.compile(rb',\s*"sign"\s*:\s*"[0-9a-f]{32}"')
_FIAT = ("RUB", "USD", "EUR", "XTR")


@attrs.frozen
class HeleketSettings(RateSettings):
    """`[payments.heleket]`: Heleket."""

    merchant: str = ""
    """The merchant's UUID."""
    payment_key: Secret = attrs.field(factory=Secret)
    """The key for payments, which signs requests and webhooks. Without it, Heleket is off."""
    previous_payment_key: Secret = attrs.field(factory=Secret)
    """Webhooks signed with it are accepted as well."""
    callback_url: str = ""
    """The public https address of `/payments/heleket`, which it is told with each invoice."""
    success_url: str = ""
    return_url: str = ""
    """Where the customer comes back to, after paying and before."""
    asset: str = "USDT"
    """What invoices are quoted and paid in."""
    url: str = "https://api.heleket.com"

    def check_configuration(self) -> Iterable[str]:
        """Refuse credentials by half."""
        if not self.payment_key:
            return
        if not self.merchant:
            yield half_configured(NAME, "merchant", "the merchant's UUID")
        if not self.callback_url.startswith("https://"):
            yield half_configured(NAME, "callback_url", "the public https address of /payments/heleket")
        if self.asset in _FIAT:
            wanted = "a crypto asset such as USDT: what customers pay in is what is compared"
            yield half_configured(NAME, "asset", wanted)


@attrs.frozen
class Heleket(Provider):
    """Payments in crypto assets through Heleket."""

    name = NAME
    shortest_page = 300.0

    settings: HeleketSettings
    client: httpx.AsyncClient

    @classmethod
    def open(cls, settings: HeleketSettings) -> Heleket | None:
        if not settings.payment_key:
            return None
        return cls(settings, new_client(settings.url, headers={"merchant": settings.merchant}))

    def authenticate(self, delivery: WebhookDelivery) -> str:
        webhook = read_object(delivery.body)
        given = webhook.get("sign")
        if not isinstance(given, str) or not self._is_signed(delivery.body, webhook, given):
            raise NotAuthentic(NAME, "its sign does not sign it" if given else "it has no sign")
        return f"{event_name(webhook, 'status')}:{event_name(webhook, 'uuid')}"

    async def understand(self, body: bytes) -> ProviderFact:
        webhook = read_object(body)
        status = text_field(webhook, "status")
        fact = _fact(webhook, status)
        return NothingToBook(f"an invoice that is {status[:40]}") if fact is None else fact

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        """Its `order_id` is our key: asked twice, it shows the same invoice."""
        settings = self.settings
        body = {
            "amount": str(invoice.amount).split()[0],
            "currency": invoice.amount.currency,
            "to_currency": invoice.amount.currency,
            "order_id": invoice.request_key,
            "lifetime": int(min(max(invoice.seconds_left, self.shortest_page), _LONGEST_PAGE)),
            "is_payment_multiple": False,
            "accuracy_payment_percent": 0,
            "additional_data": order_tag(invoice.order_id),
            "url_callback": settings.callback_url,
            "url_success": settings.success_url,
            "url_return": settings.return_url,
        }
        made = await self._api(
            "/v1/payment", {name: value for name, value in body.items() if value != ""}, "an invoice"
        )
        assert made is not None
        return NewInvoice(text_field(made, "uuid"), text_field(made, "url"))

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        found = await self._api("/v1/payment/info", {"uuid": invoice.invoice_id}, "to show an invoice")
        if found is None:
            raise NotYet("Heleket does not know this invoice; look at payments.heleket.merchant and payment_key_file")
        fact = _fact(found, optional_text(found, "payment_status") or text_field(found, "status"))
        return fact if isinstance(fact, Captured | InvoiceClosed) else StillOpen()

    async def _api(self, path: str, body: object, what: str) -> Fields | None:
        content = json.dumps(body).encode()
        headers = {"sign": _signature(content, self.settings.payment_key)}
        status, answer = await call_provider(
            self.client, NAME, "POST", path, what=what, content=content, headers=headers, repeat=True
        )
        if status == httpx.codes.NOT_FOUND:
            return None
        if status != httpx.codes.OK or answer.get("state") != 0:
            why = optional_text(answer, "message") or str(answer.get("errors", ""))
            raise provider_refused(NAME, what, status, why, "payments.heleket")
        result = optional_object(answer, "result")
        if result is None:
            raise ProviderUnavailable(f"{NAME} answered without a result")
        return result

    def _is_signed(self, body: bytes, webhook: Fields, given: str) -> bool:
        """Over the bytes that came without the member `sign`, or as PHP would write them: what it sends is either."""
        bare = {name: value for name, value in webhook.items() if name != "sign"}
        forms = [_SIGN.sub(b"", body)] if len(_SIGN.findall(body)) == 1 else []
        with contextlib.suppress(
            TypeError, UnicodeEncodeError
        ):  # a number or half a character that no text of PHP's holds
            forms.append(_as_php(bare))
        keys = configured(self.settings.payment_key, self.settings.previous_payment_key)
        found = False
        for key in keys:
            for form in forms:
                found |= hmac.compare_digest(_signature(form, key).encode(), given.encode(errors="replace"))
        return found


def _signature(content: bytes, key: Secret) -> str:
    signed = base64.b64encode(content) + key.reveal().encode()
    return hashlib.md5(signed, usedforsecurity=False).hexdigest()


def _as_php(fields: Fields) -> bytes:
    """JSON as `json_encode` writes it with JSON_UNESCAPED_UNICODE."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).replace("/", "\\/").encode()


def _fact(invoice: Fields, status: str) -> Captured | InvoiceClosed | Reversed | None:
    """What an invoice in that state says of money; None while it says nothing."""
    number = text_field(invoice, "uuid")
    if status in _PAID or (status == "wrong_amount" and invoice.get("is_final") is True):
        paid = text_field(invoice, "payment_amount")
        asset = optional_text(invoice, "payer_currency") or text_field(invoice, "currency")
        came = came_as_text(paid, asset)
        order_id = order_of(optional_text(invoice, "additional_data"))
        charge = FinalizePurchase(NAME, number, came.amount, order_id, actor=NAME, stated=came.stated)
        return Captured(charge, number)
    if status in _REFUNDS:
        said = f"{text_field(invoice, 'payment_amount')} {optional_text(invoice, 'payer_currency')}"
        return Reversed(number, "refund", number, said, _REFUNDS[status])
    return InvoiceClosed(number, status) if status in _CLOSED and invoice.get("is_final") is not False else None
