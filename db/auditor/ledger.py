"""The journals that the facts call for, with their legs, and the purses that they lead to, replayed in their order."""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import attrs

from db.auditor.books import Books, by, grouped, number_in
from db.auditor.charges import ChargeEnd
from db.auditor.rewards import Rewards, Spending
from db.tx import Row

Legs = dict[tuple[str, int | None], int]
"""Amount by account kind and customer."""


@attrs.define(slots=False)
class Journal:
    """A journal as the facts call for it, and the stored one that stands for it, if there is one."""

    kind: str
    key: str | None
    """Its idempotency key; None: the facts do not say it."""
    customer_id: int | None
    order_id: int | None
    money_in_id: int | None
    at: datetime
    legs: Legs
    stored: Row | None

    @property
    def subject(self) -> str:
        """What names it in a finding."""
        number = "missing" if self.stored is None else self.stored["id"]
        return f"journal {number} ({self.key or self.kind})"


@attrs.define(slots=False)
class Loss:
    """What a refund finds, as derived."""

    refund: Row
    spent: int = 0
    owed: int = 0
    written_off: int = 0
    uncompensated: int = 0
    undone: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    """Base and value by grant."""
    clawback: Journal | None = None
    journal: Journal | None = None


@attrs.define(slots=False)
class Task:
    """A fact that calls for a journal; `build` derives it from the purses of that moment."""

    place: float
    build: Callable[[], None]


