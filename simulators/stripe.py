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

# What objects have besides what matters here, as an account has it that uses none of it.
_SESSION: Json = {
    **dict.fromkeys(
        (
            "billing_address_collection",
            "customer",
            "customer_creation",
            "invoice",
            "locale",
            "origin_context",
            "payment_link",
        )
    ),
    **dict.fromkeys(("setup_intent", "submit_type", "subscription")),
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "custom_fields": [],
    "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
    "payment_method_collection": "always",
    "payment_method_types": ["card"],
    "redirect_on_completion": "always",
    "shipping_options": [],
    "ui_mode": "hosted",
}
_INTENT: Json = {
    **dict.fromkeys(
        ("application", "cancellation_reason", "customer", "latest_charge", "on_behalf_of", "payment_method")
    ),
    **dict.fromkeys(("payment_record", "review", "setup_future_usage", "source")),
    "amount_capturable": 0,
    "capture_method": "automatic_async",
    "confirmation_method": "automatic",
    "livemode": False,
    "object": "payment_intent",
    "payment_method_types": ["card"],
}
_CHARGE: Json = {
    **dict.fromkeys(
        ("application", "application_fee", "balance_transaction", "customer", "failure_balance_transaction")
    ),
    **dict.fromkeys(("on_behalf_of", "review", "source", "source_transfer", "transfer")),
    "billing_details": dict.fromkeys(("address", "email", "name", "phone", "tax_id")),
    "captured": True,
    "disputed": False,
    "livemode": False,
    "metadata": {},
    "object": "charge",
    "paid": True,
    "status": "succeeded",
}
_REFUND: Json = {
    **dict.fromkeys(
        ("balance_transaction", "customer", "failure_balance_transaction", "payment_method", "pending_reason")
    ),
    **dict.fromkeys(("reason", "source_transfer_reversal", "transfer_reversal")),
    "object": "refund",
}


