"""YooKassa: payments by `/v3/payments` with an Idempotence-Key, and unsigned notifications."""

from __future__ import annotations

import base64
import itertools
import json
from datetime import UTC, datetime

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles


@attrs.define
class YooKassa:
    """A shop at YooKassa."""

    shop_id: str
    secret_key: str
    payments: dict[str, Json] = attrs.field(factory=dict)
    refunds: dict[str, Json] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=dict)
    """Which payment was created under which Idempotence-Key."""
    troubles: Troubles = attrs.field(factory=Troubles)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/v3/payments", self._create, methods=["POST"]),
                Route("/v3/payments/{id}", self._show),
                Route("/v3/refunds/{id}", self._show_refund),
            ]
        )

    def pay(self, payment_id: str, *, value: str | None = None, currency: str | None = None) -> Event:
        """The customer pays, perhaps not what was asked; returns the notification."""
        payment = self.payments[payment_id]
        amount = payment["amount"]
        assert isinstance(amount, dict)
        payment["amount"] = {"value": value or amount["value"], "currency": currency or amount["currency"]}
        payment.update(status="succeeded", paid=True, captured_at=_now())
        return self.notification("payment.succeeded", payment)

    def cancel(self, payment_id: str) -> Event:
        """The customer lets it lapse."""
        payment = self.payments[payment_id]
        payment.update(status="canceled", paid=False)
        return self.notification("payment.canceled", payment)

    def refund(self, payment_id: str) -> Event:
        """The shop's owner gives the money back by hand."""
        refund: Json = {
            "id": f"216749f7-0016-50be-b000-{next(self._numbers):012d}",
            "status": "succeeded",
            "amount": self.payments[payment_id]["amount"],
            "created_at": _now(),
            "payment_id": payment_id,
        }
        self.refunds[str(refund["id"])] = refund
        return self.notification("refund.succeeded", refund)

    @staticmethod
    def notification(event: str, thing: Json) -> Event:
        """A notification as it is sent: nothing in it proves anything."""
        return Event(json.dumps({"type": "notification", "event": event, "object": thing}).encode(), {})

    async def _create(self, request: Request) -> Response:
        if refused := self._refused(request) or self._troubled(self.troubles.refuse()):
            return refused
        key = request.headers.get("idempotence-key", "")
        if not key or len(key) > 64:
            return _error(400, "invalid_request", "Idempotence key is missing or too long")
        if key not in self.keys:
            wanted = await request.json()
            number = next(self._numbers)
            payment: Json = {
                "id": f"22d6d597-000f-5000-9000-{number:012d}",
                "status": "pending",
                "paid": False,
                "amount": wanted["amount"],
                "confirmation": {
                    "type": "redirect",
                    "return_url": wanted["confirmation"]["return_url"],
                    "confirmation_url": f"https://yoomoney.example/checkout/payments/v2/contract?orderId={number}",
                },
                "created_at": _now(),
                "description": wanted.get("description", ""),
                "metadata": wanted.get("metadata", {}),
                "recipient": {"account_id": self.shop_id, "gateway_id": "100700"},
                "refundable": False,
                "test": True,
            }
            self.payments[str(payment["id"])] = payment
            self.keys[key] = str(payment["id"])
        return self._troubled(self.troubles.spoil()) or JSONResponse(self.payments[self.keys[key]])

    async def _show(self, request: Request) -> Response:
        await self.troubles.pass_gate()
        return self._shown(request, self.payments)

    async def _show_refund(self, request: Request) -> Response:
        return self._shown(request, self.refunds)

    def _shown(self, request: Request, things: dict[str, Json]) -> Response:
        if refused := self._refused(request) or self._troubled(self.troubles.refuse()):
            return refused
        thing = things.get(request.path_params["id"])
        return _error(404, "not_found", "No such object") if thing is None else JSONResponse(thing)

    def _refused(self, request: Request) -> Response | None:
        wanted = base64.b64encode(f"{self.shop_id}:{self.secret_key}".encode()).decode()
        if request.headers.get("authorization") == f"Basic {wanted}":
            return None
        return _error(401, "invalid_credentials", "Wrong shop id or key")

    @staticmethod
    def _troubled(status: int) -> Response | None:
        return _error(status, "internal_server_error", "Try again later") if status else None


def _error(status: int, code: str, description: str) -> Response:
    return JSONResponse({"type": "error", "id": "ab5a11cd", "code": code, "description": description}, status)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
