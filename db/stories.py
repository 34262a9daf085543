"""What operators read of customers: everything known of one, on one page; how one is found; and what waits.

Only reads. It derives nothing: what it shows is stored, or read by the functions that the operations themselves use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from db.access.subscriptions import SubscriptionView, get_subscription
from db.billing.ledger import Purses, purses
from db.billing.referrals import ReferralStanding, Withdrawable, referral_standing, withdrawable
from db.customers import Customer, find_customer
from db.keys.usage import CustomerTraffic, usage_of
from db.money import Money
from db.tx import Tx

ROWS: Final = 50
"""Rows of a part of a story; there may be more."""
_FOUND: Final = 20
_KEY_PREFIX: Final = re.compile(r"[a-z0-9]{4,48}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@attrs.frozen
class Found:
    """A customer, and by what."""

    telegram_id: int
    by: str


@attrs.frozen
class StoryPart:
    """Rows of one kind about a customer, the newest first: JSON's values; moments as text, amounts in whole units."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    is_cut: bool = False
    """There are more than `ROWS`."""


@attrs.frozen
class CustomerStory:
    """Everything known of one customer."""

    customer: Customer
    purses: Purses
    withdrawable: Withdrawable
    standing: ReferralStanding
    subscription: SubscriptionView | None
    traffic: CustomerTraffic
    parts: Sequence[StoryPart]


@attrs.frozen
class Backlog:
    """What waits for a human or is late, and since when."""

    open_cases: int
    oldest_case: datetime | None
    late_keys: int
    """Keys that are wanted on nodes and not confirmed after two minutes."""
    oldest_key: datetime | None
    late_notices: int
    """Notices that were tried, and are not sent after five minutes."""
    withdrawals: int
    oldest_withdrawal: datetime | None
    payments: int
    """The number of the last captured charge: it grows by one for each."""


@attrs.frozen
class NodeStanding:
    """What the database knows of a node: keys that belong there, keys that were confirmed there, what customers moved."""

    name: str
    accepts_keys: bool
    last_seen_at: datetime | None
    retired_at: datetime | None
    wanted: int
    """Keys that customers have and that are placed there."""
    had: int
    """Of these, those that the node has confirmed."""
    moved: int
    """Bytes in both directions, as far as usage is kept."""


async def read_nodes(tx: Tx) -> Sequence[NodeStanding]:
    """All nodes, the retired ones last. It counts every placement: for a page that is asked for, not for a loop."""
    rows = await tx.fetch(
        """
        SELECT n.name, n.accepts_keys, n.last_seen_at, n.retired_at, coalesce(p.wanted, 0) AS wanted, coalesce(p.had, 0) AS had,
               coalesce(u.moved, 0)::bigint AS moved
        FROM vpn_nodes n
        LEFT JOIN (SELECT p.node_id, count(*) AS wanted, count(*) FILTER (WHERE p.applied = 'present') AS had
                   FROM key_placements p JOIN vpn_keys k ON k.id = p.key_id WHERE k.wanted = 'present'
                   GROUP BY p.node_id) AS p ON p.node_id = n.id
        LEFT JOIN (SELECT node_id, sum(uploaded + downloaded) AS moved FROM key_usage GROUP BY node_id) AS u ON u.node_id = n.id
        ORDER BY n.retired_at NULLS FIRST, n.placement_order, n.id
        """
    )
    return [NodeStanding(**{field.name: row[field.name] for field in attrs.fields(NodeStanding)}) for row in rows]


