"""Everything that the auditor reads: facts, and what is stored as their consequence, as plain rows by number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from db.tx import Row, Tx

QUERIES: Final[Mapping[str, str]] = {
    "customers": "SELECT id, telegram_id, referrer_id, is_vip, personal_discount_percent, first_paid_at FROM customers",
    "accounts": "SELECT id, kind, customer_id, currency, balance, balance_floor FROM accounts",
    "journals": "SELECT id, kind, idempotency_key, customer_id, order_id, money_in_id, created_at FROM journals",
    "postings": "SELECT id, journal_id, account_id, currency, amount FROM postings",
    "orders": "SELECT * FROM orders",
    "money_in": "SELECT * FROM money_in",
    "refunds": "SELECT * FROM refunds",
    "undone_purchases": "SELECT * FROM undone_purchases",
    "compensation_parts": "SELECT * FROM compensation_parts",
    "provider_refunds": "SELECT id, money_in_id, amount, asset, booked_amount, booked_currency, takes_access, writes_off, actor, "
    "state, refund_id, created_at, settled_at FROM provider_refunds",
    "withdrawals": "SELECT * FROM withdrawals",
    "withdrawal_confirmations": "SELECT * FROM withdrawal_confirmations",
    "cases": "SELECT id, kind, subject, customer_id, money_in_id, details::text AS details, state, opened_at, closed_at, "
    "closed_by FROM cases",
    "rates_kept": "SELECT * FROM rates_kept",
    "referral_rewards": "SELECT * FROM referral_rewards",
    "reward_takebacks": "SELECT * FROM reward_takebacks",
    "referral_rules": "SELECT id, hold_days, valid_from FROM referral_rules",
    "purse_openings": "SELECT * FROM purse_openings",
    "openings": "SELECT * FROM openings",
    "opening_grants": "SELECT * FROM opening_grants",
    "subscriptions": "SELECT * FROM subscriptions",
    "entitlement_events": "SELECT * FROM entitlement_events",
    "entitlement_intervals": "SELECT * FROM entitlement_intervals",
    "trials": "SELECT * FROM trials",
    "renewals": "SELECT * FROM renewals",
    "first_placements": "SELECT * FROM first_placements",
    "prolongations": "SELECT * FROM prolongations",
    "promo_codes": "SELECT * FROM promo_codes",
    "promo_uses": "SELECT * FROM promo_uses",
    "prices": "SELECT * FROM prices",
    "tariffs": "SELECT * FROM tariffs",
    "assets": "SELECT * FROM assets",
    "provider_events": "SELECT id, provider, event_id, state, outcome::text AS outcome, settled_at FROM provider_events "
    "WHERE state = 'processed'",
    "invoices": "SELECT id, order_id, provider, state, settled_at, page_ends_at FROM invoices "
    "WHERE state = 'paid' OR page_ends_at IS NOT NULL",
    "vpn_keys": "SELECT id, key_id, subscription_id, encode(sha256(convert_to(uuid::text, 'UTF8')), 'hex') AS uuid, wanted, "
    "activation_status, activated_at, created_at FROM vpn_keys",
    "subscription_links": "SELECT customer_id, encode(sha256(convert_to(token, 'UTF8')), 'hex') AS token FROM subscription_links",
    "row_facts": "SELECT id, relation, row_key, fact::text AS fact, noted_at FROM row_facts ORDER BY id",
    "audit": "SELECT id, at, actor, role, action, customer_id, subject, details::text AS details FROM audit ORDER BY id",
    "moving_over": "SELECT step, last_id, done_at FROM moving_over",
}
"""What is read of each table, a statement each; secrets come as digests."""

Rows = Sequence[Row]


def number_in(subject: str) -> int:
    """The number in a subject such as `order:42`; 0, which nothing has, if there is none."""
    digits = subject.partition(":")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def by(rows: Iterable[Row], column: str) -> dict[Any, Row]:
    """Rows by the value of a column that is unique."""
    return {row[column]: row for row in rows}


def grouped(rows: Iterable[Row], column: str) -> dict[Any, list[Row]]:
    """Rows by the value of a column, in the order in which they came."""
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found


@attrs.frozen
class Books:
    """One reading of all that the auditor looks at."""

    tables: Mapping[str, Rows]
    now: Any
    """The database's clock at the reading."""

    def __getitem__(self, table: str) -> Rows:
        return self.tables[table]


async def read_books(tx: Tx, known: Mapping[str, Rows] | None = None) -> Books:
    """Read everything in one snapshot, if the caller's transaction has one: REPEATABLE READ, or nothing that writes beside it.

    `known` are tables that were read before and have not changed.
    """
    tables = {
        name: known[name] if known and name in known else await tx.fetch(query) for name, query in QUERIES.items()
    }
    return Books(tables, await tx.fetchval("SELECT atlas_now()"))
