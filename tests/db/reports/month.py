"""A generated month, and what it comes to by Python alone: no SQL, and no code or price of the program.

Purses and rewards are `demo.model`'s. All is done about noon, so that no end lies near midnight, and each day a minute later than
the day before, so that what was bought a month ago has ended when the day's acts begin.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Final

import attrs

from db.billing.grants import grant_trial
from db.billing.orders import open_order, open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.promos import add_promo
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import renew, set_auto_renew
from db.money import Money
from db.work.claims import enlist_claimer
from demo.model import DAY, PRICES, Account, Model, Span
from tests.db.database import Database

PROVIDERS: Final = ("alpha", "beta")
NOON: Final = 43_200
PROMO: Final = 25
"""Percent."""
COUNTED: Final = (
    "sales",
    "sold",
    "gone_back",
    "discount",
    "new",
    "renewed",
    "returned",
    "lapsed",
    "trials",
    "from_trial",
)


def counter() -> Counter[str]:
    """Figures of one line."""
    return Counter()


@attrs.define
class Tally:
    """What a report must say: figures by dimension and key, and who bought."""

    figures: dict[tuple[str, str], Counter[str]] = attrs.field(factory=lambda: defaultdict(counter))
    payers: dict[tuple[str, str], set[int]] = attrs.field(factory=lambda: defaultdict(set))

    def add(self, keys: dict[str, str], customer: int, **figures: int) -> None:
        """Count figures in every dimension."""
        for pair in (("all", ""), *keys.items()):
            self.figures[pair].update(figures)
            if figures.get("sales"):
                self.payers[pair].add(customer)


@attrs.define
class Known:
    """What the tally remembers of a customer."""

    account: Account
    charges: list[tuple[str, dict[str, str], int]] = attrs.field(factory=list)
    """Of purchases by a provider that were not refunded: the charge, how it is counted, its price."""
    last: dict[str, str] | None = None
    """How the last purchase is counted."""
    bought: int = 0
    tried: str = ""
    """The day on which the trial began."""
    used_code: bool = False
    runs: bool = False

    @property
    def ends_on(self) -> int:
        """The day on which access ends; counted from the first."""
        return -1 if self.account.end is None else round(self.account.end.low / DAY)


@attrs.define
class Month:
    """Customers who join, try, buy, top up, renew, are refunded and lapse, day by day."""

    database: Database
    seed: int
    days: int
    model: Model = attrs.field(factory=Model)
    tally: Tally = attrs.field(factory=Tally)
    """Of the days from `counted_from` on."""
    counted_from: int = 0
    customers: dict[int, Known] = attrs.field(factory=dict)
    became: int = 0
    """Of those who bought first in the counted days: their trial began in them too."""
    base: datetime = attrs.field(init=False)
    day: int = 0
    numbers: int = 0
    random: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)  # to be repeated, not to be secret
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.base = today + timedelta(days=1)

    async def live(self) -> None:
        """All days."""
        await self.database.run(add_promo, "spring", PROMO, actor="operator")
        for day in range(self.days):
            self.day = day
            await self._renew()
            await self._move(0)
            for one in self.customers.values():
                if one.runs and one.ends_on <= self.day:
                    self._lapse(one)
            for _ in range(2):
                await self._join()
            for _ in range(6):
                await self._act(self.customers[self.random.choice(list(self.customers))])

    def date(self, day: int) -> date:
        """A day as reports know it."""
        return (self.base + timedelta(days=day)).date()

    async def _move(self, hours: float) -> None:
        wanted = self.base + timedelta(days=self.day, seconds=NOON + 60 * self.day, hours=hours)
        await self.database.move_clock(seconds=(wanted - datetime.now(UTC)).total_seconds())

    async def _renew(self) -> None:
        await self._move(-3)
        owner = await self.database.run(enlist_claimer, "worker")
        for claim in await self.database.run(claim_renewals, owner, 100, 60.0):
            await self.database.run(renew, claim)
        for one in self.customers.values():
            plan = one.account.plan
            if one.account.auto_renew and one.runs and one.ends_on == self.day and plan is not None:
                price = PRICES[plan[0]][plan[1]]
                if one.account.balance >= price:
                    self._sold(one, plan, "balance", price)
                    self.model.buy_from_balance(one.account, plan, Span(self.day * DAY, self.day * DAY))

    def _lapse(self, one: Known) -> None:
        one.runs = False
        if one.last is not None:
            self._count(one, one.last, lapsed=1)

    def _count(self, one: Known, keys: dict[str, str], **figures: int) -> None:
        if self.day >= self.counted_from:
            source = "by themselves" if one.account.referrer is None else "invited"
            day = self.date(self.day).isoformat()
            self.tally.add({"day": day, "source": source, **keys}, one.account.telegram_id, **figures)

    async def _join(self) -> None:
        number = 1000 + len(self.customers)
        referrer = self.random.choice(list(self.customers)) if self.customers and self.random.random() < 0.5 else None
        await self.database.add_customer(number, referrer=referrer)
        self.customers[number] = Known(self.model.join(number, referrer))

    async def _act(self, one: Known) -> None:
        if one.account.auto_renew:  # its money waits for the renewal
            return
        acts = (self._pay, self._pay, self._topup, self._spend, self._try, self._refund, self._keep)
        await self.random.choice(acts)(one)

    def _sold(
        self, one: Known, plan: tuple[str, int], provider: str, price: int, code: str = "no code"
    ) -> dict[str, str]:
        keys = {"plan": f"{plan[0]} {plan[1]}", "provider": provider, "promo": code}
        is_new = not one.bought
        self._count(
            one,
            keys,
            sales=1,
            sold=price,
            discount=PRICES[plan[0]][plan[1]] - price,
            new=int(is_new),
            renewed=int(not is_new and one.runs),
            returned=int(not is_new and not one.runs),
            from_trial=int(is_new and bool(one.tried)),
        )
        is_counted = self.day >= self.counted_from
        self.became += is_new and is_counted and one.tried >= self.date(self.counted_from).isoformat()
        one.bought += 1
        one.last = keys
        one.runs = True
        return keys

    def _now(self) -> Span:
        return Span(self.day * DAY, self.day * DAY)

    def _number(self) -> str:
        self.numbers += 1
        return f"number-{self.numbers}"

    async def _pay(self, one: Known) -> None:
        plan = (self.random.choice(("basic", "plus")), self.random.choice((30, 30, 30, 90)))
        list_price = PRICES[plan[0]][plan[1]]
        code, provider, charge = None, self.random.choice(PROVIDERS), self._number()
        if not one.used_code and self.random.random() < 0.3:
            code, one.used_code = "spring", True
        order = await self.database.run(
            open_order, one.account.telegram_id, *plan, idempotency_key=charge, promo_code=code
        )
        price = list_price * (100 - PROMO) // 100 if code else list_price
        await self.database.run(finalize_purchase, FinalizePurchase(provider, charge, Money(price), order.id))
        keys = self._sold(one, plan, provider, price, code or "no code")
        one.charges.append((charge, keys, price))
        self.model.revenue += price
        self.model._reward(one.account, price)
        self.model._extend(one.account, self._now(), plan[1], "paid")
        one.account.plan = plan

    async def _topup(self, one: Known) -> None:
        amount, charge = self.random.randint(100, 500) * 100, self._number()
        order = await self.database.run(open_topup, one.account.telegram_id, Money(amount), idempotency_key=charge)
        provider = self.random.choice(PROVIDERS)
        await self.database.run(finalize_purchase, FinalizePurchase(provider, charge, Money(amount), order.id))
        self.model.topup(one.account, amount)

    async def _spend(self, one: Known) -> None:
        plan = ("basic", 30)
        if one.account.balance >= PRICES["basic"][30]:
            await self.database.buy_from_balance(one.account.telegram_id, *plan, key=self._number())
            self._sold(one, plan, "balance", PRICES["basic"][30])
            self.model.buy_from_balance(one.account, plan, self._now())

    async def _try(self, one: Known) -> None:
        if one.tried or one.bought:
            return
        await self.database.run(grant_trial, one.account.telegram_id, actor="front_end:test")
        one.tried, one.runs = self.date(self.day).isoformat(), True
        self._count(one, {"plan": "trial", "provider": "trial", "promo": "no code"}, trials=1)
        self.model.trial(one.account, self._now())

    async def _keep(self, one: Known) -> None:
        """Renew by itself, if the money for it is there."""
        plan = one.account.plan
        if one.runs and plan is not None and one.account.paid >= PRICES[plan[0]][plan[1]]:
            await self.database.run(set_auto_renew, one.account.telegram_id, True, actor="operator")
            one.account.auto_renew = True

    async def _refund(self, one: Known) -> None:
        """The only purchase goes back whole; nothing else gave access, so that it ends."""
        if one.bought != 1 or not one.charges or not one.runs or one.tried:
            return
        charge, keys, price = one.charges.pop()
        await self.database.run(
            refund_charge, keys["provider"], charge, amount=None, actor="operator", idempotency_key=self._number()
        )
        self._count(one, keys, gone_back=price)
        self._lapse(one)
        self.model._leaves(price)
        self.model._ends(one.account, self._now())
        one.account.is_paying = False
        if one.account.referrer is not None:
            referrer = self.model.accounts[one.account.referrer]
            taken = min(referrer.earned, one.account.last_reward)
            referrer.earned -= taken
            referrer.debt -= one.account.last_reward - taken
