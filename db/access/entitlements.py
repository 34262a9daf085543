"""What a customer is entitled to: the one place where ends are moved, each time by an append-only event.

Each grant owns an interval of time, a row of `entitlement_intervals`; how they follow each other is in
`db.access.intervals`. The rows can be rebuilt from the events.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import attrs

from db.access.intervals import (
    Interval,
    add_interval,
    end_intervals,
    extend_interval,
    running_tariff,
    running_until,
    take_interval,
)
from db.money import Money
from db.tx import Row, Tx, rows_of

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
    kind: Literal["grant", "opening"] = "grant"
    """`opening`: access that the customer brings from another system."""
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
class MovedEnd:
    """An end that was moved back by a refund, or forth because time was not delivered."""

    event_id: int
    period: timedelta
    """By how much it was moved."""
    new_end: datetime
    is_running: bool
    """Something is left after it."""


@attrs.frozen
class Access:
    """A subscription and its intervals that are not over, as read under its lock; see `read_access`."""

    subscription_id: int | None
    """`None`: the customer never had one."""
    intervals: Sequence[Interval]
    ranks: Mapping[str, int]
    now: datetime
    expires_at: datetime | None
    source: Source
    state: str


async def grant(tx: Tx, wanted: Grant) -> Entitlement:
    """Add a period to the customer's subscription, creating it if there is none, and append the event that owns it.

    The caller holds the customer's row (`lock_customers`). Returns the end before and after. The subscription is active
    afterwards, in whatever state it was. A second grant with the same `idempotency_key` violates a constraint.
    """
    read = f"{_READ} customer_id = $1 ORDER BY id LIMIT 1{_LOCKED}"
    access = _access(await tx.fetchrow(read, wanted.customer_id, None, None))
    intervals = add_interval(access.intervals, access.ranks, access.now, wanted.tariff, wanted.period)
    new_end = max(each.ends_at for each in intervals)
    tariff = running_tariff(intervals, access.ranks, access.now) or wanted.tariff
    is_running = access.expires_at is not None and access.expires_at > access.now
    # Paid overrides trial; time given away does not make a paid subscription a gift.
    source = access.source if is_running and wanted.source in ("trial", "admin") else wanted.source
    plan: tuple[str | None, int | None, int | None, str | None] = (None, None, None, None)
    if wanted.price is not None:
        plan = (wanted.tariff, wanted.period.days, wanted.price.amount, wanted.price.currency)
    subscription = (
        """
        INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at,
                                   plan_tariff, period_days, price_amount, price_currency)
        VALUES ($1, $2, $9, $3, 'active', $4, $5, $6, $7, $8)
        RETURNING id
        """
        if access.subscription_id is None
        else """
        UPDATE subscriptions SET tariff = $2, tariff_until = $9, source = $3, state = 'active', expires_at = $4,
            plan_tariff = coalesce($5, plan_tariff), period_days = coalesce($6, period_days),
            price_amount = coalesce($7, price_amount), price_currency = coalesce($8, price_currency)
        WHERE id = $1
        RETURNING id
        """
    )
    written = await tx.fetchrow(
        f"""
        WITH subscription AS ({subscription}
        ), event AS (
            INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                            order_id, money_in_id, journal_id, actor, created_at, idempotency_key)
            SELECT id, (SELECT coalesce(max(position), 0) + 1 FROM entitlement_events WHERE subscription_id = subscription.id),
                   $20, $10, $11, $12, $13, $4, $14, $15, $16, $17, $18, $19
            FROM subscription
            RETURNING id, subscription_id
        ), laid AS ({_lay(first=21)})
        SELECT id, subscription_id FROM event
        """,  # noqa: S608 - one of the two statements above, and our own fragments
        wanted.customer_id if access.subscription_id is None else access.subscription_id,
        tariff,
        source,
        new_end,
        *plan,
        running_until(intervals, tariff),
        wanted.source,
        wanted.tariff,
        wanted.period,
        access.expires_at,
        wanted.order_id,
        wanted.money_in_id,
        wanted.journal_id,
        wanted.actor,
        access.now,
        wanted.idempotency_key,
        wanted.kind,
        *_columns(intervals),
    )
    assert written is not None, "the subscription was found under its lock, or inserted"
    return Entitlement(written["subscription_id"], written["id"], access.expires_at, new_end, tariff)


async def preview_grant(tx: Tx, customer_id: int, tariff: str, period: timedelta) -> tuple[datetime | None, datetime]:
    """The subscription's end now, and as it would be if this period were granted now; nothing is written or locked.

    The first is `None` for a customer who never had a subscription.
    """
    read = f"{_READ} customer_id = $1 ORDER BY id LIMIT 1{_UNLOCKED}"
    access = _access(await tx.fetchrow(read, customer_id, None, None))
    intervals = add_interval(access.intervals, access.ranks, access.now, tariff, period)
    return access.expires_at, max(each.ends_at for each in intervals)


async def read_access(
    tx: Tx, subscription_id: int, event_id: int | None = None, since: datetime | None = None
) -> Access:
    """Lock the subscription's row and return its open intervals, also that of `event_id`, and those that ended after `since`.

    The caller holds the customer's row. Raises `LookupError` if there is no such subscription.
    """
    access = _access(await tx.fetchrow(f"{_READ} id = $1{_LOCKED}", subscription_id, event_id, since))
    if access.subscription_id is None:
        raise LookupError(f"subscription {subscription_id} is gone, but subscriptions are never deleted")
    return access


async def take_back(
    tx: Tx, subscription_id: int, of_event: int, *, actor: str, journal_id: int | None, most: timedelta | None = None
) -> MovedEnd | None:
    """Take back what is left of the interval that the event `of_event` granted, at most `most`; `None`: nothing is left.

    No other interval loses time; those that follow come earlier. The caller holds the customer's row, and tells the
    workers what is wanted of the key now.
    """
    access = await read_access(tx, subscription_id)
    intervals, taken = take_interval(access.intervals, access.ranks, access.now, of_event, most)
    if not taken:
        return None
    return await _move_end(tx, access, intervals, "refund", of_event, -taken, actor=actor, journal_id=journal_id)


async def add_delay(tx: Tx, subscription_id: int, of_event: int, by: timedelta, *, actor: str) -> MovedEnd:
    """Add to a grant's interval the time in which it could not be used, at most once a grant (a constraint says so).

    The caller holds the customer's row, and tells the workers what is wanted of the key now.
    """
    access = await read_access(tx, subscription_id, of_event)
    intervals = extend_interval(access.intervals, access.ranks, access.now, of_event, by)
    return await _move_end(tx, access, intervals, "delay", of_event, by, actor=actor)


async def end_entitlement(
    tx: Tx, subscription_id: int, kind: Literal["revoke", "compensation"], actor: str
) -> datetime:
    """End the entitlement now, if it has not ended already, and record the event; returns the end.

    What was left of each interval is taken from it for good. The caller holds the customer's row and sets the
    subscription's state.
    """
    access = await read_access(tx, subscription_id)
    intervals = end_intervals(access.intervals, access.now)
    return (await _move_end(tx, access, intervals, kind, None, None, actor=actor)).new_end


async def follow_tariffs(tx: Tx, limit: int = 100) -> int:
    """Name the tariff that runs now on up to `limit` subscriptions whose better one has run out; returns how many.

    The end does not move, so no event is due. Rows that another transaction works on are left for the next round.
    """
    tag = await tx.execute(
        """
        WITH due AS MATERIALIZED (
            SELECT id FROM subscriptions
            WHERE state = 'active' AND tariff_until <= atlas_now() AND expires_at > atlas_now()
            ORDER BY tariff_until, id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE subscriptions s
        SET tariff = running.tariff, tariff_until = running.until
        FROM due CROSS JOIN LATERAL (
            SELECT i.tariff, max(i.ends_at) AS until
            FROM entitlement_intervals i JOIN tariffs t ON t.code = i.tariff
            WHERE i.subscription_id = due.id AND i.ends_at > atlas_now()
            GROUP BY i.tariff, t.rank ORDER BY t.rank DESC LIMIT 1) AS running
        WHERE s.id = due.id
        """,
        limit,
    )
    return rows_of(tag)


async def _move_end(
    tx: Tx,
    access: Access,
    intervals: Sequence[Interval],
    kind: Literal["refund", "delay", "revoke", "compensation"],
    of_event: int | None,
    by: timedelta | None,
    *,
    actor: str,
    journal_id: int | None = None,
) -> MovedEnd:
    """Write the event and the intervals as they are now; the latest end of an interval is the subscription's."""
    assert access.expires_at is not None, "only a subscription that is there has an end to move"
    new_end = max((each.ends_at for each in intervals), default=access.expires_at)
    tariff = running_tariff(intervals, access.ranks, access.now)
    event_id: int = await tx.fetchval(
        f"""
        WITH subscription AS (
            UPDATE subscriptions SET expires_at = $2, tariff = coalesce($3, tariff), tariff_until = $4 WHERE id = $1
            RETURNING id, tariff
        ), event AS (
            INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                            journal_id, of_event_id, actor, created_at)
            SELECT s.id, (SELECT max(position) + 1 FROM entitlement_events WHERE subscription_id = $1), $5, $6,
                   coalesce(g.tariff, s.tariff), $7, $8, $2, $9, $10, $11, $12
            FROM subscription s LEFT JOIN entitlement_events g ON g.id = $10
            RETURNING id, subscription_id
        ), laid AS ({_lay(first=13)})
        SELECT id FROM event
        """,  # noqa: S608 - our own fragments
        access.subscription_id,
        new_end,
        tariff,
        new_end if tariff is None else running_until(intervals, tariff),
        kind,
        "admin" if of_event is None else access.source,
        None if by is None else abs(by),
        access.expires_at,
        journal_id,
        of_event,
        actor,
        access.now,
        *_columns(intervals),
    )
    return MovedEnd(event_id, timedelta(0) if by is None else abs(by), new_end, new_end > access.now)


def _lay(*, first: int) -> str:
    """INSERT or UPDATE of intervals from seven arrays, `_columns`, in the parameters from `first` on.

    The event 0 is the one that is being written.
    """
    event, tariff, granted, used, taken, starts, ends = (f"${first + number}" for number in range(7))
    return f"""
        INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
        SELECT CASE i.event_id WHEN 0 THEN event.id ELSE i.event_id END, event.subscription_id, i.tariff, i.granted,
               i.used, i.taken, i.starts_at, i.ends_at
        FROM event, unnest({event}::bigint[], {tariff}::text[], {granted}::interval[], {used}::interval[],
                           {taken}::interval[], {starts}::timestamptz[], {ends}::timestamptz[])
                    AS i (event_id, tariff, granted, used, taken, starts_at, ends_at)
        ON CONFLICT (event_id) DO UPDATE
            SET granted = excluded.granted, used = excluded.used, taken = excluded.taken, starts_at = excluded.starts_at,
                ends_at = excluded.ends_at"""  # noqa: S608 - our own parameters


def _columns(intervals: Sequence[Interval]) -> Sequence[Sequence[object]]:
    rows = [attrs.astuple(each) for each in intervals]
    return list(zip(*rows, strict=True)) if rows else [()] * len(attrs.fields(Interval))


_READ = """
SELECT atlas_now() AS now, s.id, s.expires_at, s.source, s.state,
       ARRAY(SELECT code FROM tariffs ORDER BY code) AS tariffs,
       ARRAY(SELECT rank FROM tariffs ORDER BY code) AS ranks,
       i.*
FROM (SELECT) AS always
LEFT JOIN LATERAL (SELECT id, expires_at, source, state FROM subscriptions WHERE"""
_UNLOCKED = """) AS s ON true
CROSS JOIN LATERAL (
    SELECT array_agg(event_id ORDER BY event_id) AS event_ids, array_agg(tariff ORDER BY event_id) AS interval_tariffs,
           array_agg(granted ORDER BY event_id) AS granted, array_agg(used ORDER BY event_id) AS used,
           array_agg(taken ORDER BY event_id) AS taken, array_agg(starts_at ORDER BY event_id) AS starts,
           array_agg(ends_at ORDER BY event_id) AS ends
    FROM entitlement_intervals
    WHERE subscription_id = s.id AND (ends_at > least(atlas_now(), $3::timestamptz) OR event_id = $2::bigint)) AS i
"""
_LOCKED = f" FOR NO KEY UPDATE{_UNLOCKED}"


def _access(row: Row | None) -> Access:
    assert row is not None, "one row, with or without a subscription"
    columns = ("event_ids", "interval_tariffs", "granted", "used", "taken", "starts", "ends")
    return Access(
        subscription_id=row["id"],
        intervals=[Interval(*values) for values in zip(*(row[name] or () for name in columns), strict=True)],
        ranks=dict(zip(row["tariffs"], row["ranks"], strict=True)),
        now=row["now"],
        expires_at=row["expires_at"],
        source=row["source"],
        state=row["state"],
    )
