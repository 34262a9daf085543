"""Time that was not delivered is given back: a new access that came late, and an outage that hit everybody.

A new access is one that a purchase began: the customer had none when it was bought. It is delivered when a node has its key
for the first time, and that moment is a fact.
"""

from datetime import datetime, timedelta

import attrs

from db.access.entitlements import Grant, add_delay, grant
from db.access.wanted_keys import want_present
from db.customers import lock_customers
from db.errors import BusinessError
from db.tx import Tx
from db.work.audit import Notice, record_audit

DELIVERY_PATIENCE = timedelta(minutes=5)
"""A new access that is delivered later than this after its purchase is prolonged by all that it waited."""

LONGEST_OUTAGE = timedelta(days=31)
"""A longer window than this is taken for a mistake: it would give everybody months."""


@attrs.frozen
class Undelivered:
    """A purchase that began an access which no node has had yet."""

    event_id: int
    subscription_id: int
    customer_id: int
    waited: timedelta

    @property
    def is_late(self) -> bool:
        """Whether the time it waited is given back."""
        return self.waited > DELIVERY_PATIENCE


async def find_undelivered(tx: Tx, event_id: int) -> Undelivered | None:
    """The purchase `event_id`, if no node has had its key yet; if it is late, the customer's row is locked.

    Called before the key's own locks: an operation on money takes the customer's row before the key, and two that take
    them the other way round would stop each other.
    """
    row = await tx.fetchrow(
        """
        SELECT e.id, e.subscription_id, s.customer_id, atlas_now() - e.created_at AS waited
        FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
        WHERE e.id = $1 AND NOT EXISTS (SELECT FROM first_placements WHERE event_id = $1)
        """,
        event_id,
    )
    if row is None:
        return None
    found = Undelivered(row["id"], row["subscription_id"], row["customer_id"], row["waited"])
    if found.is_late:
        await lock_customers(tx, [found.customer_id])
    return found


