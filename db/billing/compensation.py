"""Compensation: what was paid for and could not be delivered is credited to the balance, and the access ends.

The policy: the credit is the price of all paid time that was not delivered, valued at what each period really cost,
rounded down. Time counts as delivered until the nodes fell behind what is wanted of the key, so that a key that never
worked is credited in full. Trials and gifts cost nothing, so nothing is credited for them; where nothing is credited,
nothing ends.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from db.access.entitlements import end_entitlement, read_terms
from db.access.terms import remaining
from db.access.wanted_keys import want_absent
from db.billing.ledger import Journal, Purse, move, post
from db.customers import lock_customers
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.audit import Notice, record_audit


@attrs.frozen
class Compensation:
    """What was credited; nothing if nothing paid was left."""

    subscription_id: int
    customer_id: int
    amount: Money
    undelivered: timedelta
    """How much time was left, paid or not."""
    journal_id: int | None = None


@attrs.frozen
class PaidPeriod:
    """A period that was granted, and what it cost less what was refunded of it."""

    tariff: str
    period: timedelta
    cost: Money


def value_of(left: Mapping[str, timedelta], periods: Sequence[PaidPeriod]) -> Money:
    """What the time that is `left` of each tariff cost, rounded down per period.

    `periods` are the latest first: of one tariff, what was bought last is what is left last.
    """
    open_time = dict(left)
    total = Money(0)
    for paid in periods:
        part = min(paid.period, open_time.get(paid.tariff, timedelta(0)))
        if part:
            open_time[paid.tariff] -= part
            total += Money(paid.cost.amount * (part // _TICK) // (paid.period // _TICK), paid.cost.currency)
    return total


async def compensate(tx: Tx, subscription_id: int, *, reason: str, actor: str) -> Compensation:
    """Credit what was paid and not delivered, end the access, and queue the removal of the keys.

    Repeating it finds nothing left and changes nothing. Raises `BusinessError` when there is no such subscription. A
    caller that has locked rows of keys before calls `lock_for_compensation` before it does.
    """
    customer_id = await lock_for_compensation(tx, subscription_id)
    terms = await read_terms(tx, subscription_id)
    since: datetime | None = await tx.fetchval(
        """
        SELECT CASE WHEN bool_or(wanted = 'present' AND activation_status = 'active') THEN NULL
                    WHEN bool_or(activated_at IS NOT NULL)
                    THEN min(pending_since) FILTER (WHERE wanted = 'present' AND activation_status IN ('pending', 'failed'))
                    ELSE min(created_at) END
        FROM vpn_keys WHERE subscription_id = $1
        """,
        subscription_id,
    )
    start = terms.now if since is None else min(since, terms.now)
    left = {} if terms.state == "revoked" else remaining(terms.ends, terms.ranks, start)
    undelivered = sum(left.values(), timedelta(0))
    amount = value_of(left, await _paid_periods(tx, subscription_id))
    if not amount:
        return Compensation(subscription_id, customer_id, amount, undelivered)
    await end_entitlement(tx, subscription_id, "compensation", actor)
    await tx.execute("UPDATE subscriptions SET state = 'revoked', auto_renew = false WHERE id = $1", subscription_id)
    await want_absent(tx, [subscription_id])
    position = await tx.fetchval(
        "SELECT max(position) FROM entitlement_events WHERE subscription_id = $1", subscription_id
    )
    journal_id = await post(
        tx,
        Journal(
            "compensation",
            f"compensation:{subscription_id}:{position}",
            move("compensation_expense", Purse(customer_id, "credit"), amount),
            customer_id=customer_id,
            note=reason,
        ),
    )
    payload = {"amount": amount.amount, "currency": amount.currency, "reason": reason}
    await record_audit(
        tx,
        actor,
        "compensate",
        Notice("compensation_credited", f"journal:{journal_id}", customer_id, payload),
        customer_id=customer_id,
        subject=f"subscription:{subscription_id}",
        details={**payload, "undelivered_hours": undelivered // timedelta(hours=1)},
    )
    return Compensation(subscription_id, customer_id, amount, undelivered, journal_id)


async def lock_for_compensation(tx: Tx, subscription_id: int) -> int:
    """Lock the customer's and the subscription's row, in the order of every operation on money; returns the customer.

    A caller that changes rows of keys and may compensate in the same transaction calls this first: a purchase locks the
    customer before the key, and two that lock the other way round would stop each other.
    """
    customer_id: int | None = await tx.fetchval("SELECT customer_id FROM subscriptions WHERE id = $1", subscription_id)
    if customer_id is None:
        raise BusinessError(f"there is no subscription {subscription_id}")
    await lock_customers(tx, [customer_id])
    await tx.execute("SELECT FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE", subscription_id)
    return customer_id


async def _paid_periods(tx: Tx, subscription_id: int) -> Sequence[PaidPeriod]:
    """What was granted since the access last ended by force, the latest first; refunded periods are gone."""
    rows = await tx.fetch(
        """
        SELECT e.tariff, e.period, greatest(coalesce(paid.amount, 0) - coalesce(back.amount, 0), 0)::bigint AS cost
        FROM entitlement_events e
        LEFT JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                           WHERE p.journal_id = e.journal_id AND a.kind = 'revenue') AS paid ON true
        LEFT JOIN LATERAL (SELECT sum(amount) AS amount, bool_or(event_id IS NOT NULL) AS took_access
                           FROM refunds WHERE money_in_id = e.money_in_id) AS back ON true
        WHERE e.subscription_id = $1 AND e.kind = 'grant' AND back.took_access IS NOT TRUE
          AND e.position > coalesce((SELECT max(position) FROM entitlement_events
                                     WHERE subscription_id = $1 AND kind IN ('revoke', 'compensation')), 0)
        ORDER BY e.position DESC
        """,
        subscription_id,
    )
    return [PaidPeriod(row["tariff"], row["period"], Money(row["cost"])) for row in rows]


_TICK = timedelta(microseconds=1)
