"""Stripe: Checkout sessions with an Idempotency-Key, and events signed with one or more secrets."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from urllib.parse import parse_qs

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles


@attrs.define
class Stripe:
    """An account at Stripe with one webhook endpoint."""

    secret_key: str
    webhook_secrets: list[str]
    """More than one while a secret is rolled: each of them signs."""
    sessions: dict[str, Json] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=dict)
    troubles: Troubles = attrs.field(factory=Troubles)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/v1/checkout/sessions", self._create, methods=["POST"]),
                Route("/v1/checkout/sessions/{id}", self._show),
            ]
        )

    def pay(self, session_id: str, *, amount: int | None = None, currency: str | None = None) -> tuple[Event, Event]:
        """The customer pays; returns the session's event and the payment intent's, which tell of the same money."""
        session = self.sessions[session_id]
        number = next(self._numbers)
        intent = f"pi_3Simulated{number:06d}"
        session.update(
            status="complete",
            payment_status="paid",
            payment_intent=intent,
            amount_total=session["amount_total"] if amount is None else amount,
            currency=currency or session["currency"],
        )
        paid: Json = {
            "id": intent,
            "object": "payment_intent",
            "amount": session["amount_total"],
            "amount_received": session["amount_total"],
            "currency": session["currency"],
            "metadata": session["metadata"],
            "status": "succeeded",
            "livemode": False,
        }
        return self.event("checkout.session.completed", session), self.event("payment_intent.succeeded", paid)

    def expire(self, session_id: str) -> Event:
        """The customer lets it lapse."""
        session = self.sessions[session_id]
        session.update(status="expired", url=None)
        return self.event("checkout.session.expired", session)

    def event(self, kind: str, thing: Json, *, at: int | None = None) -> Event:
        """A signed event about a thing."""
        moment = int(time.time()) if at is None else at
        body = json.dumps(
            {
                "id": f"evt_1Simulated{next(self._numbers):06d}",
                "object": "event",
                "api_version": "2025-08-27.basil",
                "created": moment,
                "data": {"object": thing},
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            },
            indent=2,
        ).encode()
        return Event(body, {"stripe-signature": self.signature(body, moment)})

    def signature(self, body: bytes, moment: int) -> str:
        """The header: the time, one v1 for each secret, and a scheme that is to be ignored."""
        parts = [f"t={moment}"]
        for secret in self.webhook_secrets:
            digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
            parts.append(f"v1={digest}")
        return ",".join([*parts, "v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"])

    async def _create(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        key = request.headers.get("idempotency-key", "")
        if key not in self.keys:
            form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            price = "line_items[0][price_data]"
            session: Json = {
                "id": f"cs_test_a1Simulated{next(self._numbers):06d}",
                "object": "checkout.session",
                "amount_total": int(form[f"{price}[unit_amount]"]) * int(form["line_items[0][quantity]"]),
                "client_reference_id": form.get("client_reference_id"),
                "currency": form[f"{price}[currency]"],
                "livemode": False,
                "metadata": {"order": form["payment_intent_data[metadata][order]"]},
                "mode": form["mode"],
                "payment_intent": None,
                "payment_status": "unpaid",
                "status": "open",
                "success_url": form["success_url"],
                "url": "https://checkout.stripe.example/c/pay/cs_test_a1",
            }
            self.sessions[str(session["id"])] = session
            self.keys[key] = str(session["id"])
        if spoilt := self.troubles.spoil():
            return _error(spoilt, "An unknown error occurred")
        return JSONResponse(self.sessions[self.keys[key]])

    async def _show(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        session = self.sessions.get(request.path_params["id"])
        return _error(404, "No such checkout session") if session is None else JSONResponse(session)

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {self.secret_key}":
            return _error(401, "Invalid API Key provided")
        trouble = self.troubles.refuse()
        return _error(trouble, "An unknown error occurred") if trouble else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"type": "api_error", "message": message}}, status)