async def search_customers(tx: Tx, text: str) -> Sequence[Found]:
    """The customers whom this text may mean: a Telegram id, the number of an order, a provider's id of a charge, or the
    beginning of a key's id (four characters or more). At most 20; the nearest meaning first."""
    text = text.strip()
    number = int(text) if _NUMBER.fullmatch(text) else None
    prefix = text.lower() if _KEY_PREFIX.fullmatch(text.lower()) else None
    rows = await tx.fetch(
        """
        -- the few providers first: a charge is indexed by its provider
        WITH RECURSIVE providers AS (
            SELECT min(provider) AS provider FROM money_in
            UNION ALL
            SELECT (SELECT min(m.provider) FROM money_in m WHERE m.provider > p.provider)
            FROM providers p WHERE p.provider IS NOT NULL
        )
        SELECT telegram_id, by FROM (
            (SELECT telegram_id, 'Telegram id' AS by, 1 AS rank FROM customers WHERE telegram_id = $1)
            UNION ALL
            (SELECT c.telegram_id, 'charge ' || m.provider, 2
             FROM providers p JOIN money_in m ON m.provider = p.provider AND m.charge_id = $2
             JOIN customers c ON c.id = m.customer_id LIMIT $4)
            UNION ALL
            (SELECT c.telegram_id, 'order ' || o.id, 3 FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = $1)
            UNION ALL
            (SELECT c.telegram_id, 'key', 4 FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
             JOIN customers c ON c.id = s.customer_id
             WHERE k.activation_status <> 'removed' AND k.key_id COLLATE "C" >= $3 AND k.key_id COLLATE "C" < $3 || '~'
             LIMIT $4)
        ) AS found ORDER BY rank LIMIT $4
        """,
        number,
        text,
        prefix,
        _FOUND,
    )
    return [Found(row["telegram_id"], row["by"]) for row in rows]


async def latest_customers(tx: Tx) -> Sequence[Found]:
    """The customers who came last."""
    rows = await tx.fetch("SELECT telegram_id FROM customers ORDER BY id DESC LIMIT $1", _FOUND)
    return [Found(row["telegram_id"], "") for row in rows]


@attrs.frozen
class ListedCustomer:
    """A customer as a list shows them."""

    telegram_id: int
    created_at: datetime
    tariff: str | None
    expires_at: datetime | None
    balance: Money
    open_cases: int


async def list_customers(tx: Tx, before: int | None, limit: int, *, active: bool = False) -> Sequence[ListedCustomer]:
    """Customers, those who came last first; `before` leaves those who came before the one of that Telegram id.

    With `active`, only those whose subscription runs. Raises `UnknownCustomer` for an unknown `before`.
    """
    last = None if before is None else (await find_customer(tx, before)).id
    rows = await tx.fetch(
        """
        SELECT c.telegram_id, c.created_at, s.tariff, s.expires_at,
               (SELECT coalesce(sum(a.balance), 0)::bigint FROM accounts a
                WHERE a.customer_id = c.id AND a.currency = 'RUB' AND a.kind IN ('paid', 'credit', 'earned')) AS balance,
               (SELECT count(*) FROM cases k WHERE k.customer_id = c.id AND k.state = 'open') AS open_cases
        FROM customers c LEFT JOIN subscriptions s ON s.customer_id = c.id
        WHERE ($1::bigint IS NULL OR c.id < $1) AND (NOT $2 OR (s.state = 'active' AND s.expires_at > atlas_now()))
        ORDER BY c.id DESC LIMIT $3
        """,
        last,
        active,
        limit,
    )
    return [
        ListedCustomer(
            row["telegram_id"],
            row["created_at"],
            row["tariff"],
            row["expires_at"],
            Money(row["balance"]),
            row["open_cases"],
        )
        for row in rows
    ]


@attrs.frozen
class AuditEntry:
    """One entry of the audit trail; the details are JSON text."""

    id: int
    at: datetime
    actor: str
    role: str | None
    how: str | None
    action: str
    telegram_id: int | None
    subject: str
    details: str


async def read_audit(
    tx: Tx,
    limit: int,
    *,
    telegram_id: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    before: int | None = None,
) -> Sequence[AuditEntry]:
    """Entries of the audit trail, the newest first: of one customer, by one actor, of one kind; `before` an entry's number.

    Raises `UnknownCustomer`.
    """
    customer = None if telegram_id is None else (await find_customer(tx, telegram_id)).id
    rows = await tx.fetch(
        """
        SELECT a.id, a.at, a.actor, a.role, a.how, a.action, c.telegram_id, a.subject, a.details::text AS details
        FROM audit a LEFT JOIN customers c ON c.id = a.customer_id
        WHERE ($1::bigint IS NULL OR a.customer_id = $1) AND ($2::text IS NULL OR a.actor = $2)
          AND ($3::text IS NULL OR a.action = $3) AND ($4::bigint IS NULL OR a.id < $4)
        ORDER BY a.id DESC LIMIT $5
        """,
        customer,
        actor,
        action,
        before,
        limit,
    )
    return [AuditEntry(**{field.name: row[field.name] for field in attrs.fields(AuditEntry)}) for row in rows]


