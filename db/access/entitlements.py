"""What a customer is entitled to: the one place where ends are moved, each time by an append-only event.

How periods of different tariffs add up is in `db.access.terms`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import attrs

from db.access.terms import add_period, running_tariff, take_period
from db.money import Money
from db.tx import Tx, rows_of

Source = Literal["payment", "balance", "trial", "admin", "auto_renewal"]


@attrs.frozen
class Grant:
    """A period of a tariff to be added, and why."""

    customer_id: int
    tariff: str
    period: timedelta
    source: Source
    actor: str
    order_id: int | None = None
    money_in_id: int | None = None
    journal_id: int | None = None
    idempotency_key: str | None = None
    """For a grant that has neither an order nor a charge: a second one with the same key violates a constraint."""
    price: Money | None = None
    """The price basis for automatic renewals; only with whole days as the period."""


@attrs.frozen
class Entitlement:
    """The result of a grant: the event that was written, and the subscription's end and tariff after it."""

    subscription_id: int
    event_id: int
    previous_end: datetime | None
    new_end: datetime
    tariff: str
    """The tariff that runs now, which after a downgrade is not the one just bought."""
    replayed: bool = False
    """It was given before, under the same key; then `tariff` is the one that was given."""


@attrs.frozen
class TakenBack:
    """The result of taking back a refunded period."""

    event_id: int
    period: timedelta
    new_end: datetime
    is_running: bool
    """Something is left after it."""


@attrs.frozen
class Terms:
    """Until when each tariff, or a better one, is paid for; their ranks, and the time by which this was read."""

    ends: Mapping[str, datetime]
    ranks: Mapping[str, int]
    now: datetime
    expires_at: datetime
    source: Source
    state: str


async def grant(tx: Tx, wanted: Grant) -> Entitlement:
    """Add a period to the customer's subscription, creating it if there is none, and append the event.

    The caller holds the customer's row (`lock_customers`). Returns the end before and after. The subscription is active
    afterwards, in whatever state it was. A second grant with the same `idempotency_key` violates a constraint.
    """
    row = await tx.fetchrow(
        """
        SELECT atlas_now() AS now, s.id, s.expires_at, s.source,
               ARRAY(SELECT code FROM tariffs ORDER BY code) AS tariffs,
               ARRAY(SELECT rank FROM tariffs ORDER BY code) AS ranks,
               ARRAY(SELECT tariff FROM tariff_terms WHERE subscription_id = s.id ORDER BY tariff) AS terms,
               ARRAY(SELECT ends_at FROM tariff_terms WHERE subscription_id = s.id ORDER BY tariff) AS ends
        FROM (SELECT) AS always
        LEFT JOIN LATERAL (SELECT * FROM subscriptions WHERE customer_id = $1 ORDER BY id LIMIT 1 FOR NO KEY UPDATE) AS s
            ON true
        """,
        wanted.customer_id,
    )
    assert row is not None, "one row, with or without a subscription"
    now: datetime = row["now"]
    ranks = dict(zip(row["tariffs"], row["ranks"], strict=True))
    ends = add_period(dict(zip(row["terms"], row["ends"], strict=True)), ranks, now, wanted.tariff, wanted.period)
    new_end = max(ends.values())
    tariff = running_tariff(ends, ranks, now) or wanted.tariff
    is_running = row["id"] is not None and row["expires_at"] > now
    # Paid overrides trial; time given away does not make a paid subscription a gift.
    source = row["source"] if is_running and wanted.source in ("trial", "admin") else wanted.source
    plan: tuple[str | None, int | None, int | None, str | None] = (None, None, None, None)
    if wanted.price is not None:
        plan = (wanted.tariff, wanted.period.days, wanted.price.amount, wanted.price.currency)
    subscription = (
        """
        INSERT INTO subscriptions (customer_id, tariff, source, state, expires_at,
                                   plan_tariff, period_days, price_amount, price_currency)
        VALUES ($1, $2, $3, 'active', $4, $5, $6, $7, $8)
        RETURNING id
        """
        if row["id"] is None
        else """
        UPDATE subscriptions SET tariff = $2, source = $3, state = 'active', expires_at = $4,
            plan_tariff = coalesce($5, plan_tariff), period_days = coalesce($6, period_days),
            price_amount = coalesce($7, price_amount), price_currency = coalesce($8, price_currency)
        WHERE id = $1
        RETURNING id
        """
    )
    written = await tx.fetchrow(
        f"""
        WITH subscription AS ({subscription}
        ), terms AS (
            INSERT INTO tariff_terms (subscription_id, tariff, ends_at)
            SELECT id, term.tariff, term.ends_at
            FROM subscription, unnest($9::text[], $10::timestamptz[]) AS term (tariff, ends_at)
            ON CONFLICT (subscription_id, tariff) DO UPDATE SET ends_at = excluded.ends_at
        )
        INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                        order_id, money_in_id, journal_id, actor, created_at, idempotency_key)
        SELECT id, (SELECT coalesce(max(position), 0) + 1 FROM entitlement_events WHERE subscription_id = subscription.id),
               'grant', $11, $12, $13, $14, $4, $15, $16, $17, $18, $19, $20
        FROM subscription
        RETURNING id, subscription_id
        """,  # noqa: S608 - one of the two statements above
        wanted.customer_id if row["id"] is None else row["id"],
        tariff,
        source,
        new_end,
        *plan,
        list(ends),
        list(ends.values()),
        wanted.source,
        wanted.tariff,
        wanted.period,
        row["expires_at"],
        wanted.order_id,
        wanted.money_in_id,
        wanted.journal_id,
        wanted.actor,
        now,
        wanted.idempotency_key,
    )
    assert written is not None, "the subscription was found under its lock, or inserted"
    return Entitlement(written["subscription_id"], written["id"], row["expires_at"], new_end, tariff)


