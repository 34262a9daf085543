"""Mutation proof of the auditor: without any one of its rules, some planted corruption is named by no rule any more."""

import asyncpg
import pytest

from db.auditor.books import read_books
from db.auditor.derivation import Derivation
from db.auditor.findings import RULES, apply_rules
from tests.db.auditor.auditing import Auditing, auditing
from tests.db.auditor.corruptions import plan
from tests.db.database import Database

GONE_JOURNAL = """
DELETE FROM postings WHERE journal_id =
    (SELECT j.id FROM journals j JOIN money_in m ON m.id = j.money_in_id WHERE charge_id = 'waits');
DELETE FROM journals WHERE money_in_id = (SELECT id FROM money_in WHERE charge_id = 'waits');
"""
GONE_EVENT = """
CREATE TEMP TABLE gone ON COMMIT DROP AS
SELECT e.* FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
WHERE e.source = 'admin' AND e.kind = 'grant' AND e.tariff = 'plus' AND s.state = 'active' AND s.expires_at = e.new_end
ORDER BY e.id DESC LIMIT 1;
DELETE FROM entitlement_intervals WHERE event_id = (SELECT id FROM gone);
DELETE FROM entitlement_events WHERE id = (SELECT id FROM gone);
UPDATE subscriptions s SET expires_at = previous_end, tariff_until = previous_end FROM gone WHERE s.id = gone.subscription_id;
"""
UNMATURED = """
CREATE TEMP TABLE early ON COMMIT DROP AS SELECT min(w.id) AS id FROM withdrawals w JOIN customers c ON c.id = w.customer_id
WHERE c.telegram_id = 500;
UPDATE journals SET created_at = created_at - interval '3 days'
WHERE id = (SELECT reserve_journal_id FROM withdrawals JOIN early USING (id));
UPDATE withdrawals w SET created_at = created_at - interval '3 days' FROM early WHERE w.id = early.id;
UPDATE audit a SET at = at - interval '3 days' FROM early
WHERE a.action = 'request_withdrawal' AND a.subject = 'withdrawal:' || early.id;
"""
PROOFS: dict[str, str | tuple[str, str]] = {
    "brought_keys_are_kept": """
CREATE TEMP TABLE another ON COMMIT DROP AS SELECT id, gen_random_uuid() AS uuid FROM vpn_keys
WHERE subscription_id = (SELECT s.id FROM subscriptions s JOIN customers c ON c.id = s.customer_id WHERE c.telegram_id = 702);
UPDATE vpn_keys k SET uuid = another.uuid FROM another WHERE k.id = another.id;
UPDATE row_facts f SET fact = f.fact || jsonb_build_object('uuid', encode(sha256(convert_to(another.uuid::text, 'UTF8')), 'hex'))
FROM another WHERE f.relation = 'vpn_keys' AND f.row_key = another.id::text
""",
    "charges_are_booked_as_quoted": ("money_in", "booked_currency"),
    "charges_are_in_the_trail": ("money_in", "provider"),
    "charges_return_what_they_brought": ("compensation_parts", "event_id"),
    "chargebacks_have_cases": ("cases", "customer_id"),
    "chargebacks_undo_purchases": ("undone_purchases", "value"),
    "codes_are_used_by_paid_orders": ("promo_uses", "used_at"),
    "compensations_are_of_unused_time": ("compensation_parts", "event_id"),
    "compensations_are_shared_out": ("compensation_parts", "amount"),
    "confirmations_are_of_others": ("withdrawal_confirmations", "operator"),
    "customers_have_four_purses": ("accounts", "currency"),
    "discounts_are_set_by_operators": ("audit", "details"),
    "documents_are_in_the_trail": ("audit", "at"),
    "events_have_facts": ("entitlement_events", "*"),
    "events_say_their_fact": ("entitlement_events", "actor"),
    "facts_have_events": GONE_EVENT,
    "facts_have_journals": GONE_JOURNAL,
    "intervals_follow_grants": ("entitlement_intervals", "tariff"),
    "invoices_are_paid_by_charges": "INSERT INTO invoices (order_id, provider, state, settled_at) "
    "VALUES (1, 'other', 'paid', now())",
    "journals_have_facts": ("journals", "*"),
    "journals_move_what_is_due": ("postings", "amount"),
    "journals_say_their_fact": ("journals", "customer_id"),
    "keys_follow_access": "UPDATE vpn_keys SET wanted = 'present', activation_status = 'active' WHERE id = "
    "(SELECT max(id) FROM vpn_keys WHERE wanted = 'absent' AND activated_at IS NOT NULL)",
    "keys_have_placements": ("first_placements", "*"),
    "legs_are_whole": ("postings", "currency"),
    "open_cases_are_open": ("cases", "closed_at"),
    "openings_are_in_the_trail": ("openings", "actor"),
    "openings_name_their_journals": ("openings", "journal_id"),
    "orders_are_paid_by_something": ("orders", "paid_at"),
    "orders_are_quoted_at_their_rate": ("orders", "quoted_amount"),
    "orders_cost_what_was_listed": ("orders", "list_amount"),
    "outages_do_not_overlap": ("prolongations", "*"),
    "paying_friends_have_paid": ("customers", "first_paid_at"),
    "placements_follow_purchases": ("first_placements", "placed_at"),
    "provider_events_have_charges": ("provider_events", "provider"),
    "provider_refunds_are_in_the_trail": ("provider_refunds", "takes_access"),
    "provider_refunds_are_within_the_charge": ("provider_refunds", "asset"),
    "provider_refunds_end_in_the_books": ("provider_refunds", "settled_at"),
    "purses_have_no_floor": "ALTER TABLE accounts DROP CONSTRAINT purses_have_no_floor; "
    "UPDATE accounts SET balance_floor = -100 WHERE id = (SELECT max(id) FROM accounts)",
    "purses_hold_what_is_due": ("accounts", "balance"),
    "quotes_keep_their_rate": ("rates_kept", "rate"),
    "refunds_say_what_happened": ("refunds", "spent"),
    "renewal_is_switched": ("subscriptions", "auto_renew"),
    "renewals_are_once": ("renewals", "journal_id"),
    "rewards_follow_spending": ("referral_rewards", "percent"),
    "rows_are_as_noted": ("customers", "referrer_id"),
    "rules_follow_each_other": ("referral_rules", "*"),
    "subscriptions_follow_events": ("subscriptions", "expires_at"),
    "subscriptions_keep_the_plan": ("subscriptions", "price_amount"),
    "subscriptions_name_the_tariff": ("subscriptions", "tariff_until"),
    "takebacks_are_in_proportion": ("reward_takebacks", "amount"),
    "trail_speaks_of_rows": ("audit", "subject"),
    "unknown_money_waits_in_a_case": ("cases", "opened_at"),
    "withdrawals_are_of_mature_money": UNMATURED,
    "withdrawals_name_their_journals": ("withdrawals", "reserve_journal_id"),
}
"""Of each rule a corruption that it alone names: statements, or a column among whose planned corruptions one is."""