async def read_story(tx: Tx, telegram_id: int) -> CustomerStory:
    """Everything known of a customer, as of this transaction. Raises `UnknownCustomer`."""
    found = await find_customer(tx, telegram_id)
    return CustomerStory(
        customer=found,
        purses=await purses(tx, found.id),
        withdrawable=await withdrawable(tx, found.id),
        standing=await referral_standing(tx, found.id),
        subscription=await get_subscription(tx, telegram_id),
        traffic=await usage_of(tx, telegram_id),
        parts=[await _part(tx, name, columns, query, found.id) for name, (columns, query) in _PARTS.items()],
    )


async def read_backlog(tx: Tx) -> Backlog:
    """What waits now. Each count reads an index of what is open alone."""
    row = await tx.fetchrow(
        """
        SELECT (SELECT count(*) FROM cases WHERE state = 'open') AS open_cases,
               (SELECT min(opened_at) FROM cases WHERE state = 'open') AS oldest_case,
               k.late AS late_keys, k.oldest AS oldest_key, o.late AS late_notices, w.waiting AS withdrawals,
               w.oldest AS oldest_withdrawal, (SELECT coalesce(max(id), 0) FROM money_in) AS payments
        FROM (SELECT count(*) AS late, min(pending_since) AS oldest FROM vpn_keys
              WHERE activation_status = 'pending' AND wanted = 'present' AND given_up_at IS NULL
                AND pending_since < atlas_now() - interval '2 minutes') AS k,
             (SELECT count(*) AS late FROM outbox
              -- not those that nobody has tried to send: they wait for a bot to be configured, or for a worker that is shown
              WHERE state = 'pending' AND attempts > 0 AND created_at < atlas_now() - interval '5 minutes') AS o,
             (SELECT count(*) AS waiting, min(created_at) AS oldest FROM withdrawals WHERE state = 'reserved') AS w
        """
    )
    assert row is not None, "aggregates are one row"
    return Backlog(**{field.name: row[field.name] for field in attrs.fields(Backlog)})


@attrs.frozen
class BusinessFigures:
    """How the business stands, as of one moment."""

    active: Mapping[str, int]
    """Running subscriptions by tariff."""
    trials: int
    """Of these, those that came from a trial."""
    held: Mapping[str, int]
    """Kopecks in all customers' purses, by kind of purse."""
    backlog: Backlog
    read_at: datetime


async def read_figures(tx: Tx) -> BusinessFigures:
    """Read them: the running subscriptions and the purses once each. For a worker's round, not for a scrape."""
    active = await tx.fetch(
        """
        SELECT tariff, count(*) AS running, count(*) FILTER (WHERE source = 'trial') AS trials
        FROM subscriptions WHERE state = 'active' AND expires_at > atlas_now() GROUP BY tariff
        """
    )
    purses = await tx.fetch(
        """
        SELECT kind, sum(balance)::bigint AS held FROM accounts
        WHERE currency = 'RUB' AND kind IN ('paid', 'credit', 'earned', 'debt') GROUP BY kind
        """
    )
    return BusinessFigures(
        {row["tariff"]: row["running"] for row in active},
        sum(row["trials"] for row in active),
        {"paid": 0, "credit": 0, "earned": 0, "debt": 0} | {row["kind"]: row["held"] for row in purses},
        await read_backlog(tx),
        await tx.fetchval("SELECT clock_timestamp()"),
    )


