"""Carrying out what customers do: by HTTP at the shop's interface and at the providers', and by an operator's command."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import attrs
import trio

from demo.customers import Action
from demo.database import DemoDatabase
from demo.errors import DemoFailed
from demo.front_end import FrontEnd
from demo.installation import Installation
from demo.model import PRICES, Account, Model, Plan, Span
from demo.providers import Providers


class Unexpected(DemoFailed):
    """The shop did something else than the rules say."""


@attrs.define(eq=False)
class ActionRunner:
    """Performs customers' actions at the real shop, and enters each into the model."""

    database: DemoDatabase
    front_end: FrontEnd
    gateway: str
    providers: Providers
    installation: Installation
    model: Model
    seed: int
    unpaid: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    """Invoices that were opened and left: customer → provider and invoice."""
    _randoms: dict[int, random.Random] = attrs.field(factory=dict)
    _operator_is_busy: trio.Lock = attrs.field(factory=trio.Lock)
    """The operator does one thing after the other."""

    async def perform(self, action: Action) -> None:
        """Perform one action. Raises Unexpected, Declined, PaymentFailed, StackFailed or an error of HTTP if it does
        not go as the rules say.
        """
        account = self.model.accounts.get(action.telegram_id) or self.model.join(action.telegram_id, action.referrer)
        match action.kind:
            case "join":
                body: dict[str, object] = {"language": self._random_of(action.telegram_id).choice(("ru", "en"))}
                if action.referrer is not None:
                    body["referrer"] = action.referrer
                await self.front_end.customer(action.telegram_id, "PUT", body=body)
            case "buy":
                assert action.plan is not None
                await self._buy(account, action.provider, action.plan)
            case "topup":
                order = await self._order(action, {"amount": action.amount})
                await self._pay(action.telegram_id, action.provider, await self._invoice(action, order))
                self.model.topup(account, action.amount)
            case "order":
                assert action.plan is not None
                order = await self._order(action, _wish(action.plan))
                self.unpaid[action.telegram_id] = (action.provider, await self._invoice(action, order))
            case "pay":
                assert action.plan is not None
                await self._pay(action.telegram_id, *self.unpaid.pop(action.telegram_id))
                self.model.late_payment(account, action.plan)
            case "balance":
                assert action.plan is not None
                await self._buy_from_balance(account, action.plan)
            case "trial":
                began = self.database.now()
                await self.front_end.customer(action.telegram_id, "POST", "/trial")
                self.model.trial(account, Span(began, self.database.now()))
            case "auto_renew":
                await self.front_end.customer(action.telegram_id, "PUT", "/auto-renew", {"enabled": True})
                account.auto_renew = True
            case "grant":
                assert action.plan is not None
                began = self.database.now()
                await self.installation.command(
                    *("grant", str(action.telegram_id), "--tariff", action.plan[0], "--days", str(action.days)),
                    *("--key", f"gift-{action.telegram_id}"),
                )
                self.model.grant(account, action.days, Span(began, self.database.now()))
            case "refund":
                began = self.database.now()
                await self._go_back(action.telegram_id)
                self.model.refund(account, Span(began, self.database.now()))
            case "dispute":
                await self._dispute(account, action)
            case "compensate":
                began = self.database.now()
                done = await self._operator("compensate", str(action.telegram_id), "--reason", "it was too slow")
                if not self.model.compensate(account, done["amount"], Span(began, self.database.now())):
                    raise Unexpected(f"customer {action.telegram_id} was credited {done['amount']} kopecks")
            case "withdraw":
                await self._withdraw(account, action.amount)
            case _:
                raise ValueError(action.kind)

    async def link(self, telegram_id: int) -> str:
        """The link that the customer's VPN program uses now, as the program gets it: from the subscription link."""
        said = await self.front_end.customer(telegram_id, "GET", "/link")
        fetched = await self.front_end.http.get(
            self.gateway + said["subscription_path"], headers={"user-agent": "v2rayNG/1.9"}
        )
        links = base64.b64decode(fetched.content).decode().splitlines()
        if not fetched.is_success or not links:
            raise Unexpected(f"customer {telegram_id} has access and no link: HTTP {fetched.status_code}")
        if links != said["links"]:
            raise Unexpected(f"the subscription link of customer {telegram_id} leads elsewhere than the shop says")
        return links[0]

    async def _buy(self, account: Account, provider: str, plan: Plan) -> None:
        action = Action(0, account.telegram_id, "buy", plan=plan, provider=provider)
        order = await self._order(action, _wish(plan))
        if order["amount"] != PRICES[plan[0]][plan[1]]:
            raise Unexpected(f"{plan} was priced at {order['amount']}")
        invoice = await self._invoice(action, order)
        began = self.database.now()
        await self._pay(action.telegram_id, provider, invoice)
        self.model.purchase(account, plan, Span(began, self.database.now()))

    async def _buy_from_balance(self, account: Account, plan: Plan) -> None:
        # A double click: twice the same request.
        began = self.database.now()
        body = {"idempotency_key": self._key(account.telegram_id), "price": PRICES[plan[0]][plan[1]], **_wish(plan)}
        answers = [
            await self.front_end.customer(account.telegram_id, "POST", "/purchases", dict(body)) for _ in range(2)
        ]
        if [answer["replayed"] for answer in answers] != [False, True]:
            raise Unexpected(f"a double click of customer {account.telegram_id} was two purchases")
        self.model.buy_from_balance(account, plan, Span(began, self.database.now()))

    async def _go_back(self, telegram_id: int, *how: str) -> dict[str, Any]:
        charge = await self._charge(telegram_id)
        return await self._operator("refund", "--provider", charge["provider"], "--charge", charge["charge_id"], *how)

    async def _dispute(self, account: Account, action: Action) -> None:
        """The customer's bank takes the money back, and the operator records what the provider says of it."""
        charge = await self._charge(account.telegram_id)
        for stage, status in (("created", "needs_response"), ("closed", "lost")):
            event = self.providers.stripe.dispute(charge["charge_id"], stage, status, amount=charge["amount"])
            await self.providers.deliver(self.gateway, action.provider, event)
        began = self.database.now()
        done = await self._go_back(account.telegram_id, "--chargeback")
        if not self.model.chargeback(account, done["owed"], Span(began, self.database.now())):
            raise Unexpected(f"customer {account.telegram_id} owes {done['owed']} kopecks after a chargeback")
        rows = await self.database.rows(
            "SELECT id, kind FROM cases WHERE state = 'open' AND customer_id = "
            "(SELECT id FROM customers WHERE telegram_id = $1) ORDER BY kind",
            account.telegram_id,
        )
        if [row["kind"] for row in rows] != ["chargeback", "provider_dispute_lost"]:
            raise Unexpected(f"a lost dispute left these cases: {rows}")
        for row in rows:
            await self._operator("cases", "close", str(row["id"]), "--resolution", "recorded as a chargeback")

    async def _withdraw(self, account: Account, amount: int) -> None:
        """Twice asked for: once rejected, once paid out."""
        body = {"amount": amount, "destination": "2200 0000 0000 0004"}
        for settle in (("reject", "--reason", "the name differs"), ("approve", "--reference", "transfer 1")):
            asked = await self.front_end.customer(
                account.telegram_id, "POST", "/withdrawals", {**body, "idempotency_key": self._key(account.telegram_id)}
            )
            verb, *rest = settle
            await self._operator("withdrawals", verb, str(asked["withdrawal_id"]), *rest)
        self.model.withdraw(account, amount)

    async def _operator(self, *command: str) -> dict[str, Any]:
        async with self._operator_is_busy:
            _, said = await self.installation.command(*command, "--json")
        answer: dict[str, Any] = json.loads(said)
        return answer

    async def _charge(self, telegram_id: int) -> dict[str, Any]:
        """What the customer paid last."""
        rows = await self.database.rows(
            "SELECT m.provider, m.charge_id, m.amount FROM money_in m JOIN customers c ON c.id = m.customer_id "
            "WHERE c.telegram_id = $1 ORDER BY m.id DESC LIMIT 1",
            telegram_id,
        )
        return rows[0]

    async def _order(self, action: Action, wish: dict[str, object]) -> Any:
        body = {"idempotency_key": self._key(action.telegram_id), "provider": action.provider, **wish}
        return await self.front_end.customer(action.telegram_id, "POST", "/orders", body)

    async def _invoice(self, action: Action, order: Any) -> str:
        path = f"/orders/{order['order_id']}/invoice"
        invoice = await self.front_end.customer(
            action.telegram_id, "POST", path, {"provider": action.provider, "price": order["amount"]}
        )
        # Telegram knows its invoices by their links.
        return str(invoice["pay_url" if action.provider == "telegram" else "invoice_id"])

    async def _pay(self, telegram_id: int, provider: str, invoice_id: str) -> None:
        await self.providers.pay(self.gateway, provider, telegram_id, invoice_id, self._random_of(telegram_id))

    def _key(self, telegram_id: int) -> str:
        return f"demo-{telegram_id}-{self._random_of(telegram_id).getrandbits(64):016x}"

    def _random_of(self, telegram_id: int) -> random.Random:
        """A customer's own generator: who acts first at a moment must not decide what another customer meets."""
        return self._randoms.setdefault(telegram_id, random.Random(f"{self.seed}/{telegram_id}"))  # noqa: S311  guards nothing


def _wish(plan: Plan) -> dict[str, object]:
    return {"tariff": plan[0], "days": plan[1]}
