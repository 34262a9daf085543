"""What the business came to in some days: by day, plan, provider, source and promo code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, get_args

import attrs

from db.errors import BusinessError
from db.money import Money
from db.reports.facts import COHORT, GROUPED, HELD
from db.tx import Row, Tx

Dimension = Literal["day", "plan", "provider", "source", "promo"]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
MOST_DAYS: Final = 3660
_CURRENCY: Final = "RUB"
"""What the ledger books."""


@attrs.frozen
class Line:
    """Figures of one day, plan, provider, source or promo code; or of all."""

    key: str
    sales: int
    """Plans that were bought or renewed."""
    sold: Money
    """What they came to."""
    gone_back: Money
    """What left revenue again: refunds and chargebacks, on the day on which they happened."""
    discount: Money
    """What promo codes took off the prices of the list."""
    new: int
    """Customers who bought for the first time."""
    renewed: int
    """Later purchases and renewals while access still ran."""
    returned: int
    """Later purchases after access had ended."""
    lapsed: int
    """Times that access of somebody who had bought before ran out or was ended, with nothing after it."""
    trials: int
    """Trials that began."""
    from_trial: int
    """Of the new customers, those who had a trial before."""
    payers: int
    """Customers who bought, each counted once."""

    @property
    def revenue(self) -> Money:
        """What was sold less what went back."""
        return self.sold - self.gone_back

    @property
    def arpu(self) -> Money:
        """Revenue for each customer who bought, rounded down to a kopeck; zero where nobody did."""
        return Money(self.revenue.amount // self.payers if self.payers else 0, self.revenue.currency)


@attrs.frozen
class Held:
    """What the ledger holds for others at the end, and what was given away meanwhile."""

    paid: Money
    credit: Money
    earned: Money
    owed_by_customers: Money
    """What claw-backs and chargebacks could not take."""
    reserved: Money
    """Withdrawals that are neither paid out nor rejected."""
    unsettled: Money
    """Money whose owner or purpose is not known; each amount has a case."""
    rewarded: Money
    """Rewards of referrers in these days."""
    taken_back: Money
    """Of rewards, in these days."""
    compensated: Money
    """Given back for time that was not delivered, in these days."""
    from_outside: Money
    """What came from providers less what went back and out, in these days: also top-ups that have bought nothing yet."""

    @property
    def purses(self) -> Money:
        """What customers can spend."""
        return self.paid + self.credit + self.earned

    @property
    def referral_debt(self) -> Money:
        """What referrers have earned and were not paid yet: in their purses, or asked for."""
        return self.earned + self.reserved


@attrs.frozen
class Report:
    """Some days of the business. `first` and `last` are days of UTC, both counted."""

    first: date
    last: date
    all: Line
    by: dict[Dimension, Sequence[Line]]
    """Of days, each is there; of the rest, what had any figure. The largest revenue first."""
    held: Held
    trials_became: int
    """Of the trials that began in these days, how many led to a first purchase in these days."""


async def read_report(tx: Tx, first: date, last: date) -> Report:
    """The report of the days from `first` to `last`, of UTC, both counted; today counts as far as it has come.

    For figures of one moment, `tx` should read one snapshot. Raises BusinessError if `last` is before `first`, or there are
    more than MOST_DAYS.
    """
    days = (last - first).days + 1
    if not 1 <= days <= MOST_DAYS:
        raise BusinessError(
            f"a report is of 1 to {MOST_DAYS} days, the first before the last; {first} to {last} is {days} days"
        )
    since, until = _midnight(first), _midnight(last) + timedelta(days=1)
    rows = await tx.fetch(GROUPED, _CURRENCY, since, until)
    held = await tx.fetchrow(HELD, _CURRENCY, since, until)
    became: int = (await tx.fetch(COHORT, since, until))[0]["became"]
    assert held is not None, "an aggregate has one row"
    by: dict[Dimension, Sequence[Line]] = {}
    for dimension in DIMENSIONS:
        lines = [_line(row) for row in rows if row["dimension"] == dimension]
        if dimension == "day":
            known = {line.key: line for line in lines}
            names = [(first + timedelta(days=number)).isoformat() for number in range(days)]
            by[dimension] = [known.get(name) or _nothing(name) for name in names]
        else:
            by[dimension] = sorted(lines, key=lambda line: (-line.revenue.amount, line.key))
    total = next((_line(row) for row in rows if row["dimension"] == "all"), _nothing(""))
    return Report(first, last, total, by, _held(held), became)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _line(row: Row) -> Line:
    return Line(
        row["key"],
        row["sales"],
        Money(row["sold"], _CURRENCY),
        Money(row["gone_back"], _CURRENCY),
        Money(row["discount"], _CURRENCY),
        row["new"],
        row["renewed"],
        row["returned"],
        row["lapsed"],
        row["trials"],
        row["from_trial"],
        row["payers"],
    )


def _nothing(key: str) -> Line:
    none = Money(0, _CURRENCY)
    return Line(key, 0, none, none, none, 0, 0, 0, 0, 0, 0, 0)


def _held(row: Row) -> Held:
    def amount(name: str) -> Money:
        return Money(row[name], _CURRENCY)

    return Held(
        paid=amount("paid"),
        credit=amount("credit"),
        earned=amount("earned"),
        owed_by_customers=-amount("debt"),
        reserved=amount("reserved"),
        unsettled=amount("unsettled"),
        rewarded=amount("rewarded"),
        taken_back=amount("taken_back"),
        compensated=amount("compensated"),
        from_outside=amount("from_outside"),
    )
