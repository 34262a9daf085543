"""What invitations earn: a share of outside money that friends spend on access, taken back as far as that money goes back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs

from db.auditor.books import Books, by, grouped
from db.auditor.charges import ChargeEnd
from db.auditor.prices import Facts, Prices
from db.tx import Row

if TYPE_CHECKING:
    from db.auditor.ledger import Journal

TIERS: Final = ((50, 45), (25, 25), (0, 10))
"""From so many distinct paying friends on, so many percent."""


def share(friends: int) -> int:
    """The percentage for a number of paying friends, the buyer counted."""
    return next(percent for least, percent in TIERS if friends >= least)


@attrs.define(eq=False)
class Spending:
    """A purchase of access, and the outside money in it."""

    journal: Journal
    customer_id: int
    outside: int
    price: int
    money_in_id: int | None
    order_id: int | None
    event_id: int | None = None
    base_left: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.base_left = self.outside


@attrs.define(eq=False)
class Reward:
    """A reward as derived."""

    spending: Spending
    buyer_id: int
    referrer_id: int
    friends: int
    percent: int
    base: int
    amount: int
    at: datetime
    matures_at: datetime
    to_earned: int = 0
    journal: Journal | None = None
    taken_base: int = 0
    taken: int = 0


@attrs.frozen
class Takeback:
    """A part of a reward that is taken back, as derived."""

    reward: Reward
    base: int
    amount: int
    refund: Row
    journal: Journal


@attrs.define
class Rewards:
    """All rewards, derived purchase by purchase."""

    books: Books
    ends: Mapping[int, ChargeEnd]
    openings: Mapping[int, Row]
    rewards: list[Reward] = attrs.field(factory=list)
    takebacks: list[Takeback] = attrs.field(factory=list)
    paying_since: dict[int, datetime] = attrs.field(factory=dict)
    """Customers who have bought access with outside money that has not gone back, and since when."""
    prices: Prices = attrs.field(init=False)
    facts: Facts = attrs.field(init=False)
    _outside: dict[int, int] = attrs.field(factory=lambda: defaultdict(int))
    _rewarded: dict[int, int] = attrs.field(factory=lambda: defaultdict(int))
    """Outside money that was rewarded when it came in, before purses or in another system."""
    _friends: dict[int, set[int]] = attrs.field(factory=lambda: defaultdict(set))
    _referrers: dict[int, int] = attrs.field(factory=dict)
    _spent: dict[int, int] = attrs.field(factory=lambda: defaultdict(int))
    _by_charge: dict[int, Reward] = attrs.field(factory=dict)
    _by_buyer: dict[int, list[Reward]] = attrs.field(factory=lambda: defaultdict(list))
    _by_referrer: dict[int, list[Reward]] = attrs.field(factory=lambda: defaultdict(list))
    _due: dict[int, list[tuple[Reward, int, int]]] = attrs.field(factory=dict)
    _rules: list[Row] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.facts = Facts(self.books)
        self.prices = Prices(self.books, self.facts)
        self._rules = sorted(self.books["referral_rules"], key=lambda row: row["id"])
        customers = by(self.books["customers"], "id")
        charges = grouped(self.books["money_in"], "customer_id")
        refunds = grouped(self.books["refunds"], "money_in_id")
        for number, opening in self.openings.items():
            outside, moved_at = opening["spent_paid"], opening["moved_at"]
            for charge in charges.get(number, ()):
                if charge["received_at"] < moved_at and self.ends[charge["id"]].kind == "purchase":
                    returned = [row["amount"] for row in refunds.get(charge["id"], ()) if row["created_at"] < moved_at]
                    outside += self.ends[charge["id"]].value - sum(returned)
            self._outside[number] = outside
            self._rewarded[number] = opening["rewarded_paid"]
            if outside > 0:
                self._pays(number, customers[number]["first_paid_at"] or opening["moved_at"])

    def brought_along(self, opening: Row) -> None:
        """Outside money that bought access in another system, and money that was rewarded there."""
        customer = opening["customer_id"]
        self._rewarded[customer] += opening["rewarded_paid"]
        self._outside[customer] += opening["spent_paid"]
        if opening["paid_since"] is not None:
            self._pays(customer, opening["paid_since"])

    def hold_at(self, at: datetime) -> timedelta:
        """How long a reward of that moment is held back."""
        valid = [row["hold_days"] for row in self._rules if row["valid_from"] <= at]
        return timedelta(days=valid[-1] if valid else 14)

    def _referrer_at(self, customer_id: int, at: datetime) -> int | None:
        fact = self.facts.at("customers", customer_id, at)
        if fact is None:
            known = self.facts.first("customers", customer_id)
            fact = None if known is None else known[1]
        return None if fact is None else fact.get("referrer_id")

    def _pays(self, customer_id: int, since: datetime) -> None:
        self.paying_since.setdefault(customer_id, since)
        referrer = self._referrer_at(customer_id, since)
        if referrer is not None:
            self._friends[referrer].add(customer_id)
            self._referrers[customer_id] = referrer

    def earned_by(self, spending: Spending) -> Reward | None:
        """The reward for a purchase; None: nobody invited the buyer, or nothing came from outside."""
        if spending.outside <= 0:
            return None
        buyer, at = spending.customer_id, spending.journal.at
        base = self._unrewarded(spending)
        self._outside[buyer] += spending.outside
        self._pays(buyer, at)
        referrer = self._referrer_at(buyer, at)
        if referrer is None or referrer == buyer:
            return None
        self._friends[referrer].add(buyer)
        self._referrers[buyer] = referrer
        friends = len(self._friends[referrer])
        amount = base * share(friends) // 100
        if amount == 0:
            return None
        reward = Reward(spending, buyer, referrer, friends, share(friends), base, amount, at, at + self.hold_at(at))
        self.rewards.append(reward)
        self._by_buyer[buyer].append(reward)
        self._by_referrer[referrer].append(reward)
        if spending.money_in_id is not None:
            self._by_charge[spending.money_in_id] = reward
        return reward

    def _unrewarded(self, spending: Spending) -> int:
        """Outside money that was rewarded when it came in is spent first and not rewarded again."""
        if spending.money_in_id is not None:
            return spending.outside
        rewarded = self._rewarded[spending.customer_id]
        before = self._spent[spending.customer_id]
        after = self._spent[spending.customer_id] = before + spending.outside
        return max(0, after - rewarded) - max(0, before - rewarded)

    def unmatured(self, referrer_id: int, at: datetime) -> int:
        """What of a referrer's rewards is held back at a moment, as far as it is in the purse."""
        return sum(
            max(0, min(reward.to_earned, reward.amount - reward.taken))
            for reward in self._by_referrer.get(referrer_id, ())
            if reward.matures_at > at
        )

    def lost_by(self, refund: Row, end: ChargeEnd, customer_id: int | None, spent: int) -> tuple[int, int] | None:
        """What a refund takes back of rewards: the referrer, and how much in all; None: nothing."""
        due: list[tuple[Reward, int, int]] = []
        gone = refund["amount"] if end.kind == "purchase" else spent
        if end.kind == "purchase":
            reward = self._by_charge.get(refund["money_in_id"])
            if reward is not None:
                due.append((reward, gone, self._part(reward, gone)))
        elif customer_id is not None:
            left = gone
            for reward in reversed(self._by_buyer.get(customer_id, ())):
                base = min(left, reward.base - reward.taken_base)
                if reward.spending.money_in_id is None and base > 0:
                    due.append((reward, base, self._part(reward, base)))
                    left -= base
        for reward, base, amount in due:
            reward.taken_base += base
            reward.taken += amount
        if customer_id is not None and gone > 0:
            self._goes_back(customer_id, gone)
        if not due:
            return None
        self._due[refund["id"]] = due
        return due[0][0].referrer_id, sum(amount for _, _, amount in due)

    @staticmethod
    def _part(reward: Reward, base: int) -> int:
        """In proportion, rounded down over all that has gone back so far."""
        return reward.amount * min(reward.base, reward.taken_base + base) // reward.base - reward.taken

    def took(self, refund: Row, journal: Journal) -> None:
        """Note which journal takes back what `lost_by` found."""
        for reward, base, amount in self._due[refund["id"]]:
            self.takebacks.append(Takeback(reward, base, amount, refund, journal))

    def _goes_back(self, customer_id: int, amount: int) -> None:
        self._outside[customer_id] -= amount
        if self._outside[customer_id] <= 0 and customer_id in self.paying_since:
            del self.paying_since[customer_id]
            self._friends[self._referrers.get(customer_id, 0)].discard(customer_id)
