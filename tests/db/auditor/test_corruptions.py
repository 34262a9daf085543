"""Each altered row that means money, access, ownership or state is named; what was lived through is clean."""

from collections import Counter

import pytest

from db.auditor.audit import audit, audit_changes
from db.auditor.books import QUERIES
from tests.db.auditor.auditing import Named, auditing
from tests.db.auditor.columns import EXCEPT, NOT_MONEY, WHOLE_TABLES, means_money
from tests.db.auditor.corruptions import plan
from tests.db.database import Database

PARTS = 4
"""So many tests share the corruptions of one group of tables."""
GROUPS = (
    ("accounts", "postings"),
    ("audit",),
    ("entitlement_events",),
    ("entitlement_intervals", "first_placements", "subscriptions", "trials", "renewals", "prolongations", "vpn_keys"),
    ("journals", "money_in", "cases"),
    ("orders", "openings", "opening_grants", "rates_kept"),
    (
        "refunds",
        "undone_purchases",
        "compensation_parts",
        "withdrawals",
        "withdrawal_confirmations",
        "provider_refunds",
    ),
    ("referral_rewards", "reward_takebacks", "referral_rules", "customers"),
    ("row_facts", "prices", "tariffs", "assets", "promo_codes", "promo_uses", "provider_events", "subscription_links"),
)
NEVER_PAID = "orders.* doubled"
"""An order out of nothing that was never paid is an offer to pay: nothing follows from it."""


async def test_every_column_is_classified(database: Database) -> None:
    async with database.connect() as connection:
        columns = await connection.fetch(
            "SELECT c.relname AS table, a.attname AS column FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped"
        )
    known = {(row["table"], row["column"]) for row in columns}
    relevant = {table for table, column in known if means_money(table, column)}
    assert relevant == {table for group in GROUPS for table in group}
    assert relevant <= set(QUERIES)
    named = {(table, column) for table, whole in NOT_MONEY.items() for column in whole}
    named |= {(table, column) for table, whole in EXCEPT.items() for column in whole}
    assert named <= known
    assert set(WHOLE_TABLES) | set(NOT_MONEY) == {table for table, _ in known}


async def test_a_rich_history_is_clean(history: Database) -> None:
    found = await history.run(audit)
    assert [str(finding) for finding in found.findings] == []
    assert await history.broken_invariants() == []
    async with history.connect() as connection:
        journals = Counter(row["kind"] for row in await connection.fetch("SELECT kind FROM journals"))
        events = Counter(row["kind"] for row in await connection.fetch("SELECT kind FROM entitlement_events"))
        sources = Counter(row["source"] for row in await connection.fetch("SELECT source FROM entitlement_events"))
    assert len(journals) == 16
    assert set(events) == {"grant", "opening", "refund", "revoke", "compensation", "delay"}
    assert len(sources) == 5


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("tables", GROUPS, ids=lambda tables: tables[0])
async def test_a_row_that_is_altered_is_named(history: Database, tables: tuple[str, ...], part: int) -> None:
    named = Named()
    async with auditing(history) as auditor:
        planned = (await plan(auditor.connection, tables))[part::PARTS]
        for corruption in planned:
            await auditor.plant(corruption, named)
    unnamed = [one for one in named.unnamed if not one.startswith(NEVER_PAID)]
    assert unnamed == [], "\n".join(unnamed)
    assert named.by_rules + named.by_checkpoint + named.refused > 0
    print(tables[0], part, named)


async def test_nothing_is_derived_again_until_something_changes(history: Database) -> None:
    assert (await history.run(audit_changes)).is_derived
    again = await history.run(audit_changes)
    assert again.holds and not again.is_derived
    assert (await history.run(audit_changes, whole=True)).is_derived
    await history.topup(1, charge_id="one more")
    later = await history.run(audit_changes)
    assert later.holds and later.is_derived


async def test_a_checkpoint_that_was_altered_is_named(history: Database) -> None:
    await history.run(audit_changes)
    async with history.connect() as connection:
        await connection.execute("UPDATE audited_parts SET rows = rows - 1 WHERE part = 'journals:final'")
    found = await history.run(audit_changes)
    assert [finding.subject for finding in found.findings] == ["checkpoint of journals:final", "journals"]


async def test_what_was_audited_is_named_even_if_all_agrees(history: Database) -> None:
    """A whole payment, with everything that follows from it, is moved to a lesser amount: only the digest can tell."""
    await history.run(audit_changes)
    async with history.connect() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            UPDATE audit SET details = details || '{"amount": 1000, "booked": 1000}' WHERE id =
                (SELECT id FROM audit WHERE action = 'finalize_purchase' AND details ->> 'order' IS NULL
                 AND details ->> 'result' = 'balance_credit');
            UPDATE money_in SET amount = 1000, booked_amount = 1000 WHERE charge_id = 'no-order';
            UPDATE postings SET amount = sign(amount) * 1000 WHERE journal_id =
                (SELECT j.id FROM journals j JOIN money_in m ON m.id = j.money_in_id WHERE charge_id = 'no-order');
            UPDATE accounts a SET balance = a.balance - 7000 FROM money_in m
            WHERE m.charge_id = 'no-order' AND a.customer_id = m.customer_id AND a.kind = 'paid'
            """
        )
    assert (await history.run(audit)).holds
    found = await history.run(audit_changes)
    assert {finding.subject for finding in found.findings} == {"audit", "money_in", "postings"}
