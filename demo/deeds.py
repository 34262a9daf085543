"""What customers do, done: by HTTP at the shop's interface and at the providers', and by an operator's command."""

from __future__ import annotations

import base64
import random
from typing import Any

import attrs

from demo.books import Books
from demo.errors import DemoFailed
from demo.front_end import FrontEnd
from demo.installation import Installation
from demo.model import PRICES, Account, Model, Plan, Span
from demo.people import Deed
from demo.providers import Providers


class Surprise(DemoFailed):
    """The shop did something else than it ought to."""


@attrs.define(eq=False)
class Doer:
    """Does deeds, and tells the model of each."""

    books: Books
    front_end: FrontEnd
    gateway: str
    providers: Providers
    installation: Installation
    model: Model
    seed: int
    unpaid: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    """Invoices that were opened and left: customer → provider and invoice."""
    _chances: dict[int, random.Random] = attrs.field(factory=dict)

    async def do(self, deed: Deed) -> None:
        """Do it. Raises Surprise, Declined, PaymentFailed, StackFailed or an error of HTTP if it does not go as it ought to."""
        account = self.model.accounts.get(deed.who) or self.model.join(deed.who, deed.referrer)
        match deed.what:
            case "join":
                body: dict[str, object] = {"language": self._chance_of(deed.who).choice(("ru", "en"))}
                if deed.referrer is not None:
                    body["referrer"] = deed.referrer
                await self.front_end.customer(deed.who, "PUT", body=body)
            case "buy":
                assert deed.plan is not None
                await self._buy(account, deed.provider, deed.plan)
            case "topup":
                order = await self._order(deed, {"amount": deed.amount})
                await self._pay(deed.who, deed.provider, await self._invoice(deed, order))
                self.model.topup(account, deed.amount)
            case "order":
                assert deed.plan is not None
                order = await self._order(deed, _wish(deed.plan))
                self.unpaid[deed.who] = (deed.provider, await self._invoice(deed, order))
            case "pay":
                assert deed.plan is not None
                await self._pay(deed.who, *self.unpaid.pop(deed.who))
                self.model.late_payment(account, deed.plan)
            case "balance":
                assert deed.plan is not None
                await self._buy_from_balance(account, deed.plan)
            case "trial":
                began = self.books.now()
                await self.front_end.customer(deed.who, "POST", "/trial")
                self.model.trial(account, Span(began, self.books.now()))
            case "auto_renew":
                await self.front_end.customer(deed.who, "PUT", "/auto-renew", {"enabled": True})
                account.auto_renew = True
            case "grant":
                assert deed.plan is not None
                began = self.books.now()
                await self.installation.command(
                    *("grant", str(deed.who), "--tariff", deed.plan[0], "--days", str(deed.days)),
                    *("--key", f"gift-{deed.who}"),
                )
                self.model.grant(account, deed.days, Span(began, self.books.now()))
            case _:
                raise ValueError(deed.what)

    async def link(self, telegram_id: int) -> str:
        """The link that the customer's VPN program uses now, as the program gets it: from the subscription link."""
        said = await self.front_end.customer(telegram_id, "GET", "/link")
        fetched = await self.front_end.http.get(
            self.gateway + said["subscription_path"], headers={"user-agent": "v2rayNG/1.9"}
        )
        links = base64.b64decode(fetched.content).decode().splitlines()
        if not fetched.is_success or not links:
            raise Surprise(f"customer {telegram_id} has access and no link: HTTP {fetched.status_code}")
        if links != said["links"]:
            raise Surprise(f"the subscription link of customer {telegram_id} leads elsewhere than the shop says")
        return links[0]

    async def _buy(self, account: Account, provider: str, plan: Plan) -> None:
        deed = Deed(0, account.telegram_id, "buy", plan=plan, provider=provider)
        order = await self._order(deed, _wish(plan))
        if order["amount"] != PRICES[plan[0]][plan[1]]:
            raise Surprise(f"{plan} was priced at {order['amount']}")
        invoice = await self._invoice(deed, order)
        began = self.books.now()
        await self._pay(deed.who, provider, invoice)
        self.model.purchase(account, plan, Span(began, self.books.now()))

    async def _buy_from_balance(self, account: Account, plan: Plan) -> None:
        # A double click: twice the same request.
        began = self.books.now()
        body = {"idempotency_key": self._key(account.telegram_id), **_wish(plan)}
        answers = [
            await self.front_end.customer(account.telegram_id, "POST", "/purchases", dict(body)) for _ in range(2)
        ]
        if [answer["replayed"] for answer in answers] != [False, True]:
            raise Surprise(f"a double click of customer {account.telegram_id} was two purchases")
        self.model.buy_from_balance(account, plan, Span(began, self.books.now()))

    async def _order(self, deed: Deed, wish: dict[str, object]) -> Any:
        body = {"idempotency_key": self._key(deed.who), "provider": deed.provider, **wish}
        return await self.front_end.customer(deed.who, "POST", "/orders", body)

    async def _invoice(self, deed: Deed, order: Any) -> str:
        path = f"/orders/{order['order_id']}/invoice"
        invoice = await self.front_end.customer(deed.who, "POST", path, {"provider": deed.provider})
        # Telegram knows its invoices by their links.
        return str(invoice["pay_url" if deed.provider == "telegram" else "invoice_id"])

    async def _pay(self, telegram_id: int, provider: str, invoice_id: str) -> None:
        await self.providers.pay(self.gateway, provider, telegram_id, invoice_id, self._chance_of(telegram_id))

    def _key(self, telegram_id: int) -> str:
        return f"demo-{telegram_id}-{self._chance_of(telegram_id).getrandbits(64):016x}"

    def _chance_of(self, telegram_id: int) -> random.Random:
        """A customer's own: who acts first at a moment must not decide what another one meets."""
        return self._chances.setdefault(telegram_id, random.Random(f"{self.seed}/{telegram_id}"))  # noqa: S311  guards nothing


def _wish(plan: Plan) -> dict[str, object]:
    return {"tariff": plan[0], "days": plan[1]}
