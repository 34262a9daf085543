"""Crypto Pay: invoices, and webhooks signed with the app's token."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import HMAC

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles


@attrs.define
class CryptoBot:
    """An app at Crypto Pay."""

    token: str
    invoices: dict[int, Json] = attrs.field(factory=dict)
    troubles: Troubles = attrs.field(factory=Troubles)
    rates: dict[tuple[str, str], str] = attrs.field(factory=dict)
    """Of one asset in another; an empty one is told as not valid."""
    says_nothing: bool = False
    """Lists of invoices are left out of its answers."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(528890))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/api/createInvoice", self._create, methods=["POST"]),
                Route("/api/getInvoices", self._show),
                Route("/api/getExchangeRates", self._rates),
            ]
        )

    def pay(self, invoice_id: int, *, asset: str | None = None, amount: str | None = None) -> Event:
        """The customer pays; returns the update. Two updates about one invoice differ in `update_id` only."""
        invoice = self.invoices[invoice_id]
        invoice.update(
            status="paid",
            asset=asset or invoice["asset"],
            amount=amount or invoice["amount"],
            paid_at=_now(),
            paid_anonymously=False,
        )
        return self.update(invoice)

    def expire(self, invoice_id: int) -> None:
        """The invoice lapses unpaid. Crypto Pay sends no event for that."""
        self.invoices[invoice_id].update(status="expired")

    def update(self, invoice: Json) -> Event:
        """A signed update."""
        body = json.dumps(
            {
                "update_id": next(self._numbers),
                "update_type": "invoice_paid",
                "request_date": _now(),
                "payload": invoice,
            }
        ).encode()
        key = sha256(self.token.encode("utf-8")).digest()
        return Event(body, {"crypto-pay-api-signature": HMAC(key, body, sha256).hexdigest()})

    async def _create(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        wanted = await request.json()
        number = next(self._numbers)
        invoice: Json = {
            "invoice_id": number,
            "hash": f"IVsimulated{number}",
            "currency_type": wanted["currency_type"],
            "asset": wanted["asset"],
            "amount": wanted["amount"],
            "bot_invoice_url": f"https://t.me/CryptoBot?start=IVsimulated{number}",
            "mini_app_invoice_url": f"https://t.me/CryptoBot/app?startapp=invoice-IVsimulated{number}",
            "web_app_invoice_url": f"https://app.cr.bot/invoices/IVsimulated{number}",
            "payload": wanted["payload"],
            "allow_comments": wanted["allow_comments"],
            "allow_anonymous": wanted["allow_anonymous"],
            "status": "active",
            "created_at": _now(),
            "expiration_date": _now(float(wanted["expires_in"])),
        }
        self.invoices[number] = invoice
        if spoilt := self.troubles.spoil():
            return _error(spoilt, "INTERNAL")
        return JSONResponse({"ok": True, "result": invoice})

    async def _rates(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        rates = [
            {
                "is_valid": rate != "",
                "is_crypto": True,
                "is_fiat": False,
                "source": source,
                "target": target,
                "rate": rate or "0",
            }
            for (source, target), rate in self.rates.items()
        ]
        return JSONResponse({"ok": True, "result": rates})

    async def _show(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        wanted = [int(number) for number in request.query_params["invoice_ids"].split(",")]
        items = [self.invoices[number] for number in wanted if number in self.invoices]
        return JSONResponse({"ok": True, "result": {} if self.says_nothing else {"items": items}})

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("crypto-pay-api-token") != self.token:
            return _error(401, "UNAUTHORIZED")
        trouble = self.troubles.refuse()
        return _error(trouble, "INTERNAL") if trouble else None


def _error(status: int, name: str) -> Response:
    return JSONResponse({"ok": False, "error": {"code": status, "name": name}}, status)


def _now(later: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=later)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
