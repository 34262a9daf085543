"""What ought to be: the rules of the business once more, computed only from what customers did.

No code and no price of the program is used here; where both differ, one of them is wrong. Times are Unix seconds,
amounts are kopecks. An end is known as an interval: an action took some time, and only the database knows the exact
moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

DAY: Final = 86_400.0
HOUR: Final = 3_600.0
TRIAL_HOURS: Final = 72
RENEWAL_HOURS: Final = 6
"""How long before its end a plan is renewed."""
PRICES: Final = {
    "basic": {30: 14_900, 90: 39_900, 180: 74_900, 365: 139_900},
    "plus": {30: 29_900, 90: 69_900, 180: 119_900, 365: 229_900},
}
REMINDED: Final = {"paid": (72, 24, 3), "trial": (66, 24, 6), "day": (6,), "week": (24,)}
"""How many hours before its end a customer is reminded, by what ends: a trial of 72 hours also 6 and 48 hours after it began."""
REFERRAL_TIERS: Final = ((50, 45), (25, 25), (0, 10))

Plan = tuple[str, int]


@attrs.frozen
class Span:
    """A moment that lies between `low` and `high`."""

    low: float
    high: float

    def plus(self, days: float) -> Span:
        """The same interval, so many days later."""
        return Span(self.low + days * DAY, self.high + days * DAY)


@attrs.define
class Account:
    """One customer as the rules say that the account ought to be."""

    telegram_id: int
    referrer: int | None = None
    paid: int = 0
    """Paid in, and not spent yet."""
    credit: int = 0
    """Given back, or given."""
    earned: int = 0
    """By invitations."""
    debt: int = 0
    """What could not be taken back, below zero."""
    last_reward: int = 0
    """What the referrer earned by the last purchase."""
    end: Span | None = None
    plan: Plan | None = None
    """Bought last, and bought again by a renewal."""
    auto_renew: bool = False
    is_paying: bool = False
    kind: str = "paid"
    """What ends: see REMINDED."""
    to_remind: list[int] = attrs.field(factory=list)
    """Hours before the end at which the customer is still to be reminded."""

    @property
    def balance(self) -> int:
        """What can be spent."""
        return self.paid + self.credit + self.earned

    def spend(self, price: int) -> int:
        """Pay a price: from what was paid in, then from credits, then from rewards. Returns how much was paid in."""
        assert price <= self.balance, "no customer tries without the money"
        from_paid = min(price, self.paid)
        from_credit = min(price - from_paid, self.credit)
        self.paid -= from_paid
        self.credit -= from_credit
        self.earned -= price - from_paid - from_credit
        return from_paid

    def has_access(self, now: float) -> bool:
        """Whether packets must pass."""
        return self.end is not None and self.end.low > now


@attrs.define
class Model:
    """Everything that ought to be after what customers did so far: accounts, and the totals of the month."""

    accounts: dict[int, Account] = attrs.field(factory=dict)
    revenue: int = 0
    """What came in from outside."""
    purchases: int = 0
    """Plans that were paid for through a provider."""
    topups: int = 0
    balance_purchases: int = 0
    credited_late: int = 0
    trials: int = 0
    granted: int = 0
    renewals: int = 0
    reminders: int = 0
    rewards: int = 0
    """Kopecks."""
    refunds: int = 0
    chargebacks: int = 0
    compensations: int = 0
    withdrawals: int = 0
    """Paid out."""
    given_back: int = 0
    """Kopecks that went back to where they came from, or out to who had earned them."""

    def join(self, telegram_id: int, referrer: int | None) -> Account:
        """A customer arrives."""
        account = self.accounts[telegram_id] = Account(telegram_id, referrer)
        return account

    def purchase(self, account: Account, plan: Plan, when: Span) -> None:
        """A plan was paid for through a provider."""
        price = PRICES[plan[0]][plan[1]]
        self.revenue += price
        self.purchases += 1
        self._reward(account, price)
        self._extend(account, when, plan[1], "paid")
        account.plan = plan

    def topup(self, account: Account, amount: int) -> None:
        """The balance was topped up through a provider, by `amount` kopecks."""
        self.revenue += amount
        self.topups += 1
        account.paid += amount

    def late_payment(self, account: Account, plan: Plan) -> None:
        """An order was paid after its time: the money is the customer's, and the plan is not bought."""
        amount = PRICES[plan[0]][plan[1]]
        self.revenue += amount
        self.credited_late += 1
        account.paid += amount

    def buy_from_balance(self, account: Account, plan: Plan, when: Span) -> None:
        """A plan was paid for from the balance."""
        self._reward(account, account.spend(PRICES[plan[0]][plan[1]]))
        self.balance_purchases += 1
        self._extend(account, when, plan[1], "paid")
        account.plan = plan

    def trial(self, account: Account, when: Span) -> None:
        """The trial began."""
        self.trials += 1
        self._extend(account, when, TRIAL_HOURS / 24, "trial")

    def grant(self, account: Account, days: int, when: Span) -> None:
        """The operator gave something."""
        self.granted += 1
        self._extend(account, when, days, "day" if days == 1 else "week")

    def refund(self, account: Account, when: Span) -> None:
        """The last purchase through a provider went back whole: its time ends, and so does what the referrer earned by it."""
        assert account.plan is not None
        self.refunds += 1
        self._leaves(PRICES[account.plan[0]][account.plan[1]])
        self._ends(account, when)
        account.is_paying = False
        if account.referrer is not None:
            referrer = self.accounts[account.referrer]
            taken = min(referrer.earned, account.last_reward)
            referrer.earned -= taken
            referrer.debt -= account.last_reward - taken

    def chargeback(self, account: Account, owed: int, when: Span) -> bool:
        """A top-up that a plan was bought from whole is lost: what of the plan was used is owed. Says whether `owed` is that."""
        assert account.plan is not None
        price = PRICES[account.plan[0]][account.plan[1]]
        left = self._worth_left(account, when)
        self.chargebacks += 1
        self._leaves(price)
        self._ends(account, when)
        account.is_paying = False
        account.debt -= owed
        return left[0] <= price - owed <= left[1]

    def compensate(self, account: Account, amount: int, when: Span) -> bool:
        """What is left of the plan is given back to the balance, and it ends. Says whether `amount` is that."""
        left = self._worth_left(account, when)
        self.compensations += 1
        self._ends(account, when)
        account.credit += amount
        return left[0] <= amount <= left[1]

    def withdraw(self, account: Account, amount: int) -> None:
        """So much of what was earned was paid out."""
        self.withdrawals += 1
        account.earned -= amount
        self._leaves(amount)

    def _leaves(self, amount: int) -> None:
        self.revenue -= amount
        self.given_back += amount

    @staticmethod
    def _ends(account: Account, when: Span) -> None:
        account.end = when
        account.to_remind = []
        account.auto_renew = False

    @staticmethod
    def _worth_left(account: Account, when: Span) -> tuple[int, int]:
        """The least and the most that is left of the last plan, in kopecks."""
        assert account.plan is not None and account.end is not None
        price, whole = PRICES[account.plan[0]][account.plan[1]], account.plan[1] * DAY
        least, most = account.end.low - when.high, account.end.high - when.low
        return int(price * least / whole) - 1, int(price * most / whole) + 1

    def settle(self, now: float) -> None:
        """What must have happened by itself once the workers have rested at this moment."""
        for account in self.accounts.values():
            self._remind(account, now)
        # A friend's renewal may earn what the next one's lacks.
        while due := [account for account in self.accounts.values() if self._renews(account, now)]:
            for account in due:
                assert account.plan is not None
                self._reward(account, account.spend(PRICES[account.plan[0]][account.plan[1]]))
                self._extend(account, Span(now, now), account.plan[1], "paid")
                self.renewals += 1

    def with_access(self, now: float) -> set[int]:
        """The Telegram ids of exactly those customers whose packets must pass."""
        return {account.telegram_id for account in self.accounts.values() if account.has_access(now)}

    def moments(self) -> Iterator[float]:
        """When something changes by itself, or is due shortly before it does."""
        for account in self.accounts.values():
            if account.end is not None:
                for hours in (*REMINDED[account.kind], RENEWAL_HOURS, 0):
                    yield account.end.high - hours * HOUR

    def is_clear(self, moment: float, before: float, after: float) -> bool:
        """Whether nothing changes by itself from `before` seconds before this moment until `after` seconds after it."""
        for account in self.accounts.values():
            if account.end is not None:
                for hours in (*REMINDED[account.kind], RENEWAL_HOURS, 0):
                    low, high = account.end.low - hours * HOUR, account.end.high - hours * HOUR
                    if low < moment + after and high > moment - before:
                        return False
        return True

    def _reward(self, account: Account, amount: int) -> None:
        """So much that came from outside has bought access: that makes a paying friend, and a share is the referrer's."""
        if not amount:
            return
        account.is_paying = True
        account.last_reward = 0
        if account.referrer is None:
            return
        friends = sum(1 for each in self.accounts.values() if each.referrer == account.referrer and each.is_paying)
        percent = next(percent for least, percent in REFERRAL_TIERS if friends >= least)
        reward = amount * percent // 100
        referrer = self.accounts[account.referrer]
        pays = min(reward, -referrer.debt)
        referrer.debt += pays
        referrer.earned += reward - pays
        account.last_reward = reward
        self.rewards += reward

    @staticmethod
    def _extend(account: Account, when: Span, days: float, kind: str) -> None:
        start = when if account.end is None else Span(max(when.low, account.end.low), max(when.high, account.end.high))
        account.end = end = start.plus(days)
        account.kind = kind
        # What would have been before now is not made up for.
        account.to_remind = [hours for hours in REMINDED[kind] if end.low - hours * HOUR > when.high]

    def _remind(self, account: Account, now: float) -> None:
        if account.end is not None and now < account.end.low:
            due = [hours for hours in account.to_remind if account.end.low - hours * HOUR <= now]
            account.to_remind = [hours for hours in account.to_remind if hours not in due]
            self.reminders += len(due)

    @staticmethod
    def _renews(account: Account, now: float) -> bool:
        if not account.auto_renew or account.plan is None or account.end is None:
            return False
        price = PRICES[account.plan[0]][account.plan[1]]
        return account.end.low - RENEWAL_HOURS * HOUR <= now < account.end.low and account.balance >= price
