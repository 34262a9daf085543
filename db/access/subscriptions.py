"""Subscriptions: what a customer has now, the two ways it ends (time and revocation), and the unguessable link to it.

Both ends are marked here first; the workers take the keys off the nodes afterwards.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from db.access.entitlements import end_entitlement
from db.access.wanted_keys import want_absent
from db.customers import find_customer, lock_customers
from db.errors import BusinessError
from db.tx import Tx
from db.work.audit import abbreviated, record_audit


@attrs.frozen
class NodeFacts:
    """A node that has the key: what a link is rendered from."""

    name: str
    endpoint: Mapping[str, object]
    flow: str


@attrs.frozen
class PlaceView:
    """What is true of the key on one node, as that node confirmed it last."""

    node: str
    is_as_wanted: bool
    """It has this generation of the key; or, of a key that is wanted no more, it has none."""
    missing_since: datetime | None
    """It had confirmed the key and was seen without it; until it has it back."""


@attrs.frozen
class KeyView:
    """The customer's current key. Its text form shows the first 8 characters of the UUID only."""

    key_id: str
    uuid: UUID = attrs.field(repr=abbreviated)
    generation: int
    status: str
    """pending, active, failed, removing or removed; a renewal makes an active key pending until the nodes know."""
    activated_at: datetime | None
    last_error: str | None
    nodes: tuple[NodeFacts, ...]
    """Where the key is confirmed to be present; empty before it is."""
    places: tuple[PlaceView, ...] = ()
    """Every node that it has to do with; those of `nodes` are among them."""


@attrs.frozen
class SubscriptionView:
    """A customer's subscription, its key, and where that key works."""

    id: int
    telegram_id: int
    tariff: str
    state: str
    """active, expired or revoked, as marked."""
    is_running: bool
    """Active and not past its end at this moment."""
    source: str
    expires_at: datetime
    auto_renew: bool
    key: KeyView | None


@attrs.frozen
class ExpiredPage:
    """The subscriptions that one page of expiry ended, and where the next page begins."""

    subscription_ids: tuple[int, ...]
    last_id: int
    """Where the next page starts."""
    more: bool
    """The page was full: there may be more."""


async def get_subscription(tx: Tx, telegram_id: int) -> SubscriptionView | None:
    """The customer's subscription, or `None` if there never was one. Raises `UnknownCustomer`."""
    row = await tx.fetchrow(
        """
        SELECT s.id, coalesce(running.tariff, s.tariff) AS tariff, s.state, s.source, s.expires_at, s.auto_renew,
               s.state = 'active' AND s.expires_at > atlas_now() AS is_running,
               k.key_id, k.uuid, k.generation, k.activation_status, k.activated_at, k.last_error,
               (SELECT json_agg(json_build_object('name', n.name, 'endpoint', n.endpoint, 'flow', n.flow,
                                                  'present', p.applied = 'present', 'missing_since', p.missing_since,
                                                  'as_wanted', p.applied = k.wanted AND p.applied_generation >= k.generation
                                                               AND p.missing_since IS NULL)
                                ORDER BY n.placement_order, n.id)::text
                FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                WHERE p.key_id = k.id AND n.retired_at IS NULL) AS places
        FROM customers c
        JOIN subscriptions s ON s.customer_id = c.id
        LEFT JOIN LATERAL (SELECT k.* FROM vpn_keys k
                           LEFT JOIN reissues r ON r.key_id = k.id AND r.finished_at IS NULL
                           WHERE k.subscription_id = s.id
                           -- a key that is to replace another is shown once it has, one that no node took if there is no other
                           ORDER BY k.wanted = 'present' DESC, k.given_up_at IS NULL DESC, r.key_id IS NULL DESC, k.id DESC
                           LIMIT 1) AS k ON true
        -- the row's own tariff follows within minutes of a better one's end; this is what runs at this moment
        LEFT JOIN LATERAL (SELECT i.tariff FROM entitlement_intervals i JOIN tariffs ON tariffs.code = i.tariff
                           WHERE i.subscription_id = s.id AND i.ends_at > atlas_now()
                           ORDER BY tariffs.rank DESC LIMIT 1) AS running ON true
        WHERE c.telegram_id = $1
        ORDER BY s.id LIMIT 1
        """,
        telegram_id,
    )
    if row is None:
        await find_customer(tx, telegram_id)
        return None
    key = None
    if row["key_id"] is not None:
        places = json.loads(row["places"] or "[]")
        key = KeyView(
            key_id=row["key_id"],
            uuid=UUID(int=row["uuid"].int),
            generation=row["generation"],
            status=row["activation_status"],
            activated_at=row["activated_at"],
            last_error=row["last_error"],
            nodes=tuple([NodeFacts(at["name"], at["endpoint"], at["flow"]) for at in places if at["present"]]),
            places=tuple([_place(at) for at in places]),
        )
    return SubscriptionView(
        id=row["id"],
        telegram_id=telegram_id,
        tariff=row["tariff"],
        state=row["state"],
        is_running=row["is_running"],
        source=row["source"],
        expires_at=row["expires_at"],
        auto_renew=row["auto_renew"],
        key=key,
    )


def _place(found: Mapping[str, Any]) -> PlaceView:
    since = found["missing_since"]
    return PlaceView(found["name"], found["as_wanted"], None if since is None else datetime.fromisoformat(since))