async def note_delivery(tx: Tx, purchase: Undelivered, *, actor: str) -> bool:
    """Note that a node has the key of this purchase, and give back what it waited if it is late. `True`: the end was moved.

    Nothing is given back if that was noted before, or if money or time of the purchase went back meanwhile.
    """
    is_due = await tx.fetchval(
        """
        WITH noted AS (
            INSERT INTO first_placements (event_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING event_id
        )
        SELECT EXISTS (
            SELECT FROM noted
            JOIN entitlement_intervals i ON i.event_id = noted.event_id AND i.taken = '0'
            JOIN entitlement_events e ON e.id = noted.event_id
            WHERE NOT EXISTS (SELECT FROM refunds WHERE money_in_id = e.money_in_id)
              AND NOT EXISTS (SELECT FROM compensation_parts WHERE event_id = e.id))
        """,
        purchase.event_id,
    )
    if not is_due or not purchase.is_late:
        return False
    moved = await add_delay(tx, purchase.subscription_id, purchase.event_id, purchase.waited, actor=actor)
    await want_present(tx, purchase.subscription_id)
    await record_audit(
        tx,
        actor,
        "delay",
        customer_id=purchase.customer_id,
        subject=f"event:{moved.event_id}",
        details={"minutes": purchase.waited // timedelta(minutes=1), "expires_at": moved.new_end.isoformat()},
    )
    return True


@attrs.frozen
class Outage:
    """A window in which customers could not use what they had: one row of `prolongations`."""

    id: int
    since: datetime
    until: datetime
    node: str | None
    """`None`: all nodes."""


async def open_prolongation(
    tx: Tx, since: datetime, until: datetime, *, node: str | None = None, reason: str, actor: str
) -> Outage:
    """Write down an outage that is to be made good; the same window and node again is the same outage.

    Raises `BusinessError` when the window ends before it begins or in the future, is longer than 31 days, the reason is empty,
    there is no such node, or another window that was made good overlaps this one: nobody is given the same hour twice.
    """
    if not reason.strip():
        raise BusinessError("a prolongation says why: the customers read it")
    await tx.execute("LOCK TABLE prolongations IN SHARE ROW EXCLUSIVE MODE")
    row = await tx.fetchrow(
        """
        SELECT atlas_now() AS now, n.id AS node_id,
               p.id, p.since, p.until, coalesce((SELECT name FROM vpn_nodes WHERE id = p.node_id), 'all nodes') AS place,
               (p.since, p.until) IS NOT DISTINCT FROM ($1::timestamptz, $2::timestamptz)
               AND p.node_id IS NOT DISTINCT FROM n.id AS is_same
        FROM (SELECT) AS always
        LEFT JOIN vpn_nodes n ON n.name = $3
        LEFT JOIN LATERAL (SELECT * FROM prolongations p WHERE p.since < $2 AND p.until > $1
                           AND (p.node_id IS NULL OR n.id IS NULL OR p.node_id = n.id) ORDER BY p.id LIMIT 1) AS p ON true
        """,
        since,
        until,
        node,
    )
    assert row is not None, "one row, whatever is found"
    if node is not None and row["node_id"] is None:
        raise BusinessError(f"there is no node {node!r}; `atlas status` shows them")
    if not since < until <= row["now"]:
        raise BusinessError(
            f"an outage begins before it ends, and has ended: {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC is none "
            f"(it is {row['now']:%Y-%m-%d %H:%M} UTC)"
        )
    if until - since > LONGEST_OUTAGE:
        raise BusinessError(
            f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC is longer than {LONGEST_OUTAGE.days} days, which is "
            "taken for a mistake; make a longer outage good in parts"
        )
    if row["id"] is not None and row["is_same"]:
        return Outage(row["id"], since, until, node)
    if row["id"] is not None:
        raise BusinessError(
            f"prolongation {row['id']} of {row['place']} has made good {row['since']:%Y-%m-%d %H:%M} to "
            f"{row['until']:%Y-%m-%d %H:%M} UTC, which overlaps; say the part of the window that it left out"
        )
    number: int = await tx.fetchval(
        "INSERT INTO prolongations (since, until, node_id, reason, actor) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        since,
        until,
        row["node_id"],
        reason.strip(),
        actor,
    )
    await record_audit(
        tx,
        actor,
        "prolong",
        subject=f"prolongation:{number}",
        details={"since": since.isoformat(), "until": until.isoformat(), "node": node, "reason": reason.strip()},
    )
    return Outage(number, since, until, node)


async def prolong_page(tx: Tx, outage: Outage, *, actor: str, limit: int = 100) -> int:
    """Give up to `limit` customers back what the outage took from them, and return how many; 0: everybody has it.

    Each gets a grant of their own, of the tariff they have, as long as their access and the outage overlapped. Who had no
    access in it, was revoked since, or (with a node) has no key there, gets nothing.
    """
    # Two that make the same outage good at once take turns.
    await tx.execute("SELECT FROM prolongations WHERE id = $1 FOR UPDATE", outage.id)
    rows = await tx.fetch(_HIT, outage.since, outage.until, outage.node, f"prolong:{outage.id}:", limit)
    await lock_customers(tx, [row["customer_id"] for row in rows])
    for row in rows:
        period: timedelta = row["ended"] - row["began"]
        wanted = Grant(row["customer_id"], row["tariff"], period, "admin", actor, idempotency_key=row["key"])
        given = await grant(tx, wanted)
        await want_present(tx, given.subscription_id)
        payload = {"tariff": row["tariff"], "source": "admin", "expires_at": given.new_end.isoformat()}
        await record_audit(
            tx,
            actor,
            "prolong",
            Notice("access_granted", f"event:{given.event_id}", row["customer_id"], payload),
            customer_id=row["customer_id"],
            subject=f"event:{given.event_id}",
            details={"minutes": period // timedelta(minutes=1), "prolongation": outage.id},
        )
    return len(rows)


# The access of the moment: it began with the last grant that found none, and its end then was what its last event said.
_HIT = """
SELECT hit.*, $4 || hit.id AS key
FROM (
    SELECT s.id, s.customer_id, s.tariff, greatest($1::timestamptz, run.began) AS began,
           least($2::timestamptz, last.new_end) AS ended
    FROM subscriptions s
    JOIN LATERAL (SELECT new_end FROM entitlement_events WHERE subscription_id = s.id AND created_at <= $2
                  ORDER BY position DESC LIMIT 1) AS last ON true
    JOIN LATERAL (SELECT created_at AS began FROM entitlement_events
                  WHERE subscription_id = s.id AND created_at < $2 AND kind IN ('grant', 'opening')
                    AND (previous_end IS NULL OR previous_end <= created_at)
                  ORDER BY position DESC LIMIT 1) AS run ON true
    WHERE s.state <> 'revoked' AND last.new_end > $1
      AND ($3::text IS NULL OR EXISTS (
           SELECT FROM vpn_keys k JOIN key_placements p ON p.key_id = k.id JOIN vpn_nodes n ON n.id = p.node_id
           WHERE k.subscription_id = s.id AND n.name = $3 AND p.applied <> 'unknown'))
) AS hit
WHERE hit.ended > hit.began AND NOT EXISTS (SELECT FROM entitlement_events WHERE idempotency_key = $4 || hit.id)
ORDER BY hit.customer_id LIMIT $5
"""
