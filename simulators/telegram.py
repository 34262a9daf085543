"""Telegram: the Bot API for payments, and the users who write, check out and pay."""

from __future__ import annotations

import itertools
import json
import time

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.delivery import Event
from simulators.troubles import Json, Troubles

CHECKOUT_SECONDS = 10.0


@attrs.define(eq=False)
class Telegram:
    """One bot and the people it talks to."""

    token: str
    webhook_secret: str = ""
    webhook_url: str = ""
    updates: list[Json] = attrs.field(factory=list)
    """Pending: not confirmed by a higher offset, nor taken by a webhook."""
    invoices: dict[str, Json] = attrs.field(factory=dict)
    """By link."""
    answers: dict[str, Json] = attrs.field(factory=dict)
    """To checkouts, by query."""
    sent: list[Json] = attrs.field(factory=list)
    """Messages that the bot has sent to people, as it asked for them."""
    charges: dict[str, Json] = attrs.field(factory=dict)
    """What was paid, by charge: who, how much, for which payload, and whether it was given back."""
    transactions: list[Json] = attrs.field(factory=list)
    """The bot's statement of Stars, oldest first."""
    dropped: int = 0
    """Pending updates that the bot has thrown away."""
    troubles: Troubles = attrs.field(factory=Troubles)
    slow: dict[str, float] = attrs.field(factory=dict)
    """Seconds that a method takes."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    calls: list[tuple[str, Json]] = attrs.field(factory=list)
    """What the bot called, oldest first."""
    asked_at: dict[str, float] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(731908))

    @property
    def app(self) -> Starlette:
        """The Bot API."""
        return Starlette(routes=[Route("/bot{token}/{method}", self._call, methods=["POST"])])

    # -- people -------------------------------------------------------------------------------------------------------

    def write(self, user_id: int, text: str = "hello", language: str = "ru") -> Json:
        """A user writes `text` to the bot; returns the update. `language` is that of the user's client."""
        message = {**self._message(user_id, language), "text": text}
        return self._update("message", message)

    def block(self, user_id: int) -> Json:
        """A user blocks the bot; returns the update."""
        member = {
            **self._chat(user_id, "ru"),
            "date": int(time.time()),
            "old_chat_member": {"status": "member", "user": self._user(731, "ru", is_bot=True)},
            "new_chat_member": {"status": "kicked", "user": self._user(731, "ru", is_bot=True), "until_date": 0},
        }
        return self._update("my_chat_member", member)

    def check_out(self, user_id: int, link: str, *, amount: int | None = None, language: str = "ru") -> Json:
        """A user presses "pay" at the invoice with this link; returns the update in which Telegram asks the bot whether
        to go on.
        """
        invoice = self.invoices[link]
        query_id = str(4382 * 10**12 + next(self._numbers))
        self.asked_at[query_id] = trio.current_time()
        query = {
            "id": query_id,
            "from": self._user(user_id, language),
            "currency": invoice["currency"],
            "total_amount": _total(invoice) if amount is None else amount,
            "invoice_payload": invoice["payload"],
        }
        return self._update("pre_checkout_query", query)

    async def answer_to(self, update: Json) -> Json:
        """The bot's answer to a checkout. Raises trio.TooSlowError when Telegram would have given up."""
        query = update["pre_checkout_query"]
        assert isinstance(query, dict)
        with trio.fail_at(self.asked_at[query["id"]] + CHECKOUT_SECONDS):
            while query["id"] not in self.answers:
                await self.changed.wait()
        return self.answers[query["id"]]

    def pay(self, user_id: int, link: str, *, charge: str = "", amount: int | None = None, currency: str = "") -> Json:
        """Telegram takes the money for the invoice with this link; returns the update that says so. The last three
        arguments replace what the invoice says.
        """
        invoice = self.invoices[link]
        paid: Json = {
            "currency": currency or invoice["currency"],
            "total_amount": _total(invoice) if amount is None else amount,
            "invoice_payload": invoice["payload"],
            "telegram_payment_charge_id": charge or f"stxSimulated{next(self._numbers)}",
            "provider_payment_charge_id": f"{user_id}_0",
        }
        name = str(paid["telegram_payment_charge_id"])
        if name not in self.charges:
            self.charges[name] = {"user": user_id, "back": False, **paid}
            if paid["currency"] == "XTR":
                self.transactions.append(self._transaction(name, "source"))
        return self._update("message", {**self._message(user_id, "ru"), "successful_payment": paid})

    def give_back(self, charge: str) -> Json:
        """Telegram gives Stars back, asked by the bot or by the user; returns the update that says so."""
        paid = self.charges[charge]
        paid["back"] = True
        self.transactions.append(self._transaction(charge, "receiver"))
        refund = {
            name: paid[name] for name in ("currency", "total_amount", "invoice_payload", "telegram_payment_charge_id")
        }
        return self._update("message", {**self._message(int(str(paid["user"])), "ru"), "refunded_payment": refund})

    def _transaction(self, charge: str, side: str) -> Json:
        paid = self.charges[charge]
        partner: Json = {
            "type": "user",
            "transaction_type": "invoice_payment",
            "user": self._user(int(str(paid["user"])), "ru"),
            "invoice_payload": paid["invoice_payload"],
        }
        return {"id": charge, "amount": paid["total_amount"], "date": int(time.time()), side: partner}

    def count_anew(self, first: int = 1) -> None:
        """The next update has this number, as after a week of silence."""
        self._numbers = itertools.count(first)

    def event(self, update: Json) -> Event:
        """An update as the webhook gets it."""
        return Event(json.dumps(update).encode(), {"x-telegram-bot-api-secret-token": self.webhook_secret})

    # -- the Bot API --------------------------------------------------------------------------------------------------

    async def _call(self, request: Request) -> Response:
        if request.path_params["token"] != self.token:
            return _error(401, "Unauthorized")
        if trouble := self.troubles.refuse():
            return _error(trouble, "Internal Server Error")
        body = await request.json()
        self.calls.append((request.path_params["method"], body))
        await trio.sleep(self.slow.get(request.path_params["method"], 0.0))
        match request.path_params["method"]:
            case "getUpdates":
                return await self._get_updates(body)
            case "answerPreCheckoutQuery":
                return self._answer(body)
            case "sendMessage":
                return self._send(body)
            case "refundStarPayment":
                return self._refund(body)
            case "getStarTransactions":
                offset, limit = int(str(body.get("offset", 0))), int(str(body.get("limit", 100)))
                if not 1 <= limit <= 100:
                    return _error(400, "Bad Request: limit must be between 1 and 100")
                return _fine({"transactions": self.transactions[offset : offset + limit]})
            case "createInvoiceLink":
                return self._create_link(body)
            case "setWebhook":
                self.webhook_url, self.webhook_secret = body["url"], body["secret_token"]
                self._drop(body)
                self._notify()
                return _fine(True)
            case "deleteWebhook":
                self.webhook_url = ""
                self._drop(body)
                return _fine(True)
        return _error(404, "Not Found")

    async def _get_updates(self, body: Json) -> Response:
        if self.webhook_url:
            return _error(409, "Conflict: can't use getUpdates method while webhook is active")
        offset, timeout = body.get("offset", 0), body.get("timeout", 0)
        assert isinstance(offset, int)
        assert isinstance(timeout, int)
        pending = len(self.updates)
        self.updates = self._from(offset)
        if len(self.updates) < pending:
            self._notify()
        with trio.move_on_after(timeout):
            while not self._from(offset):
                await self.changed.wait()
        return _fine(self._from(offset)[:100])

    def _from(self, offset: int) -> list[Json]:
        return [update for update in self.updates if _number(update) >= offset]

    def _answer(self, body: Json) -> Response:
        query_id = str(body["pre_checkout_query_id"])
        if trio.current_time() > self.asked_at.get(query_id, -CHECKOUT_SECONDS) + CHECKOUT_SECONDS:
            return _error(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        self.answers.setdefault(query_id, body)
        self._notify()
        return _fine(True)

    def _send(self, body: Json) -> Response:
        self.sent.append(body)
        chat = {"id": body["chat_id"], "type": "private"}
        message: Json = {
            "message_id": next(self._numbers),
            "date": int(time.time()),
            "chat": chat,
            "text": body["text"],
        }
        return _fine(message)

    def _refund(self, body: Json) -> Response:
        paid = self.charges.get(str(body["telegram_payment_charge_id"]))
        if paid is None or paid["user"] != body["user_id"] or paid["currency"] != "XTR":
            return _error(400, "Bad Request: CHARGE_NOT_FOUND")
        if paid["back"]:
            return _error(400, "Bad Request: CHARGE_ALREADY_REFUNDED")
        self.give_back(str(body["telegram_payment_charge_id"]))
        spoilt = self.troubles.spoil()
        return _error(spoilt, "Internal Server Error") if spoilt else _fine(True)

    def _create_link(self, body: Json) -> Response:
        link = f"https://t.me/$simulated{next(self._numbers)}"
        self.invoices[link] = body
        return _fine(link)

    def _drop(self, body: Json) -> None:
        if body.get("drop_pending_updates"):
            self.dropped += len(self.updates)
            self.updates = []

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _update(self, kind: str, thing: Json) -> Json:
        update: Json = {"update_id": next(self._numbers), kind: thing}
        self.updates.append(update)
        self._notify()
        return update

    def _message(self, user_id: int, language: str) -> Json:
        return {"message_id": next(self._numbers), **self._chat(user_id, language), "date": int(time.time())}

    def _chat(self, user_id: int, language: str) -> Json:
        chat = {"id": user_id, "first_name": "Somebody", "type": "private"}
        return {"from": self._user(user_id, language), "chat": chat}

    @staticmethod
    def _user(user_id: int, language: str, *, is_bot: bool = False) -> Json:
        return {"id": user_id, "is_bot": is_bot, "first_name": "Somebody", "language_code": language}

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


def _total(invoice: Json) -> int:
    prices = invoice["prices"]
    assert isinstance(prices, list)
    return sum(int(price["amount"]) for price in prices)


def _number(update: Json) -> int:
    number = update["update_id"]
    assert isinstance(number, int)
    return number


def _fine(result: object) -> Response:
    # In ASCII, as Telegram answers: half a character is possible then.
    return Response(json.dumps({"ok": True, "result": result}), media_type="application/json")


def _error(status: int, description: str) -> Response:
    return JSONResponse({"ok": False, "error_code": status, "description": description}, status)
