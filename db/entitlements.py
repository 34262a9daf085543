"""What a customer is entitled to: the one place where time is added, tariffs are ordered and ends are moved.

Time is additive: the new end is ``max(now, end) + period``, whatever the VPN says. Of several running tariffs the best
is used up first:

- the same tariff again: its end moves by the period;
- an upgrade: the better tariff starts at once, what is left of the lesser one follows it;
- a downgrade: the lesser tariff follows what is left of the better one;
- a trial that is running counts like paid time and follows or is followed in the same way.

Nothing is converted by price, nothing is lost, and a cheap period never becomes a dear one.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import attrs

from db.money import Money
from db.tx import Tx

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
    """What a grant led to."""

    subscription_id: int
    event_id: int
    previous_end: datetime | None
    new_end: datetime
    tariff: str
    """The tariff that runs now, which after a downgrade is not the one just bought."""


def add_period(
    ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime, tariff: str, period: timedelta
) -> dict[str, datetime]:
    """Add a period of ``tariff`` to the running tariffs.

    ``ends`` says for each tariff until when it, or a better one, is paid for. The latest end of the result is
    ``max(now, latest end) + period``.
    """
    rank = ranks[tariff]
    running = {name: end for name, end in ends.items() if end > now}
    # It starts when itself and everything better is used up, and what is lesser waits for it.
    start = max([now, *(end for name, end in running.items() if ranks[name] >= rank)])
    result = {name: end + period if ranks[name] < rank else end for name, end in running.items()}
    result[tariff] = start + period
    return result


def running_tariff(ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime) -> str | None:
    """The best tariff that has not ended."""
    return max((name for name, end in ends.items() if end > now), key=ranks.__getitem__, default=None)


async def grant(tx: Tx, wanted: Grant) -> Entitlement:
    """Add the period to the customer's subscription, creating it if there is none, and record the event.

    The caller holds the customer's row (``lock_customers``). The subscription is active afterwards, whatever it was.
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
    basis: tuple[int | None, int | None, str | None] = (None, None, None)
    if wanted.price is not None:
        basis = (wanted.period.days, wanted.price.amount, wanted.price.currency)
    subscription_id: int = await tx.fetchval(
        """
        INSERT INTO subscriptions (customer_id, tariff, source, state, expires_at, period_days, price_amount, price_currency)
        VALUES ($1, $2, $3, 'active', $4, $5, $6, $7)
        RETURNING id
        """
        if row["id"] is None
        else """
        UPDATE subscriptions SET tariff = $2, source = $3, state = 'active', expires_at = $4,
            period_days = coalesce($5, period_days), price_amount = coalesce($6, price_amount),
            price_currency = coalesce($7, price_currency)
        WHERE id = $1
        RETURNING id
        """,
        wanted.customer_id if row["id"] is None else row["id"],
        tariff,
        source,
        new_end,
        *basis,
    )
    event_id: int = await tx.fetchval(
        """
        WITH terms AS (
            INSERT INTO tariff_terms (subscription_id, tariff, ends_at)
            SELECT $1, tariff, ends_at FROM unnest($2::text[], $3::timestamptz[]) AS term (tariff, ends_at)
            ON CONFLICT (subscription_id, tariff) DO UPDATE SET ends_at = excluded.ends_at
        )
        INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                        order_id, money_in_id, journal_id, actor, created_at, idempotency_key)
        VALUES ($1, (SELECT coalesce(max(position), 0) + 1 FROM entitlement_events WHERE subscription_id = $1),
                'grant', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        RETURNING id
        """,
        subscription_id,
        list(ends),
        list(ends.values()),
        wanted.source,
        wanted.tariff,
        wanted.period,
        row["expires_at"],
        new_end,
        wanted.order_id,
        wanted.money_in_id,
        wanted.journal_id,
        wanted.actor,
        now,
        wanted.idempotency_key,
    )
    return Entitlement(subscription_id, event_id, row["expires_at"], new_end, tariff)


async def cut(tx: Tx, subscription_id: int, kind: Literal["revoke", "refund", "compensation"], actor: str) -> datetime:
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
