"""Heleket: invoices in crypto assets; requests and webhooks signed as its documentation says, in PHP's JSON."""

from __future__ import annotations

import itertools
import json
import time
from base64 import b64encode
from hashlib import md5

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles


@attrs.define
class Heleket:
    """A merchant at Heleket."""

    merchant: str
    key: str
    invoices: dict[str, Json] = attrs.field(factory=dict)
    orders: dict[str, str] = attrs.field(factory=dict)
    """Which invoice was opened under which order_id."""
    troubles: Troubles = attrs.field(factory=Troubles)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/v1/payment", self._create, methods=["POST"]),
                Route("/v1/payment/info", self._show, methods=["POST"]),
            ]
        )

    def pay(self, number: str, *, amount: str | None = None, asset: str | None = None, status: str = "paid") -> Event:
        """The customer pays, perhaps not what was asked (`paid_over`, `wrong_amount`); returns the webhook."""
        invoice = self.invoices[number]
        invoice.update(
            payment_amount=amount or invoice["amount"],
            payer_currency=asset or invoice["currency"],
            txid="0xsimulated",
            is_final=True,
        )
        invoice["from"] = "TSimulatedWallet/кошелёк"
        return self.become(number, status)

    def become(self, number: str, status: str, *, is_final: bool = True) -> Event:
        """An invoice changes its state; returns the webhook."""
        self.invoices[number].update(payment_status=status, status=status, is_final=is_final)
        return self.webhook(self.invoices[number])

    def webhook(self, invoice: Json) -> Event:
        """A webhook as it is sent: signed with unicode as it is, sent with unicode escaped, slashes escaped in both."""
        names = ("uuid", "order_id", "amount", "payment_amount", "payment_amount_usd", "merchant_amount", "commission")
        more = ("is_final", "status", "from", "wallet_address_uuid", "network", "currency", "payer_currency")
        told: Json = {
            "type": "payment",
            **{name: invoice.get(name) for name in (*names, *more, "additional_data", "txid")},
        }
        signed = json.dumps(told, separators=(",", ":"), ensure_ascii=False).replace("/", "\\/").encode()
        told["sign"] = self.signature(signed)
        return Event(json.dumps(told, separators=(",", ":")).replace("/", "\\/").encode(), {})

    def signature(self, content: bytes) -> str:
        """The MD5 of the content in base64 with the key at its end."""
        return md5(b64encode(content) + self.key.encode("ascii"), usedforsecurity=False).hexdigest()

    async def _create(self, request: Request) -> Response:
        body = await request.body()
        if refused := self._refused(request, body):
            return refused
        wanted = json.loads(body)
        if not 300 <= wanted["lifetime"] <= 43200:
            return _error(422, "The lifetime must be between 300 and 43200.")
        if len(wanted["order_id"]) > 128 or not wanted["order_id"].replace("-", "").replace("_", "").isalnum():
            return _error(422, "The order_id may only contain letters, numbers, dashes and underscores.")
        number = self.orders.get(wanted["order_id"])
        if number is None:
            number = f"26109ba0-b05b-4ee0-93d1-{next(self._numbers):012x}"
            self.orders[wanted["order_id"]] = number
            self.invoices[number] = {
                "uuid": number,
                "order_id": wanted["order_id"],
                "amount": wanted["amount"],
                "payment_amount": None,
                "payment_amount_usd": "0.00",
                "merchant_amount": None,
                "commission": None,
                "payer_amount": wanted["amount"],
                "payer_currency": None,
                "currency": wanted["currency"],
                "network": None,
                "address": None,
                "from": None,
                "txid": None,
                "payment_status": "check",
                "status": "check",
                "url": f"https://pay.heleket.example/pay/{number}",
                "expired_at": int(time.time()) + wanted["lifetime"],
                "is_final": False,
                "additional_data": wanted["additional_data"],
            }
        if spoilt := self.troubles.spoil():
            return _error(spoilt, "Server error")
        return JSONResponse({"state": 0, "result": self.invoices[number]})

    async def _show(self, request: Request) -> Response:
        await self.troubles.pass_gate()
        body = await request.body()
        if refused := self._refused(request, body):
            return refused
        found = self.invoices.get(json.loads(body)["uuid"])
        return _error(404, "Payment not found") if found is None else JSONResponse({"state": 0, "result": found})

    def _refused(self, request: Request, body: bytes) -> Response | None:
        if request.headers.get("merchant") != self.merchant or request.headers.get("sign") != self.signature(body):
            return _error(401, "Unauthorized")
        trouble = self.troubles.refuse()
        return _error(trouble, "Server error") if trouble else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"state": 1, "message": message}, status)
