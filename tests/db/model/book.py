"""What ought to be: purses, rewards and ends by the rules of the business alone. Amounts are kopecks, times microseconds.

Nothing of the program is used here, neither its code nor its prices. Time is counted as it is used up: what is open is
a list of grants with what is left of each, and nothing is ever laid out.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

HOUR = 3_600_000_000
DAY = 24 * HOUR
PRICES = {("basic", 30): 14_900, ("basic", 90): 39_900, ("plus", 30): 29_900, ("plus", 365): 229_900}
BETTER = {"basic": 0, "plus": 1}
SMALLEST_PRICE = 6_400
SMALLEST_WITHDRAWAL = 50_000
HOLD = 14 * DAY
TIERS = ((50, 45), (25, 25), (1, 10))


class Refused(Exception):
    """The rules do not allow it; nothing changes."""


@attrs.define(eq=False)
class Granted:
    """One grant: whose time it is, and what it cost."""

    number: int
    tariff: str
    period: int
    left: int
    price: int = 0
    paid: int = 0
    """Outside money in the price, of a purchase from the purses."""
    undone: int = 0
    """Of that, what a chargeback took."""
    given_back: int = 0
    """By compensation, net."""
    charge: Charge | None = None


@attrs.define(eq=False)
class Charge:
    """Captured money."""

    name: str
    amount: int
    refunded: int = 0
    bought: Granted | None = None


@attrs.define(eq=False)
class Reward:
    """A reward, and what was taken back of it."""

    buyer: Customer
    amount: int
    base: int
    matures: int
    charge: Charge | None
    lost: int = 0
    taken: int = 0


@attrs.define(eq=False)
class Customer:
    """One customer."""

    referrer: Customer | None = None
    paid: int = 0
    credit: int = 0
    earned: int = 0
    debt: int = 0
    is_vip: bool = False
    is_paying: bool = False
    had_trial: bool = False
    has_bought: bool = False
    is_revoked: bool = False
    grants: list[Granted] = attrs.field(factory=list)
    charges: dict[str, Charge] = attrs.field(factory=dict)
    rewards: list[Reward] = attrs.field(factory=list)
    """That this customer earned."""
    waiting: list[int] = attrs.field(factory=list)
    """Withdrawals that wait."""
    lost_spent: int = 0
    """Outside money that had been spent when it went back."""

    @property
    def open(self) -> list[Granted]:
        """What has time left, in the order in which it is used up."""
        return sorted((one for one in self.grants if one.left), key=lambda one: (-BETTER[one.tariff], one.number))

    @property
    def left(self) -> int:
        """How much access is left."""
        return sum(one.left for one in self.grants)

    @property
    def balance(self) -> int:
        """What can be spent."""
        return self.paid + self.credit + self.earned

    @property
    def lasting_spent(self) -> int:
        """Outside money in purchases from the purses that did not go back."""
        return sum(one.paid for one in self.grants) - self.lost_spent


@attrs.define
class Book:
    """All customers, the time, and what came in and went out."""

    now: int = 0
    customers: list[Customer] = attrs.field(factory=list)
    came_in: int = 0
    went_out: int = 0
    gifts: int = 0
    """What the operators gave: compensation and adjustments."""
    _numbers: Iterator[int] = attrs.field(factory=lambda: iter(range(1, 1_000_000)))

    def pass_time(self, now: int) -> None:
        """Use up what ran until `now`."""
        for customer in self.customers:
            gone = now - self.now
            for one in customer.open:
                used = min(one.left, gone)
                one.left, gone = one.left - used, gone - used
        self.now = now

    # ---- prices

    def price(self, customer: Customer, plan: tuple[str, int], promo: int | None) -> int:
        """Of a promo code and the VIP discount the better one; they never add up."""
        listed = PRICES[plan]
        percents = [percent for percent in (promo, 30 if customer.is_vip else None) if percent]
        offers = [max(listed - listed * percent // 100, min(listed, SMALLEST_PRICE)) for percent in percents]
        return min([listed, *offers])

    def uses_promo(self, customer: Customer, plan: tuple[str, int], promo: int) -> bool:
        """Whether the code is what makes the price lower."""
        return self.price(customer, plan, promo) < self.price(customer, plan, None)

    # ---- what customers do

    def buy(self, customer: Customer, name: str, plan: tuple[str, int], price: int) -> None:
        """Pay a provider for a plan."""
        charge = self._capture(customer, name, price)
        charge.bought = self._grant(customer, plan[0], plan[1] * DAY, price)
        charge.bought.charge = charge
        customer.has_bought = True
        self._reward(customer, price, charge)

    def pay_in(self, customer: Customer, name: str, amount: int) -> None:
        """A top-up, or a payment that could not buy what it was meant for."""
        self._capture(customer, name, amount)
        customer.paid += amount

    def buy_from_balance(self, customer: Customer, plan: tuple[str, int], price: int) -> None:
        """Spend `paid`, then `credit`, then `earned`."""
        if customer.balance < price:
            raise Refused
        paid = min(customer.paid, price)
        credit = min(customer.credit, price - paid)
        customer.paid -= paid
        customer.credit -= credit
        customer.earned -= price - paid - credit
        granted = self._grant(customer, plan[0], plan[1] * DAY, price)
        granted.paid = paid
        customer.has_bought = True
        if paid:
            self._reward(customer, paid, None)

    def trial(self, customer: Customer) -> None:
        """72 hours, once, never beside or after what was bought."""
        if customer.had_trial or customer.left or customer.has_bought:
            raise Refused
        customer.had_trial = True
        self._grant(customer, "basic", 72 * HOUR)

    def withdraw(self, customer: Customer, amount: int) -> None:
        """Earned and matured money leaves for the reserve."""
        if amount < SMALLEST_WITHDRAWAL or amount > self.withdrawable(customer):
            raise Refused
        customer.earned -= amount
        customer.waiting.append(amount)

    def withdrawable(self, customer: Customer) -> int:
        """What was earned, less what is held back."""
        held = sum(max(0, one.amount - one.taken) for one in customer.rewards if one.matures > self.now)
        return max(0, customer.earned - held)

    # ---- what operators and providers do

    def give(self, customer: Customer, tariff: str, period: int) -> None:
        """Access without payment."""
        self._grant(customer, tariff, period)

    def settle_withdrawal(self, customer: Customer, *, pays: bool) -> None:
        """Out, or back to where it came from."""
        amount = customer.waiting.pop(0)
        if pays:
            self.went_out += amount
        else:
            customer.earned += amount

    def adjust(self, customer: Customer, amount: int) -> None:
        """Into `credit`; or out of it and then of `earned`, never of `paid`."""
        if amount < 0:
            if customer.credit + customer.earned < -amount:
                raise Refused
            credit = min(customer.credit, -amount)
            customer.credit -= credit
            customer.earned -= -amount - credit
        else:
            customer.credit += amount
            self.gifts += amount

    def revoke(self, customer: Customer) -> None:
        """End all access."""
        for one in customer.grants:
            one.left = 0
        customer.is_revoked = True

    def compensate(self, customer: Customer) -> int:
        """Give what the time left cost to `credit`, and end the access, if it cost anything."""
        worth = {}
        for one in [] if customer.is_revoked else customer.open:
            cost = one.price - one.given_back - (one.charge.refunded if one.charge is not None else 0)
            worth[one.number] = max(0, cost) * min(one.left, one.period) // one.period
        total = sum(worth.values())
        if total:
            for one in customer.grants:
                one.given_back += worth.get(one.number, 0)
            self.revoke(customer)
            customer.credit += total
            self.gifts += total
        return total

    def refund(
        self, customer: Customer, name: str, amount: int | None, *, chargeback: bool = False, write_off: bool = False
    ) -> None:
        """A charge goes back, in part or whole."""
        charge = customer.charges[name]
        bought = charge.bought
        given = bought.given_back if bought is not None else 0
        room = charge.amount - charge.refunded - (0 if chargeback else given)
        value = room if amount is None else amount
        if not 0 < value <= room:
            raise Refused
        spent = 0
        if bought is not None:
            over = max(0, charge.refunded + given + value - charge.amount)
            from_credit = min(customer.credit, over)
            customer.credit -= from_credit
            self._lack(customer, over - from_credit, write_off)
            bought.given_back -= over
            self.gifts -= over
        else:
            there = min(customer.paid, value)
            spent = value - there
            if spent and not (chargeback or write_off):
                raise Refused
            customer.paid -= there
            unused = self._undo(customer, spent) if chargeback else 0
            self._lack(customer, spent - unused, write_off)
        customer.lost_spent += spent
        charge.refunded += value
        self.went_out += value
        if bought is not None and charge.refunded + bought.given_back == charge.amount and bought.left:
            bought.left = 0
            customer.is_revoked = customer.is_revoked or not customer.left
        self._claw_back(customer, charge, spent)
        customer.is_paying = customer.is_paying and self._still_pays(customer)

    # ---- rules

    def _capture(self, customer: Customer, name: str, amount: int) -> Charge:
        charge = customer.charges[name] = Charge(name, amount)
        self.came_in += amount
        return charge

    def _grant(self, customer: Customer, tariff: str, period: int, price: int = 0) -> Granted:
        granted = Granted(next(self._numbers), tariff, period, period, price)
        customer.grants.append(granted)
        customer.is_revoked = False
        return granted

    def _reward(self, buyer: Customer, base: int, charge: Charge | None) -> None:
        buyer.is_paying = True
        referrer = buyer.referrer
        if referrer is None:
            return
        friends = sum(one.is_paying for one in self.customers if one.referrer is referrer)
        amount = base * next(percent for least, percent in TIERS if friends >= least) // 100
        if not amount:
            return
        pays = min(amount, -referrer.debt)
        referrer.debt += pays
        referrer.earned += amount - pays
        referrer.rewards.append(Reward(buyer, amount, base, self.now + HOLD, charge))

    def _undo(self, customer: Customer, spent: int) -> int:
        """Take back what outside money of so much bought, newest first; returns what of it was not used."""
        unused = 0
        for one in sorted(customer.grants, key=lambda one: -one.number):
            base = min(spent, one.paid - one.undone)
            if base:
                remains = one.price - one.undone
                bought = round_half_even(one.period * remains, one.price)
                unused += base * min(one.left, bought) // bought
                taken = one.left if base == remains else round_half_even(one.left * base, remains)
                one.left -= taken
                one.undone += base
                spent -= base
                customer.is_revoked = customer.is_revoked or (bool(taken) and not customer.left)
        return unused

    def _lack(self, customer: Customer, amount: int, write_off: bool) -> None:
        if write_off:
            self.gifts += amount
        else:
            customer.debt -= amount

    def _claw_back(self, buyer: Customer, charge: Charge, spent: int) -> None:
        """The reward of this charge in proportion; of a spent one, the rewards of what it bought, newest first."""
        if buyer.referrer is None:
            return
        total = 0
        rewards = [one for one in buyer.referrer.rewards if one.buyer is buyer]
        own = next((one for one in rewards if one.charge is charge), None)
        if own is not None:
            due = own.amount * charge.refunded // charge.amount - own.taken
            own.taken += due
            total = due
        else:
            for one in [one for one in reversed(rewards) if one.charge is None]:
                part = min(spent, one.base - one.lost)
                due = one.amount * (one.lost + part) // one.base - one.taken
                one.lost, one.taken, spent, total = one.lost + part, one.taken + due, spent - part, total + due
        there = min(buyer.referrer.earned, total)
        buyer.referrer.earned -= there
        buyer.referrer.debt -= total - there

    def _still_pays(self, customer: Customer) -> bool:
        direct = any(one.bought is not None and one.refunded < one.amount for one in customer.charges.values())
        return direct or customer.lasting_spent > 0


def round_half_even(numerator: int, denominator: int) -> int:
    """The quotient to the nearest whole number, halves to the even one."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))