async def read_terms(tx: Tx, subscription_id: int) -> Terms:
    """Lock the subscription's row and return until when each tariff is paid for. The caller holds the customer's row.

    Raises `LookupError` if there is no such subscription.
    """
    row = await tx.fetchrow(
        """
        SELECT atlas_now() AS now, s.expires_at, s.source, s.state,
               ARRAY(SELECT code FROM tariffs ORDER BY code) AS tariffs,
               ARRAY(SELECT rank FROM tariffs ORDER BY code) AS ranks,
               ARRAY(SELECT tariff FROM tariff_terms WHERE subscription_id = s.id ORDER BY tariff) AS terms,
               ARRAY(SELECT ends_at FROM tariff_terms WHERE subscription_id = s.id ORDER BY tariff) AS ends
        FROM subscriptions s WHERE s.id = $1 FOR NO KEY UPDATE
        """,
        subscription_id,
    )
    if row is None:
        raise LookupError(f"subscription {subscription_id} is gone, but subscriptions are never deleted")
    return Terms(
        ends=dict(zip(row["terms"], row["ends"], strict=True)),
        ranks=dict(zip(row["tariffs"], row["ranks"], strict=True)),
        now=row["now"],
        expires_at=row["expires_at"],
        source=row["source"],
        state=row["state"],
    )


async def take_back(
    tx: Tx, subscription_id: int, tariff: str, period: timedelta, *, actor: str, journal_id: int
) -> TakenBack | None:
    """Take back what is left of a refunded period, at most `period`, and record the event; `None`: it is used up.

    The caller holds the customer's row, and tells the workers what is wanted of the key now.
    """
    terms = await read_terms(tx, subscription_id)
    ends, taken = take_period(terms.ends, terms.ranks, terms.now, tariff, period)
    if not taken:
        return None
    new_end = terms.expires_at - taken
    event_id: int = await tx.fetchval(
        """
        WITH subscription AS (
            UPDATE subscriptions SET expires_at = $2, tariff = coalesce($3, tariff) WHERE id = $1 RETURNING id
        ), terms AS (
            UPDATE tariff_terms t SET ends_at = term.ends_at
            FROM unnest($4::text[], $5::timestamptz[]) AS term (tariff, ends_at)
            WHERE t.subscription_id = $1 AND t.tariff = term.tariff
        )
        INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                        journal_id, actor, created_at)
        SELECT id, (SELECT max(position) + 1 FROM entitlement_events WHERE subscription_id = $1), 'refund', $6, $7, $8, $9, $2,
               $10, $11, $12
        FROM subscription
        RETURNING id
        """,
        subscription_id,
        new_end,
        running_tariff(ends, terms.ranks, terms.now),
        list(ends),
        list(ends.values()),
        terms.source,
        tariff,
        taken,
        terms.expires_at,
        journal_id,
        actor,
        terms.now,
    )
    return TakenBack(event_id, taken, new_end, new_end > terms.now)


async def end_entitlement(
    tx: Tx, subscription_id: int, kind: Literal["revoke", "compensation"], actor: str
) -> datetime:
    """End the entitlement now, if it has not ended already, and record the event; returns the end.

    The caller holds the customer's row and sets the subscription's state.
    """
    end: datetime = await tx.fetchval(
        """
        WITH cut AS (
            UPDATE subscriptions s SET expires_at = least(s.expires_at, atlas_now())
            FROM (SELECT id, expires_at FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE) AS before
            WHERE s.id = before.id
            RETURNING s.id, s.tariff, s.expires_at, before.expires_at AS previous_end
        ), terms AS (
            UPDATE tariff_terms t SET ends_at = cut.expires_at
            FROM cut WHERE t.subscription_id = cut.id AND t.ends_at > cut.expires_at
        )
        INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, previous_end, new_end, actor)
        SELECT id, (SELECT max(position) + 1 FROM entitlement_events WHERE subscription_id = $1), $2, 'admin',
               tariff, previous_end, expires_at, $3
        FROM cut
        RETURNING new_end
        """,
        subscription_id,
        kind,
        actor,
    )
    return end


async def follow_tariffs(tx: Tx, limit: int = 100) -> int:
    """Name the tariff that runs now on up to `limit` subscriptions whose better one has run out; returns how many.

    The end does not move, so no event is due. Rows that another transaction works on are left for the next round.
    """
    tag = await tx.execute(
        """
        WITH due AS MATERIALIZED (
            SELECT s.id FROM subscriptions s JOIN tariff_terms t ON t.subscription_id = s.id AND t.tariff = s.tariff
            WHERE s.state = 'active' AND s.expires_at > atlas_now() AND t.ends_at <= atlas_now()
            ORDER BY s.id LIMIT $1 FOR NO KEY UPDATE OF s SKIP LOCKED
        )
        UPDATE subscriptions s
        SET tariff = (SELECT t.tariff FROM tariff_terms t JOIN tariffs ON tariffs.code = t.tariff
                      WHERE t.subscription_id = s.id AND t.ends_at > atlas_now() ORDER BY tariffs.rank DESC LIMIT 1)
        FROM due WHERE s.id = due.id
        """,
        limit,
    )
    return rows_of(tag)
