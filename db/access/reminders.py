"""Reminders: what a customer is told about an end that comes, each once, at its time or soon after.

When the next one is due is a row in `reminder_schedule`, which the database keeps up with every movement of an end;
the rules are in its function `reminder_times`. After a downtime only the latest one that is relevant is sent: the
ones before it are not made up for, and after the end there is none.
"""

import attrs

from db.tx import Tx


@attrs.frozen
class Reminded:
    """The result of one page of reminders."""

    looked_at: int
    """Due rows, whether or not there was anything left to remind of."""
    queued: int
    """Messages that are new in the outbox."""


async def queue_reminders(tx: Tx, limit: int = 100) -> Reminded:
    """Queue the reminder of up to `limit` subscriptions whose next one is due, the longest due first, and set the next.

    In one statement, so a crash leaves a row as it was or done. Rows that another transaction works on are left for the
    next page. One outbox row per (customer, kind, what it is about): a second one is the same message.
    """
    row = await tx.fetchrow(
        """
        WITH now AS MATERIALIZED (
            SELECT atlas_now() AS at
        ), due AS MATERIALIZED (
            SELECT r.* FROM reminder_schedule r
            JOIN subscriptions s ON s.id = r.subscription_id JOIN customers c ON c.id = s.customer_id
            WHERE r.due_at <= (SELECT at FROM now)
            ORDER BY r.due_at, r.subscription_id LIMIT $1
            -- the message needs the customer's row: one that another transaction keeps locked must not hold up the page
            FOR NO KEY UPDATE OF r SKIP LOCKED FOR KEY SHARE OF c SKIP LOCKED
        ), facts AS MATERIALIZED (
            SELECT due.subscription_id, s.customer_id, s.tariff, s.auto_renew, due.ends_at, latest.kind, latest.anchor,
                   next.at AS next_at,
                   s.state = 'active' AND s.expires_at = due.ends_at AND due.ends_at > now.at AS is_relevant
            FROM due CROSS JOIN now
            JOIN subscriptions s ON s.id = due.subscription_id
            LEFT JOIN LATERAL (SELECT * FROM reminder_times(due.plan, due.began_at, due.ends_at) AS times
                               WHERE times.at <= now.at ORDER BY times.at DESC LIMIT 1) AS latest ON true
            LEFT JOIN LATERAL (SELECT min(times.at) AS at FROM reminder_times(due.plan, due.began_at, due.ends_at) AS times
                               WHERE times.at > now.at) AS next ON true
        ), told AS (
            INSERT INTO outbox (customer_id, kind, subject, payload)
            SELECT customer_id, kind, 'subscription:' || subscription_id || ':' || extract(epoch FROM anchor)::bigint,
                   jsonb_build_object('expires_at', ends_at, 'tariff', tariff, 'auto_renew', auto_renew)
            FROM facts WHERE is_relevant AND kind IS NOT NULL
            ON CONFLICT (customer_id, kind, subject) DO NOTHING
            RETURNING 1
        ), moved AS (
            UPDATE reminder_schedule r SET due_at = CASE WHEN facts.is_relevant THEN facts.next_at END
            FROM facts WHERE r.subscription_id = facts.subscription_id
        ), counted AS (
            SELECT (SELECT count(*) FROM facts) AS looked_at, (SELECT count(*) FROM told) AS queued
        )
        SELECT looked_at, queued,
               CASE WHEN queued > 0 THEN pg_notify('atlas_wake', 'notifications') END AS woken
        FROM counted
        """,
        limit,
    )
    assert row is not None, "an aggregate has one row"
    return Reminded(row["looked_at"], row["queued"])
