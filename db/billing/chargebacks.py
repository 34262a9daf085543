"""Chargebacks: money that goes back though it was spent. What it bought is taken back, newest first; the rest is a debt.

A credited charge was spent on purchases from the balance and on renewals: of the newest ones, as much time is taken as the
money bought, and what of it was not used yet is revenue no more. Of a purchase that other purses paid too, only the share
of the money that went back is taken. A charge that was compensated takes the compensation back, from what was given.
Nothing else that the customer has is touched: what is lacking stays a debt, or is our loss if the operator says so.
"""

from collections.abc import Sequence
from datetime import timedelta

import attrs

from db.access.entitlements import MovedEnd, read_access, take_back
from db.access.intervals import NOTHING, share
from db.billing.ledger import Leg, Purse, SystemAccount, purses
from db.money import Money
from db.tx import Row, Tx


@attrs.frozen
class Undone:
    """A purchase from the balance, and how much of it a chargeback takes back."""

    event_id: int
    subscription_id: int
    base: Money
    """Of the outside money that it took, what goes back."""
    value: Money
    """Of that, what the customer has not used yet."""
    time: timedelta
    """What is taken from its interval."""


@attrs.frozen
class Recovery:
    """From where a chargeback takes the money that is not there any more."""

    legs: Sequence[Leg]
    """All that the refund takes from the customer and from revenue; the sum is what goes to `world`, below zero."""
    spent: Money
    """What the purse `paid` did not hold."""
    owed: Money
    """What becomes a debt."""
    written_off: Money
    """What is our loss."""
    undone: Sequence[Undone] = ()
    uncompensated: Money = attrs.field(factory=lambda: Money(0))
    """What is taken back of a compensation."""


async def recover_spent(tx: Tx, customer_id: int, value: Money, *, write_off: bool) -> Recovery:
    """Plan how a credited charge goes back: from `paid`, from the unused part of what it bought, and as a debt or a loss.

    The caller holds the customer's row. Nothing is written.
    """
    paid = min((await purses(tx, customer_id, value.currency)).paid, value)
    spent = value - paid
    undone = await _undo(tx, customer_id, spent)
    unused = sum((each.value for each in undone), Money(0, value.currency))
    owed, written_off = _debt_or_loss(spent - unused, write_off)
    legs = _legs(
        (Purse(customer_id, "paid"), paid),
        ("revenue", unused),
        (Purse(customer_id, "debt"), owed),
        ("adjustment", written_off),
    )
    return Recovery(legs, spent, owed, written_off, undone)


async def recover_compensated(
    tx: Tx, customer_id: int, value: Money, compensated: Money, *, write_off: bool
) -> Recovery:
    """Plan how a charge goes back that bought access, `compensated` of which was given to the balance before.

    What was given is taken from `credit` as far as that holds it; the rest of the charge leaves revenue. The caller holds
    the customer's row. Nothing is written.
    """
    there = min((await purses(tx, customer_id, value.currency)).credit, compensated)
    owed, written_off = _debt_or_loss(compensated - there, write_off)
    legs = _legs(
        ("revenue", value - compensated),
        (Purse(customer_id, "credit"), there),
        (Purse(customer_id, "debt"), owed),
        ("adjustment", written_off),
    )
    return Recovery(legs, Money(0, value.currency), owed, written_off, uncompensated=compensated)


async def write_down(tx: Tx, refund_id: int, recovery: Recovery, *, actor: str) -> Sequence[MovedEnd]:
    """Take back the time that was planned, and write down of which purchase; returns the ends that were moved."""
    moved: list[MovedEnd] = []
    for each in recovery.undone:
        end = None
        if each.time:
            end = await take_back(tx, each.subscription_id, each.event_id, actor=actor, journal_id=None, most=each.time)
        await tx.execute(
            "INSERT INTO undone_purchases (refund_id, event_id, base, value, moved_by) VALUES ($1, $2, $3, $4, $5)",
            refund_id,
            each.event_id,
            each.base.amount,
            each.value.amount,
            None if end is None else end.event_id,
        )
        moved += [] if end is None else [end]
    return moved


async def _undo(tx: Tx, customer_id: int, spent: Money) -> Sequence[Undone]:
    """The newest purchases from the balance that outside money of so much bought, and what is left of them."""
    undone: list[Undone] = []
    open_amount = spent.amount
    if not open_amount:
        return undone
    for row in await tx.fetch(_BOUGHT, customer_id, spent.currency):
        base = min(open_amount, row["paid"] - row["undone"])
        if base:
            undone.append(await _undone(tx, row, Money(base, spent.currency)))
            open_amount -= base
        if not open_amount:
            break
    return undone


async def _undone(tx: Tx, row: Row, base: Money) -> Undone:
    """The share of what is left of one purchase that `base` bought, of what was not taken back before."""
    access = await read_access(tx, row["subscription_id"])
    left = next((each.left(access.now) for each in access.intervals if each.event_id == row["event_id"]), NOTHING)
    remains = row["price"] - row["undone"]
    bought = row["period"] * remains / row["price"]
    value = share(base.amount, min(left, bought), bought)
    time = left if base.amount == remains else left * base.amount / remains
    return Undone(row["event_id"], row["subscription_id"], base, Money(value, base.currency), time)


def _debt_or_loss(lacking: Money, write_off: bool) -> tuple[Money, Money]:
    """What is lacking, as a debt and as a loss: all of it is one of them."""
    nothing = Money(0, lacking.currency)
    return (nothing, lacking) if write_off else (lacking, nothing)


def _legs(*parts: tuple[Purse | SystemAccount, Money]) -> Sequence[Leg]:
    return [Leg(account, -amount) for account, amount in parts if amount]


_BOUGHT = """
SELECT e.id AS event_id, e.subscription_id, e.period, -p.amount AS paid, price.amount AS price,
       coalesce((SELECT sum(base) FROM undone_purchases u WHERE u.event_id = e.id), 0)::bigint AS undone
FROM accounts a
JOIN postings p ON p.account_id = a.id AND p.amount < 0
JOIN journals j ON j.id = p.journal_id AND j.kind IN ('balance_purchase', 'auto_renewal')
JOIN entitlement_events e ON e.journal_id = j.id AND e.kind = 'grant'
JOIN LATERAL (SELECT sum(q.amount)::bigint AS amount FROM postings q JOIN accounts b ON b.id = q.account_id
              WHERE q.journal_id = j.id AND b.kind = 'revenue') AS price ON true
WHERE a.customer_id = $1 AND a.kind = 'paid' AND a.currency = $2
ORDER BY j.id DESC
"""