@attrs.define(slots=False)
class Ledger:
    """A replay of all journals."""

    books: Books
    ends: dict[int, ChargeEnd]
    unused: Callable[[int, datetime], tuple[int, int]]
    """How much of a grant was not used at a moment, and how much there was of it, in microseconds."""
    journals: list[Journal] = attrs.field(factory=list)
    purses: dict[tuple[int, str], int] = attrs.field(factory=lambda: defaultdict(int))
    losses: dict[int, Loss] = attrs.field(factory=dict)
    overdrawn: list[tuple[str, int, int, int]] = attrs.field(factory=list)
    """Withdrawals of more than was mature: subject, customer, what could be withdrawn, what was."""
    compensated: dict[int, int] = attrs.field(factory=lambda: defaultdict(int))
    """By grant."""
    rewards: Rewards = attrs.field(init=False)
    spendings: dict[int, list[Spending]] = attrs.field(factory=lambda: defaultdict(list))
    _credited: dict[int, tuple[int, str]] = attrs.field(factory=dict)
    """By charge: to whom and into which purse an operator gave what waited in a case."""
    _by_key: dict[str, Row] = attrs.field(init=False)
    _by_id: dict[int, Row] = attrs.field(init=False)
    _times: list[tuple[datetime, int]] = attrs.field(init=False)
    _audits: dict[str, list[Row]] = attrs.field(init=False)
    began: datetime | None = attrs.field(init=False)
    """When purses came to a database that was there before; what is older was brought along."""
    _openings: dict[int, Row] = attrs.field(init=False)
    _refunds: dict[int, list[Row]] = attrs.field(init=False)
    _parts: dict[int, list[Row]] = attrs.field(init=False)
    _grants_of_charge: dict[int, list[Row]] = attrs.field(init=False)
    _grants_of_order: dict[int, list[Row]] = attrs.field(init=False)
    _said_of_renewals: dict[str, int] = attrs.field(init=False)
    _refund_details: dict[str, Row] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._by_key = by(self.books["journals"], "idempotency_key")
        self._by_id = by(self.books["journals"], "id")
        self._times = sorted((row["created_at"], row["id"]) for row in self.books["journals"])
        self._audits = grouped(self.books["audit"], "action")
        self._openings = by(self.books["purse_openings"], "customer_id")
        self.began = max((row["moved_at"] for row in self.books["purse_openings"]), default=None)
        self._refunds = grouped(self.books["refunds"], "money_in_id")
        self._parts = grouped(self.books["compensation_parts"], "journal_id")
        self._grants_of_charge = grouped(self.books["entitlement_events"], "money_in_id")
        self._grants_of_order = grouped(self.books["entitlement_events"], "order_id")
        self._refund_details = by(self._audits.get("refund", ()), "subject")
        self._said_of_renewals = {
            row["subject"]: json.loads(row["details"])["amount"] for row in self._audits.get("renew", ())
        }
        self.rewards = Rewards(self.books, self.ends, self._openings)

    def replay(self) -> None:
        """Derive all journals, in the order in which they were written."""
        for task in sorted(self._tasks(), key=lambda task: task.place):
            task.build()

    # ---- facts --------------------------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[Task]:
        for charge in self.books["money_in"]:
            if (task := self._charge_task(charge)) is not None:
                yield task
        for order in self.books["orders"]:
            if order["paid_from"] == "balance" and not self._is_old(order["customer_id"], order["paid_at"]):
                yield self._task(f"purchase:{order['id']}", order["paid_at"], self._balance_purchase, order)
        subscriptions = by(self.books["subscriptions"], "id")
        for renewal in self.books["renewals"]:
            key = f"renewal:subscription:{renewal['subscription_id']}:{int(renewal['period_start'].timestamp())}"
            owner = subscriptions.get(renewal["subscription_id"])
            customer = None if owner is None else owner["customer_id"]
            if not self._is_old(customer, renewal["created_at"]):
                yield self._task(key, renewal["created_at"], self._renewal, renewal, customer, key)
        for refund in self.books["refunds"]:
            end = self.ends.get(refund["money_in_id"])
            if end is None or not self._is_old(end.customer_id, refund["created_at"]):
                yield self._task(f"refund:{refund['idempotency_key']}", refund["created_at"], self._refund, refund)
        for withdrawal in self.books["withdrawals"]:
            customer, asked = withdrawal["customer_id"], withdrawal["idempotency_key"]
            if not self._is_old(customer, withdrawal["created_at"]):
                key = f"withdrawal:{customer}:{asked}"
                yield self._task(key, withdrawal["created_at"], self._withdrawal, withdrawal, key)
            if withdrawal["settled_at"] is not None and not self._is_old(customer, withdrawal["settled_at"]):
                key = f"withdrawal:{withdrawal['id']}:settled"
                yield self._task(key, withdrawal["settled_at"], self._settlement, withdrawal, key)
        for opening in self.books["purse_openings"]:
            if opening["journal_id"] is not None:
                yield Task(float(opening["journal_id"]), lambda row=opening: self._opening(row))  # type: ignore[misc]
        for opening in self.books["openings"]:
            key = f"opening:{opening['customer_id']}"
            yield self._task(key, opening["opened_at"], self._brought_along, opening, key)
        yield from self._audited_tasks(subscriptions)

    def _audited_tasks(self, subscriptions: dict[Any, Row]) -> Iterator[Task]:
        """What only the trail says: adjustments, credited cases, compensations."""
        for said in self._audits.get("adjust_balance", ()):
            if not self._is_old(said["customer_id"], said["at"]):
                number = number_in(said["subject"])
                place = float(number) if number in self._by_id else self._place_at(said["at"])
                yield Task(place, lambda row=said, n=number: self._adjustment(row, n))  # type: ignore[misc]
        cases = by(self.books["cases"], "id")
        for said in self._audits.get("credit_case", ()):
            if not self._is_old(said["customer_id"], said["at"]):
                case = cases.get(number_in(said["subject"]))
                yield self._task(said["subject"], said["at"], self._case_credit, said, case)
        events = grouped(self.books["entitlement_events"], "subscription_id")
        for said in self._audits.get("compensate", ()):
            number = number_in(said["subject"])
            owner = subscriptions.get(number)
            ended = [
                row
                for row in events.get(number, ())
                if row["kind"] == "compensation" and row["created_at"] == said["at"]
            ]
            position = ended[0]["position"] if ended else "?"
            if not self._is_old(said["customer_id"], said["at"]) and json.loads(said["details"]).get("amount"):
                key = f"compensation:{number}:{position}"
                yield self._task(key, said["at"], self._compensation, said, key, owner)

    def _task(self, key: str, at: datetime, build: Callable[..., None], *arguments: Any) -> Task:
        stored = self._by_key.get(key)
        place = self._place_at(at) if stored is None else float(stored["id"])
        return Task(place, lambda: build(*arguments))

    def _place_at(self, at: datetime) -> float:
        """Behind everything that was written until then."""
        index = bisect.bisect_right(self._times, (at, 2**62))
        return max((number for _, number in self._times[max(0, index - 50) : index]), default=0) + 0.5

    def _is_old(self, customer_id: int | None, at: datetime) -> bool:
        """Whether it happened before the customer's purses, which the opening then stands for."""
        if customer_id is None:
            return self.began is not None and at < self.began
        opening = self._openings.get(customer_id)
        return opening is not None and at < opening["moved_at"]

    # ---- journals -----------------------------------------------------------------------------------------------------

    def _add(
        self,
        kind: str,
        key: str | None,
        customer: int | None,
        order: int | None,
        money_in: int | None,
        at: datetime,
        legs: Legs,
        stored: Row | None = None,
    ) -> Journal:
        found = stored if key is None else self._by_key.get(key)
        journal = Journal(
            kind, key, customer, order, money_in, at, {leg: amount for leg, amount in legs.items() if amount}, found
        )
        self.journals.append(journal)
        for (account, owner), amount in journal.legs.items():
            if owner is not None:
                self.purses[owner, account] += amount
        return journal

    def _charge_task(self, charge: Row) -> Task | None:
        end = self.ends[charge["id"]]
        if end.kind == "unvalued" or self._is_old(end.customer_id, charge["received_at"]):
            return None
        is_purchase = end.kind == "purchase"
        key = f"purchase:{charge['order_id']}" if is_purchase else f"money_in:{charge['id']}"

        def build() -> None:
            to = ("revenue", None) if is_purchase else ("paid", end.customer_id)
            if end.kind == "suspense":
                to = ("suspense", None)
            legs: Legs = {("world", None): -end.value, to: end.value}
            at = charge["received_at"]
            journal = self._add(end.kind, key, end.customer_id, charge["order_id"], charge["id"], at, legs)
            if is_purchase and end.customer_id is not None:
                spending = Spending(journal, end.customer_id, end.value, end.value, charge["id"], charge["order_id"])
                self._reward(spending)

        return self._task(key, charge["received_at"], build)

    def _take(self, customer: int, price: int) -> Legs:
        """`paid`, then `credit`, then `earned`; what nothing covers is asked of `paid`, where it shows."""
        legs: Legs = {("revenue", None): price}
        left = price
        for purse in ("paid", "credit", "earned"):
            part = min(left, max(0, self.purses[customer, purse]))
            legs[purse, customer] = -part
            left -= part
        legs["paid", customer] -= left
        return legs

    def _balance_purchase(self, order: Row) -> None:
        customer = order["customer_id"]
        legs = self._take(customer, order["price_amount"])
        paid = -legs["paid", customer]
        journal = self._add(
            "balance_purchase", f"purchase:{order['id']}", customer, order["id"], None, order["paid_at"], legs
        )
        self._reward(Spending(journal, customer, paid, order["price_amount"], None, order["id"]))

    def _renewal(self, renewal: Row, customer: int | None, key: str) -> None:
        if customer is None:
            return
        price = self.rewards.prices.of_renewal(customer, renewal["created_at"])
        if price is None:
            price = self._said_of_renewals.get(key.partition(":")[2], 0)  # from before the first price that is known
        legs = self._take(customer, price)
        paid = -legs["paid", customer]
        journal = self._add("auto_renewal", key, customer, None, None, renewal["created_at"], legs)
        self._reward(Spending(journal, customer, paid, price, None, None, renewal["event_id"]))

    def _reward(self, spending: Spending) -> None:
        """Note outside money that bought access, and pay the share of whoever invited the buyer."""
        self.spendings[spending.customer_id].append(spending)
        wanted = self.rewards.earned_by(spending)
        if wanted is None:
            return
        debt = -self.purses[wanted.referrer_id, "debt"]
        pays = min(debt, wanted.amount)
        legs: Legs = {
            ("referral_expense", None): -wanted.amount,
            ("debt", wanted.referrer_id): pays,
            ("earned", wanted.referrer_id): wanted.amount - pays,
        }
        number = "?" if spending.journal.stored is None else spending.journal.stored["id"]
        wanted.to_earned = wanted.amount - pays
        wanted.journal = self._add(
            "referral_reward",
            f"referral:{number}",
            wanted.referrer_id,
            None,
            spending.money_in_id,
            spending.journal.at,
            legs,
        )

    def _adjustment(self, said: Row, number: int) -> None:
        customer, amount = said["customer_id"], json.loads(said["details"])["amount"]
        legs: Legs = {("adjustment", None): -amount}
        if amount > 0:
            legs["credit", customer] = amount
        else:
            part = min(-amount, max(0, self.purses[customer, "credit"]))
            legs["credit", customer], legs["earned", customer] = -part, amount + part
        self._add("admin_adjust", None, customer, None, None, said["at"], legs, self._by_id.get(number))

    def _case_credit(self, said: Row, case: Row | None) -> None:
        details = json.loads(said["details"])
        money_in = None if case is None else case["money_in_id"]
        end = None if money_in is None else self.ends.get(money_in)
        value = details["amount"] if end is None or end.kind == "unvalued" else end.value
        source, purse = ("adjustment", "credit") if end is None or end.kind == "unvalued" else ("suspense", "paid")
        if source == "suspense":
            value -= sum(
                row["amount"] for row in self._refunds.get(money_in or 0, ()) if row["created_at"] < said["at"]
            )
        legs: Legs = {(source, None): -value, (purse, said["customer_id"]): value}
        self._add("case_credit", said["subject"], said["customer_id"], None, money_in, said["at"], legs)
        if money_in is not None:
            self._credited[money_in] = (said["customer_id"], purse)

    def _compensation(self, said: Row, key: str, owner: Row | None) -> None:
        amount = json.loads(said["details"])["amount"]
        customer = said["customer_id"] if owner is None else owner["customer_id"]
        legs: Legs = {("compensation_expense", None): -amount, ("credit", customer): amount}
        journal = self._add("compensation", key, customer, None, None, said["at"], legs)
        if journal.stored is not None:
            for part in self._parts.get(journal.stored["id"], ()):
                self.compensated[part["event_id"]] += part["amount"]

    def _opening(self, opening: Row) -> None:
        customer = opening["customer_id"]
        legs: Legs = {(purse, customer): opening[purse] for purse in ("paid", "credit", "earned", "debt")}
        legs["customer", customer] = -sum(legs.values())
        stored = self._by_id.get(opening["journal_id"])
        self.purses[customer, "customer"] = -legs["customer", customer]
        self._add("purse_split", None, customer, None, None, opening["moved_at"], legs, stored)

    def _brought_along(self, opening: Row, key: str) -> None:
        """What a customer had in another system: it came from there, not from outside."""
        customer = opening["customer_id"]
        legs: Legs = {(purse, customer): opening[purse] for purse in ("paid", "credit", "earned", "debt")}
        legs["opening", None] = -sum(legs.values())
        if any(legs.values()):
            self._add("opening", key, customer, None, None, opening["opened_at"], legs)
        self.rewards.brought_along(opening)

    def _withdrawal(self, withdrawal: Row, key: str) -> None:
        customer, amount = withdrawal["customer_id"], withdrawal["amount"]
        mature = max(0, self.purses[customer, "earned"] - self.rewards.unmatured(customer, withdrawal["created_at"]))
        if amount > mature:
            self.overdrawn.append((f"withdrawal {withdrawal['id']}", customer, mature, amount))
        legs: Legs = {("earned", customer): -amount, ("withdrawal_reserve", None): amount}
        self._add("withdrawal_reserve", key, customer, None, None, withdrawal["created_at"], legs)

    def _settlement(self, withdrawal: Row, key: str) -> None:
        customer, amount = withdrawal["customer_id"], withdrawal["amount"]
        legs: Legs = {("withdrawal_reserve", None): -amount}
        if withdrawal["state"] == "paid":
            legs["world", None] = amount
        else:
            legs["paid", customer], legs["credit", customer] = withdrawal["from_paid"], withdrawal["from_credit"]
            legs["earned", customer] = amount - withdrawal["from_paid"] - withdrawal["from_credit"]
        kind = "withdrawal_paid" if withdrawal["state"] == "paid" else "withdrawal_release"
        self._add(kind, key, customer, None, None, withdrawal["settled_at"], legs)

    # ---- refunds ------------------------------------------------------------------------------------------------------

    def _refund(self, refund: Row) -> None:
        charge_id, amount = refund["money_in_id"], refund["amount"]
        end = self.ends.get(charge_id)
        if end is None:
            return
        said = self._refund_said(refund)
        loss = self.losses[refund["id"]] = Loss(refund)
        key = f"refund:{refund['idempotency_key']}"
        customer = end.customer_id
        legs: Legs = {("world", None): amount}
        owner, purse = self._credited.get(charge_id, (customer, "paid"))
        if end.kind == "purchase":
            self._out_of_revenue(refund, end, said, loss, legs)
        elif end.kind == "suspense" and charge_id not in self._credited:
            legs["suspense", None] = -amount
        elif owner is not None:
            self._out_of_purse(refund, owner, purse, said, loss, legs)
        order = None if end.order is None else end.order["id"]
        loss.journal = self._add("refund", key, customer, order, charge_id, refund["created_at"], legs)
        claw = self.rewards.lost_by(refund, end, owner, loss.spent)
        if claw is not None:
            referrer, taken = claw
            if taken:
                self._claw_back(refund, referrer, taken, loss)
            self.rewards.took(refund, loss.clawback or loss.journal)

    def _claw_back(self, refund: Row, referrer: int, taken: int, loss: Loss) -> None:
        part = min(taken, max(0, self.purses[referrer, "earned"]))
        legs: Legs = {
            ("referral_expense", None): taken,
            ("earned", referrer): -part,
            ("debt", referrer): part - taken,
        }
        key = f"clawback:{refund['idempotency_key']}"
        loss.clawback = self._add(
            "referral_clawback", key, referrer, None, refund["money_in_id"], refund["created_at"], legs
        )

    def _refund_said(self, refund: Row) -> dict[str, Any]:
        said = self._refund_details.get(f"refund:{refund['id']}")
        found: dict[str, Any] = {} if said is None else json.loads(said["details"])
        return found

    def _out_of_revenue(self, refund: Row, end: ChargeEnd, said: dict[str, Any], loss: Loss, legs: Legs) -> None:
        """A charge that bought access: revenue, and what was given for it before, as far as both exceed the charge."""
        amount = refund["amount"]
        charge_id = refund["money_in_id"]
        before = sum(row["amount"] for row in self._refunds[charge_id] if row["id"] < refund["id"])
        grants = [row["id"] for row in self._grants_of_charge.get(charge_id, ())]
        given = sum(self.compensated[grant] for grant in grants)
        over = max(0, min(amount, before + amount + given - end.value))
        legs["revenue", None] = over - amount
        if not over or end.customer_id is None:
            return
        loss.uncompensated = over
        for grant in grants:
            self.compensated[grant] -= over
        part = min(over, max(0, self.purses[end.customer_id, "credit"]))
        legs["credit", end.customer_id] = -part
        self._rest(over - part, end.customer_id, said, loss, legs)

    def _out_of_purse(
        self, refund: Row, customer: int, purse: str, said: dict[str, Any], loss: Loss, legs: Legs
    ) -> None:
        """A charge that was credited: what the purse holds; of what was spent, what it bought, newest first."""
        part = min(refund["amount"], max(0, self.purses[customer, purse]))
        legs[purse, customer] = -part
        loss.spent = left = refund["amount"] - part
        if said.get("chargeback"):
            returned = 0
            for spending in reversed(self.spendings[customer]):
                base = min(left, spending.base_left) if spending.money_in_id is None else 0
                if base > 0 and (grant := self._grant_of(spending)) is not None:
                    unused, whole = self.unused(grant, refund["created_at"])
                    value = base * unused // whole if whole else 0
                    loss.undone[grant] = (base, value)
                    spending.base_left -= base
                    left -= base
                    returned += value
            legs["revenue", None] = -returned
            left = loss.spent - returned
        self._rest(left, customer, said, loss, legs)

    def _grant_of(self, spending: Spending) -> int | None:
        if spending.event_id is not None:
            return spending.event_id
        granted = self._grants_of_order.get(spending.order_id or 0)
        return granted[0]["id"] if granted else None

    def _rest(self, rest: int, customer: int, said: dict[str, Any], loss: Loss, legs: Legs) -> None:
        """What is nowhere: the customer's debt after a chargeback, unless an operator takes it as a loss."""
        if said.get("chargeback") and not said.get("written_off"):
            loss.owed = rest
            legs["debt", customer] = -rest
        else:
            loss.written_off = rest
            legs["adjustment", None] = -rest
