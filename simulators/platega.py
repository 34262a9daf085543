"""Platega: transactions by SBP or card, and callbacks that carry the shop's own secret."""

from __future__ import annotations

import itertools
import json

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles


@attrs.define
class Platega:
    """A merchant at Platega."""

    merchant_id: str
    secret: str
    transactions: dict[str, Json] = attrs.field(factory=dict)
    expires_in: str = "00:15:00"
    troubles: Troubles = attrs.field(factory=Troubles)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/transaction/process", self._create, methods=["POST"]),
                Route("/transaction/{id}", self._show),
            ]
        )

    def pay(self, number: str, *, amount: float | None = None, currency: str | None = None) -> Event:
        """The customer pays, perhaps not what was asked; returns the callback."""
        details = self.transactions[number]["paymentDetails"]
        assert isinstance(details, dict)
        details.update(amount=amount or details["amount"], currency=currency or details["currency"])
        return self.become(number, "CONFIRMED")

    def become(self, number: str, status: str) -> Event:
        """A transaction is `CANCELED`, `CHARGEBACKED` or else; returns the callback."""
        self.transactions[number]["status"] = status
        return self.callback(number, status)

    def callback(self, number: str, status: str) -> Event:
        """A callback as it is sent; its headers prove who sends it, and nothing proves what it says."""
        transaction = self.transactions.get(number, {"paymentDetails": {"amount": 1, "currency": "RUB"}})
        details = transaction["paymentDetails"]
        assert isinstance(details, dict)
        body = {
            "id": number,
            "amount": details["amount"],
            "currency": details["currency"],
            "status": status,
            "paymentMethod": transaction.get("paymentMethod", 2),
            "payload": transaction.get("payload", ""),
        }
        return Event(json.dumps(body).encode(), {"X-MerchantId": self.merchant_id, "X-Secret": self.secret})

    async def _create(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        wanted = await request.json()
        amount = wanted["paymentDetails"]["amount"]
        if not isinstance(amount, int | float) or isinstance(amount, bool) or amount <= 0:
            return _error(400, "paymentDetails.amount must be a positive number")
        if len(wanted["description"].encode()) > 64:
            return _error(400, "description is longer than 64 bytes")
        number = f"3fa85f64-5717-4562-b3fc-{next(self._numbers):012x}"
        self.transactions[number] = {
            "id": number,
            "status": "PENDING",
            "paymentDetails": dict(wanted["paymentDetails"]),
            "merchantName": "Simulated",
            "merchantId": self.merchant_id,
            "paymentMethod": "SBPQR" if wanted["paymentMethod"] == 2 else "CARD",
            "expiresIn": self.expires_in,
            "return": wanted["return"],
            "payload": wanted["payload"],
            "description": wanted["description"],
        }
        if spoilt := self.troubles.spoil():
            return _error(spoilt, "Internal error")
        return JSONResponse(
            {
                "paymentMethod": "SBPQR" if wanted["paymentMethod"] == 2 else "CARD",
                "transactionId": number,
                "redirect": f"https://pay.platega.example/?id={number}",
                "return": wanted["return"],
                "paymentDetails": f"{amount} RUB",
                "status": "PENDING",
                "expiresIn": self.expires_in,
                "merchantId": self.merchant_id,
                "usdtRate": 92.5,
            }
        )

    async def _show(self, request: Request) -> Response:
        await self.troubles.pass_gate()
        if refused := self._refused(request):
            return refused
        found = self.transactions.get(request.path_params["id"])
        return _error(404, "Transaction not found") if found is None else JSONResponse(found)

    def _refused(self, request: Request) -> Response | None:
        headers = request.headers
        if (headers.get("x-merchantid"), headers.get("x-secret")) != (self.merchant_id, self.secret):
            return _error(401, "Unauthorized")
        trouble = self.troubles.refuse()
        return _error(trouble, "Internal error") if trouble else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)
