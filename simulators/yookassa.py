"""YooKassa: payments by `/v3/payments` with an Idempotence-Key, and unsigned notifications."""

from __future__ import annotations

import base64
import itertools
import json
import re
from datetime import UTC, datetime
from decimal import Decimal

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
    asked: list[tuple[str, Json]] = attrs.field(factory=list)
    """What the shop asked to be made, `payment` or `refund`, oldest first."""
    refund_status: str = "succeeded"
    """What becomes of the next refunds that the shop asks for."""
    refuses_contacts: bool = False
    """As if every contact were misspelt; the error repeats it."""
    is_under_54fz: bool = False
    """A payment or a refund without a legal receipt is refused."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/v3/payments", self._create, methods=["POST"]),
                Route("/v3/payments/{id}", self._show),
                Route("/v3/refunds/{id}", self._show_refund),
                Route("/v3/refunds", self._refund, methods=["POST"]),
                Route("/v3/refunds", self._list_refunds),
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

    def hold(self, payment_id: str) -> Event:
        """The customer pays in a shop that captures by hand."""
        payment = self.payments[payment_id]
        payment.update(status="waiting_for_capture", paid=True, expires_at="2030-01-08T12:00:00.000Z")
        return self.notification("payment.waiting_for_capture", payment)

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
            self.asked.append(("payment", wanted))
            if self.refuses_contacts:
                return _error(400, "invalid_request", f"Receipt customer {wanted['receipt']['customer']} is illegal")
            if self.is_under_54fz and (why := _receipt_problem(wanted)):
                return _error(400, "invalid_request", why)
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
            if "receipt" in wanted:
                payment |= {"receipt": wanted["receipt"], "receipt_registration": "pending"}
            self.payments[str(payment["id"])] = payment
            self.keys[key] = str(payment["id"])
        return self._troubled(self.troubles.spoil()) or JSONResponse(self.payments[self.keys[key]])

    async def _show(self, request: Request) -> Response:
        await self.troubles.pass_gate()
        return self._shown(request, self.payments)

    async def _refund(self, request: Request) -> Response:
        if refused := self._refused(request) or self._troubled(self.troubles.refuse()):
            return refused
        key = request.headers.get("idempotence-key", "")
        if not key or len(key) > 64:
            return _error(400, "invalid_request", "Idempotence key is missing or too long")
        if key not in self.keys:
            wanted = await request.json()
            self.asked.append(("refund", wanted))
            if self.is_under_54fz and (why := _receipt_problem(wanted)):
                return _error(400, "invalid_request", why)
            payment = self.payments.get(wanted["payment_id"])
            if payment is None or payment["status"] != "succeeded":
                return _error(400, "invalid_request", "Payment cannot be refunded")
            paid = payment["amount"]
            assert isinstance(paid, dict)
            gone = sum(
                (
                    Decimal(str(refund["amount"]["value"]))
                    for refund in self.refunds.values()
                    if refund["payment_id"] == wanted["payment_id"]
                    and refund["status"] != "canceled"
                    and isinstance(refund["amount"], dict)
                ),
                Decimal(0),
            )
            if gone + Decimal(wanted["amount"]["value"]) > Decimal(paid["value"]):
                return _error(400, "invalid_request", "Amount exceeds what is left of the payment")
            made: Json = {
                "id": f"216749f7-0015-50be-b000-{next(self._numbers):012d}",
                "status": self.refund_status,
                "amount": wanted["amount"],
                "created_at": _now(),
                "payment_id": wanted["payment_id"],
                "description": wanted["description"],
                "metadata": wanted["metadata"],
            }
            if self.refund_status == "canceled":
                made["cancellation_details"] = {"party": "yoo_money", "reason": "insufficient_funds"}
            self.refunds[str(made["id"])] = made
            self.keys[key] = str(made["id"])
        return self._troubled(self.troubles.spoil()) or JSONResponse(self.refunds[self.keys[key]])

    async def _list_refunds(self, request: Request) -> Response:
        if refused := self._refused(request) or self._troubled(self.troubles.refuse()):
            return refused
        wanted = request.query_params["payment_id"]
        found = [refund for refund in self.refunds.values() if refund["payment_id"] == wanted]
        return JSONResponse({"type": "list", "items": found})

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


def _receipt_problem(wanted: Json) -> str:
    """What the cash register would not print."""
    receipt, amount = wanted.get("receipt"), wanted["amount"]
    assert isinstance(amount, dict)
    if not isinstance(receipt, dict):
        return "Receipt is missing or illegal"
    customer = receipt.get("customer") or {}
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", customer.get("email", "")) and not re.fullmatch(
        r"\d{7,15}", customer.get("phone", "")
    ):
        return f"Receipt customer {customer} is illegal"
    total = Decimal(0)
    for item in receipt.get("items", []):
        if not 0 < len(item["description"]) <= 128 or item["vat_code"] not in range(1, 13):
            return "Receipt item is illegal"
        if item["payment_subject"] == "" or item["payment_mode"] == "":
            return "Receipt item has no payment_subject or payment_mode"
        total += Decimal(item["amount"]["value"]) * Decimal(item["quantity"])
    return "" if total == Decimal(amount["value"]) else "Receipt total is not the amount"


def _error(status: int, code: str, description: str) -> Response:
    return JSONResponse({"type": "error", "id": "ab5a11cd", "code": code, "description": description}, status)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