async def _part(tx: Tx, name: str, columns: Sequence[str], query: str, customer_id: int) -> StoryPart:
    names = ", ".join(f"c{number}" for number in range(len(columns)))
    rows = await tx.fetch(
        f"SELECT row_to_json(t)::text AS row FROM ({query} LIMIT {ROWS + 1}) AS t({names})",  # noqa: S608  # our own texts
        customer_id,
    )
    found = [list(json.loads(row["row"]).values()) for row in rows]
    return StoryPart(name, columns, found[:ROWS], len(found) > ROWS)


_PARTS: Final = {
    "Access": (
        ("from", "until", "tariff", "taken back", "came from", "by"),
        """
        SELECT i.starts_at, i.ends_at, i.tariff, nullif(i.taken, interval '0'), e.source, e.actor
        FROM subscriptions s JOIN entitlement_intervals i ON i.subscription_id = s.id
        JOIN entitlement_events e ON e.id = i.event_id WHERE s.customer_id = $1 ORDER BY i.starts_at DESC, i.event_id DESC
        """,
    ),
    "Keys": (
        ("key", "since", "wanted", "state", "on nodes", "attempts", "last error"),
        """
        SELECT left(k.key_id, 8) || '…', k.created_at, k.wanted, k.activation_status,
               (SELECT string_agg(n.name || ' ' || p.applied, ', ' ORDER BY n.placement_order, n.id)
                FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id WHERE p.key_id = k.id), k.attempts, k.last_error
        FROM subscriptions s JOIN vpn_keys k ON k.subscription_id = s.id WHERE s.customer_id = $1 ORDER BY k.id DESC
        """,
    ),
    "Charges": (
        ("received", "provider", "charge", "amount", "asset", "booked, RUB", "order", "refunded, RUB"),
        """
        SELECT m.received_at, m.provider, m.charge_id, round(m.amount / power(10::numeric, a.digits), a.digits)::text, m.asset,
               round(m.booked_amount / 100.0, 2)::text, m.order_id,
               (SELECT round(sum(r.amount) / 100.0, 2)::text FROM refunds r WHERE r.money_in_id = m.id AND r.currency = 'RUB')
        FROM money_in m JOIN assets a ON a.code = m.asset WHERE m.customer_id = $1 ORDER BY m.id DESC
        """,
    ),
    "Orders": (
        ("order", "made", "what", "tariff", "days", "RUB", "discount, %", "state", "paid", "expires"),
        """
        SELECT o.id, o.created_at, o.kind, o.tariff, o.days, round(o.price_amount / 100.0, 2)::text,
               nullif(o.discount_percent, 0), o.state, o.paid_at, o.expires_at
        FROM orders o WHERE o.customer_id = $1 ORDER BY o.id DESC
        """,
    ),
    "Journals": (
        ("journal", "at", "kind", "purse", "amount", "asset", "note"),
        """
        SELECT j.id, j.created_at, j.kind, a.kind, round(p.amount / power(10::numeric, s.digits), s.digits)::text, p.currency,
               nullif(j.note, '')
        FROM accounts a JOIN postings p ON p.account_id = a.id JOIN journals j ON j.id = p.journal_id
        JOIN assets s ON s.code = p.currency WHERE a.customer_id = $1 ORDER BY j.id DESC, p.id DESC
        """,
    ),
    "Cases": (
        ("case", "opened", "kind", "about", "state", "closed", "how"),
        """
        SELECT id, opened_at, kind, subject, state, closed_at, resolution FROM cases WHERE customer_id = $1 ORDER BY id DESC
        """,
    ),
    "Notices": (
        ("at", "kind", "about", "state", "settled", "attempts", "last error"),
        """
        SELECT created_at, kind, nullif(subject, ''), state, settled_at, attempts, last_error FROM outbox
        WHERE customer_id = $1 ORDER BY id DESC
        """,
    ),
    "Audit": (
        ("at", "who", "role", "what", "about", "details"),
        """
        SELECT at, actor, role, action, nullif(subject, ''), nullif(details::text, '{}') FROM audit WHERE customer_id = $1
        ORDER BY at DESC, id DESC
        """,
    ),
}
"""Each part: its columns, and the rows of the customer $1."""