@attrs.define
class Stripe:
    """An account at Stripe with one webhook endpoint."""

    secret_key: str
    webhook_secrets: list[str]
    """More than one while a secret is rolled: each of them signs."""
    sessions: dict[str, Json] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=dict)
    refunds: dict[str, Json] = attrs.field(factory=dict)
    refund_status: str = "succeeded"
    """What becomes of the next refunds that the shop asks for."""
    received: dict[str, int] = attrs.field(factory=dict)
    """By payment intent, what was captured of it."""
    troubles: Troubles = attrs.field(factory=Troubles)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        """Its HTTP interface."""
        return Starlette(
            routes=[
                Route("/v1/checkout/sessions", self._create, methods=["POST"]),
                Route("/v1/checkout/sessions/{id}", self._show),
                Route("/v1/refunds", self._refund, methods=["POST"]),
                Route("/v1/refunds", self._list_refunds),
                Route("/v1/refunds/{id}", self._show_refund),
            ]
        )

    def pay(
        self, session_id: str, *, amount: int | None = None, currency: str | None = None, captured: int | None = None
    ) -> tuple[Event, Event]:
        """The customer pays; returns the session's event and the payment intent's, which tell of the same money.

        `captured` is how much of it somebody captured by hand, if not all.
        """
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
            **_INTENT,
            "id": intent,
            "created": int(time.time()),
            "amount": session["amount_total"],
            "amount_received": session["amount_total"] if captured is None else captured,
            "currency": session["currency"],
            "metadata": session["metadata"],
            "status": "succeeded",
            "livemode": False,
        }
        self.received[intent] = int(str(paid["amount_received"]))
        return self.event("checkout.session.completed", session), self.event("payment_intent.succeeded", paid)

    def hold(self, session_id: str) -> Event:
        """The customer pays in a shop that captures by hand: the money is authorised, and no more."""
        session = self.sessions[session_id]
        held: Json = {
            **_INTENT,
            "id": f"pi_3Simulated{next(self._numbers):06d}",
            "created": int(time.time()),
            "amount": session["amount_total"],
            "amount_capturable": session["amount_total"],
            "amount_received": 0,
            "currency": session["currency"],
            "metadata": session["metadata"],
            "status": "requires_capture",
            "livemode": False,
        }
        return self.event("payment_intent.amount_capturable_updated", held)

    def dispute(self, intent: str, kind: str, status: str = "needs_response", amount: int = 161) -> Event:
        """The cardholder's bank fights over a payment; `kind` is what follows `charge.dispute.`."""
        dispute: Json = {
            "id": f"du_1{intent[-12:]}",
            "object": "dispute",
            "amount": amount,
            "balance_transactions": [],
            "charge": f"ch_3{intent[-12:]}",
            "created": int(time.time()),
            "currency": "usd",
            "enhanced_eligibility_types": [],
            "evidence": {},
            "evidence_details": {"due_by": None, "has_evidence": False, "past_due": False, "submission_count": 0},
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {},
            "payment_intent": intent,
            "reason": "fraudulent",
            "status": status,
        }
        return self.event(f"charge.dispute.{kind}", dispute)

    def tell_refund(self, refund: Json, status: str) -> Event:
        """A refund becomes something else: `failed`, `canceled`, `succeeded`."""
        refund["status"] = status
        return self.event("refund.failed" if status == "failed" else "refund.updated", refund)

    def tell_refunded(self, intent: str) -> Event:
        """All that went back of a payment so far."""
        sums = [int(str(r["amount"])) for r in self.refunds.values() if r["payment_intent"] == intent]
        charge: Json = {
            **_CHARGE,
            "id": f"ch_3{intent[-12:]}",
            "created": int(time.time()),
            "amount": self.received[intent],
            "amount_captured": self.received[intent],
            "amount_refunded": sum(sums),
            "currency": "usd",
            "payment_intent": intent,
            "refunded": sum(sums) == self.received[intent],
            "status": "succeeded",
        }
        return self.event("charge.refunded", charge)

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
            ends_at = int(form.get("expires_at", time.time() + 86400))
            if not 1800 <= ends_at - time.time() <= 86400:
                return _error(
                    400,
                    "The expires_at timestamp must be between 30 minutes and 24 hours from Checkout Session creation",
                )
            session: Json = {
                **_SESSION,
                "created": int(time.time()),
                "id": f"cs_test_a1Simulated{next(self._numbers):06d}",
                "object": "checkout.session",
                "amount_total": int(form[f"{price}[unit_amount]"]) * int(form["line_items[0][quantity]"]),
                "client_reference_id": form.get("client_reference_id"),
                "currency": form[f"{price}[currency]"],
                "expires_at": ends_at,
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
        if session is None:
            return _error(404, "No such checkout session")
        if request.query_params.get("expand[]") == "payment_intent" and session["payment_intent"]:
            intent = str(session["payment_intent"])
            shown = {
                **_INTENT,
                "id": intent,
                "created": session["created"],
                "amount": session["amount_total"],
                "amount_received": self.received[intent],
                "currency": session["currency"],
                "metadata": session["metadata"],
                "status": "succeeded",
            }
            return JSONResponse({**session, "payment_intent": shown})
        return JSONResponse(session)

    async def _refund(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        key = request.headers.get("idempotency-key", "")
        if key not in self.keys:
            form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            intent, amount = form["payment_intent"], int(form["amount"])
            if intent not in self.received:
                return _error(404, "No such payment_intent")
            gone = sum(
                int(str(r["amount"]))
                for r in self.refunds.values()
                if r["payment_intent"] == intent and r["status"] not in ("failed", "canceled")
            )
            if not 0 < amount <= self.received[intent] - gone:
                return _error(400, "Refund amount is greater than unrefunded amount on charge")
            refund: Json = {
                **_REFUND,
                "id": f"re_3Simulated{next(self._numbers):06d}",
                "object": "refund",
                "amount": amount,
                "charge": f"ch_3{intent[-12:]}",
                "created": int(time.time()),
                "currency": "usd",
                "metadata": {"request": form["metadata[request]"]},
                "payment_intent": intent,
                "reason": None,
                "status": self.refund_status,
            }
            self.refunds[str(refund["id"])] = refund
            self.keys[key] = str(refund["id"])
        if spoilt := self.troubles.spoil():
            return _error(spoilt, "An unknown error occurred")
        return JSONResponse(self.refunds[self.keys[key]])

    async def _list_refunds(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        wanted = request.query_params["payment_intent"]
        found = [refund for refund in self.refunds.values() if refund["payment_intent"] == wanted]
        return JSONResponse({"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"})

    async def _show_refund(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        refund = self.refunds.get(request.path_params["id"])
        return _error(404, "No such refund") if refund is None else JSONResponse(refund)

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {self.secret_key}":
            return _error(401, "Invalid API Key provided")
        trouble = self.troubles.refuse()
        return _error(trouble, "An unknown error occurred") if trouble else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"type": "api_error", "message": message}}, status)