def test_each_rule_has_a_proof() -> None:
    assert set(PROOFS) == set(RULES)


@pytest.mark.parametrize("name", sorted(RULES))
async def test_without_the_rule_a_corruption_is_not_named(history: Database, name: str) -> None:
    proof = PROOFS[name]
    async with auditing(history) as auditor:
        if isinstance(proof, str):
            assert await _named_with_and_without(auditor, proof, name) == (True, False)
            return
        table, column = proof
        for corruption in await plan(auditor.connection, [table]):
            if corruption.column == column:
                try:
                    named = await _named_with_and_without(auditor, corruption.statement, name, table)
                except asyncpg.IntegrityConstraintViolationError:
                    continue
                if named == (True, False):
                    return
    pytest.fail(f"every corruption of {table}.{column} that {name} names is named by another rule too: is it needed?")


async def _named_with_and_without(
    auditor: Auditing, statements: str, name: str, table: str | None = None
) -> tuple[bool, bool]:
    async with auditor.altered(statements):
        known = {} if table is None else {key: rows for key, rows in auditor.clean.tables.items() if key != table}
        derived = Derivation(await read_books(auditor.connection, known))
        others = [rule for key, rule in RULES.items() if key != name]
        return next(apply_rules(derived), None) is not None, next(apply_rules(derived, others), None) is not None
