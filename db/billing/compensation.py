"""Compensation: what was paid for and could not be delivered is credited to the balance, and the access ends.

The policy: the credit is the price of all paid time that was not delivered, valued at what each grant really cost,
rounded down. Time counts as delivered until the nodes fell behind what is wanted of the key, so that a key that never
worked is credited in full. Trials and gifts cost nothing, so nothing is credited for them; where nothing is credited,
nothing ends.

What is given back for a grant is written down as a part: with the refunds of a charge it never exceeds what the charge
brought.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from db.access.entitlements import end_entitlement, read_access
from db.access.intervals import NOTHING, Interval, share
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
class PaidGrant:
    """A grant with time left, and what it cost less what was given back of it before."""

    event_id: int
    period: timedelta
    """What was bought; time that was added for a delay cost nothing."""
    left: timedelta
    cost: Money

    @property
    def value(self) -> Money:
        """What the time that is left of it cost, rounded down."""
        return Money(share(self.cost.amount, min(self.left, self.period), self.period), self.cost.currency)


async def compensate(tx: Tx, subscription_id: int, *, reason: str, actor: str) -> Compensation:
    """Credit what was paid and not delivered, end the access, and queue the removal of the keys.

    Repeating it finds nothing left and changes nothing. Raises `BusinessError` when there is no such subscription. A
    caller that has locked rows of keys before calls `lock_for_compensation` before it does.
    """
    customer_id = await lock_for_compensation(tx, subscription_id)
    since: datetime | None = await tx.fetchval(
        """
        SELECT CASE WHEN bool_or(wanted = 'present' AND (activation_status = 'active'
                                 -- it waits for a node, while another one serves it
                                 OR (activation_status = 'pending'
                                     AND EXISTS (SELECT FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                                                 WHERE p.key_id = vpn_keys.id AND n.retired_at IS NULL
                                                   AND p.applied = 'present' AND p.missing_since IS NULL
                                                   AND p.applied_expires_at > atlas_now())))) THEN NULL
                    WHEN bool_or(activated_at IS NOT NULL)
                    THEN min(pending_since) FILTER (WHERE wanted = 'present' AND activation_status IN ('pending', 'failed'))
                    ELSE min(created_at) END
        FROM vpn_keys WHERE subscription_id = $1
        """,
        subscription_id,
    )
    access = await read_access(tx, subscription_id, since=since)
    start = access.now if since is None else min(since, access.now)
    open_intervals = {
        each.event_id: each
        for each in access.intervals
        if each.left(start) and access.state != "revoked"  # what was left was taken when it was revoked
    }
    undelivered = sum((each.left(start) for each in open_intervals.values()), NOTHING)
    grants = [each for each in await _paid_grants(tx, open_intervals, start) if each.value]
    amount = sum((each.value for each in grants), Money(0))
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
    await tx.execute(
        """
        INSERT INTO compensation_parts (journal_id, event_id, amount)
        SELECT $1, part.event_id, part.amount FROM unnest($2::bigint[], $3::bigint[]) AS part (event_id, amount)
        """,
        journal_id,
        [each.event_id for each in grants],
        [each.value.amount for each in grants],
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


async def _paid_grants(tx: Tx, intervals: Mapping[int, Interval], start: datetime) -> Sequence[PaidGrant]:
    """What each grant cost, less what a refund or an earlier compensation gave back of it, and what was left of it at `start`."""
    rows = await tx.fetch(
        """
        SELECT e.id, e.period, e.created_at,
               greatest(coalesce(paid.amount, 0) - coalesce(back.amount, 0) - coalesce(given.amount, 0), 0)::bigint AS cost
        FROM entitlement_events e
        LEFT JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                           WHERE p.journal_id = e.journal_id AND a.kind = 'revenue') AS paid ON true
        LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM refunds WHERE money_in_id = e.money_in_id) AS back ON true
        LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM compensation_parts WHERE event_id = e.id) AS given ON true
        WHERE e.id = ANY($1::bigint[])
        ORDER BY e.id
        """,
        list(intervals),
    )
    grants = []
    for row in rows:
        interval = intervals[row["id"]]
        # Granted after the nodes had fallen behind: nothing of it was delivered, in whichever pieces it ran since.
        left = interval.granted - interval.taken if row["created_at"] >= start else interval.left(start)
        grants.append(PaidGrant(row["id"], row["period"], left, Money(row["cost"])))
    return grants