async def mark_revoked(tx: Tx, telegram_id: int, *, actor: str) -> bool:
    """End the customer's subscription now and queue the removal of its keys; the node is told afterwards.

    `False`: it was revoked before, nothing changed. Raises `UnknownCustomer`, and `BusinessError` when the
    customer never had a subscription. A later purchase makes the subscription active again.
    """
    customer = await find_customer(tx, telegram_id)
    await lock_customers(tx, [customer.id])
    row = await tx.fetchrow(
        "SELECT id, state FROM subscriptions WHERE customer_id = $1 ORDER BY id LIMIT 1 FOR NO KEY UPDATE", customer.id
    )
    if row is None:
        raise BusinessError(f"the customer with Telegram id {telegram_id} never had a subscription")
    if row["state"] == "revoked":
        return False
    end = await end_entitlement(tx, row["id"], "revoke", actor)
    await tx.execute("UPDATE subscriptions SET state = 'revoked' WHERE id = $1", row["id"])
    keys = await want_absent(tx, [row["id"]])
    await record_audit(
        tx,
        actor,
        "revoke",
        customer_id=customer.id,
        subject=f"subscription:{row['id']}",
        details={"ended_at": end.isoformat(), "keys": keys},
    )
    return True


async def expire_page(tx: Tx, after_id: int = 0, limit: int = 100) -> ExpiredPage:
    """Mark up to `limit` subscriptions whose end has passed as expired, ids above `after_id` first, lowest first.

    In one statement: who has just renewed is skipped, because the end is read again under the row's lock; who is being
    worked on by another transaction is left for the next round. Their keys are queued for removal and the customers
    get a message.
    """
    rows = await tx.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT id FROM subscriptions
            WHERE state = 'active' AND expires_at <= (SELECT atlas_now()) AND id > $1
        ), seen AS MATERIALIZED (
            SELECT id FROM due ORDER BY id LIMIT $2
        ), page AS MATERIALIZED (
            SELECT s.id FROM subscriptions s JOIN seen ON seen.id = s.id JOIN customers c ON c.id = s.customer_id
            WHERE s.state = 'active' AND s.expires_at <= (SELECT atlas_now())
            -- the message needs the customer's row: one that another transaction keeps locked must not hold up the page
            FOR NO KEY UPDATE OF s SKIP LOCKED FOR KEY SHARE OF c SKIP LOCKED
        ), expired AS (
            UPDATE subscriptions s SET state = 'expired' FROM page WHERE s.id = page.id
            RETURNING s.id, s.customer_id, s.tariff, s.expires_at
        ), told AS (
            INSERT INTO outbox (customer_id, kind, subject, payload)
            SELECT customer_id, 'access_expired', 'subscription:' || id || ':' || extract(epoch FROM expires_at)::bigint,
                   jsonb_build_object('tariff', tariff, 'expires_at', expires_at)
            FROM expired
            ON CONFLICT (customer_id, kind, subject) DO NOTHING
            RETURNING 1
        ), woken AS (
            SELECT pg_notify('atlas_wake', 'notifications') FROM told LIMIT 1
        )
        SELECT seen.id, expired.id IS NOT NULL AS is_expired, (SELECT count(*) FROM woken) AS woken
        FROM seen LEFT JOIN expired ON expired.id = seen.id
        ORDER BY seen.id
        """,
        after_id,
        limit,
    )
    expired = [row["id"] for row in rows if row["is_expired"]]
    if expired:
        await want_absent(tx, expired)
    return ExpiredPage(tuple(expired), rows[-1]["id"] if rows else after_id, len(rows) == limit)


TOKEN_BYTES = 24
"""192 bits of chance."""


async def link_token(tx: Tx, telegram_id: int) -> str:
    """The token in the customer's subscription link; made at the first call, the same ever after.

    Raises `UnknownCustomer`.
    """
    customer = await find_customer(tx, telegram_id)
    await tx.execute(
        "INSERT INTO subscription_links (customer_id, token) VALUES ($1, $2) ON CONFLICT (customer_id) DO NOTHING",
        customer.id,
        secrets.token_urlsafe(TOKEN_BYTES),
    )
    token: str = await tx.fetchval("SELECT token FROM subscription_links WHERE customer_id = $1", customer.id)
    return token


async def reset_link_token(tx: Tx, telegram_id: int, *, actor: str) -> str:
    """Give the customer another token; the old one opens nothing any more. Raises `UnknownCustomer`."""
    customer = await find_customer(tx, telegram_id)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await tx.execute(
        """
        INSERT INTO subscription_links (customer_id, token) VALUES ($1, $2)
        ON CONFLICT (customer_id) DO UPDATE SET token = excluded.token, created_at = atlas_now()
        """,
        customer.id,
        token,
    )
    await record_audit(tx, actor, "reset_link", customer_id=customer.id, subject=f"customer:{customer.id}")
    return token


async def owner_of_token(tx: Tx, token: str) -> int | None:
    """The Telegram id of the customer to whom the token belongs; `None` if it is unknown."""
    telegram_id: int | None = await tx.fetchval(
        """
        SELECT c.telegram_id FROM subscription_links l JOIN customers c ON c.id = l.customer_id WHERE l.token = $1
        """,
        token,
    )
    return telegram_id
