"""Alterations that are consistent in themselves, as a defect of an operation would leave them, and that views did not see."""

import pytest

from tests.db.auditor.auditing import auditing
from tests.db.database import Database

OTHER = (
    "(SELECT b.id FROM accounts b WHERE b.kind = a.kind AND b.customer_id <> a.customer_id ORDER BY b.id DESC LIMIT 1)"
)
OUT_OF_NOTHING = """
INSERT INTO journals (id, kind, idempotency_key, customer_id, created_at) OVERRIDING SYSTEM VALUE
SELECT 90000, '{kind}', '{kind}:out of nothing', 1, atlas_now() - interval '5 days';
INSERT INTO postings (journal_id, account_id, currency, amount)
SELECT 90000, id, 'RUB', -5000 FROM accounts WHERE kind = '{source}' AND customer_id IS NULL;
INSERT INTO postings (journal_id, account_id, currency, amount)
SELECT 90000, id, 'RUB', 5000 FROM accounts WHERE kind = '{purse}' AND customer_id = 1;
UPDATE accounts SET balance = balance + 5000 WHERE kind = '{purse}' AND customer_id = 1;
"""
MOVED_LEG = """
CREATE TEMP TABLE moved ON COMMIT DROP AS
SELECT p.id, p.amount, a.id AS old, {other} AS new
FROM postings p JOIN accounts a ON a.id = p.account_id JOIN journals j ON j.id = p.journal_id
WHERE j.kind = '{kind}' AND a.customer_id IS NOT NULL ORDER BY p.id DESC LIMIT 1;
ALTER TABLE accounts DROP CONSTRAINT purse_not_below_zero, DROP CONSTRAINT debt_not_above_zero;
UPDATE postings p SET account_id = m.new FROM moved m WHERE p.id = m.id;
UPDATE accounts a SET balance = a.balance - m.amount FROM moved m WHERE a.id = m.old;
UPDATE accounts a SET balance = a.balance + m.amount FROM moved m WHERE a.id = m.new;
"""
WITH_CUSTOMERS = (
    "topup",
    "payment_credit",
    "case_credit",
    "balance_purchase",
    "auto_renewal",
    "referral_reward",
    "referral_clawback",
    "refund",
    "withdrawal_reserve",
    "withdrawal_release",
    "compensation",
    "admin_adjust",
)
RENEWED_AT_A_TENTH = """
UPDATE postings p SET amount = p.amount / 10 FROM journals j WHERE j.id = p.journal_id AND j.kind = 'auto_renewal';
UPDATE accounts a SET balance = (SELECT sum(amount) FROM postings p WHERE p.account_id = a.id)
WHERE a.customer_id = (SELECT customer_id FROM journals WHERE kind = 'auto_renewal' LIMIT 1)
  AND EXISTS (SELECT FROM postings p WHERE p.account_id = a.id)
"""
RENEWED_FOR_A_YEAR = """
UPDATE entitlement_events SET period = '365 days', new_end = new_end + interval '335 days'
WHERE id = (SELECT max(event_id) FROM renewals);
UPDATE entitlement_events e SET previous_end = previous_end + interval '335 days', new_end = new_end + interval '335 days'
WHERE e.subscription_id = (SELECT max(subscription_id) FROM renewals) AND e.id > (SELECT max(event_id) FROM renewals);
UPDATE entitlement_intervals SET granted = '365 days', ends_at = ends_at + interval '335 days'
WHERE event_id = (SELECT max(event_id) FROM renewals);
UPDATE subscriptions SET expires_at = expires_at + interval '335 days', tariff_until = tariff_until + interval '335 days'
WHERE id = (SELECT max(subscription_id) FROM renewals);
"""
VANISHED = """
CREATE TEMP TABLE gone ON COMMIT DROP AS
SELECT o.id AS "order", m.id AS charge, j.id AS journal, e.id AS event, e.subscription_id, o.customer_id
FROM orders o JOIN money_in m ON m.order_id = o.id JOIN journals j ON j.order_id = o.id
JOIN entitlement_events e ON e.order_id = o.id WHERE o.customer_id = 4 AND o.state = 'paid';
DELETE FROM postings WHERE journal_id IN (SELECT journal FROM gone);
DELETE FROM journals WHERE id IN (SELECT journal FROM gone);
DELETE FROM money_in WHERE id IN (SELECT charge FROM gone);
DELETE FROM audit WHERE subject IN (SELECT 'money_in:' || charge FROM gone);
DELETE FROM entitlement_intervals WHERE subscription_id IN (SELECT subscription_id FROM gone);
DELETE FROM entitlement_events WHERE subscription_id IN (SELECT subscription_id FROM gone);
DELETE FROM first_placements WHERE event_id IN (SELECT event FROM gone);
DELETE FROM vpn_keys WHERE subscription_id IN (SELECT subscription_id FROM gone);
DELETE FROM row_facts WHERE relation = 'vpn_keys' AND fact ->> 'subscription_id' IN (SELECT subscription_id::text FROM gone);
DELETE FROM subscriptions WHERE id IN (SELECT subscription_id FROM gone);
DELETE FROM promo_uses WHERE order_id IN (SELECT "order" FROM gone);
UPDATE promo_codes SET uses = 0;
UPDATE orders SET state = 'pending', paid_at = NULL, paid_from = NULL WHERE id IN (SELECT "order" FROM gone);
UPDATE customers SET first_paid_at = NULL WHERE id IN (SELECT customer_id FROM gone);
"""
CONFIRMED = "withdrawal_id = (SELECT max(withdrawal_id) FROM withdrawal_confirmations)"
SAID = "action = 'withdrawal_confirmed'"
KNOWN = {
    "a payout confirmed by who asked for it": (
        f"UPDATE withdrawal_confirmations SET operator = 'front_end:test' WHERE {CONFIRMED}; "
        f"UPDATE audit SET actor = 'front_end:test' WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a payout confirmed by somebody of the role support": (
        f"UPDATE audit SET role = 'support' WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a payout confirmed by nobody with a role": (
        f"UPDATE audit SET role = NULL WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a confirmation without its withdrawal": (
        f"UPDATE withdrawal_confirmations SET withdrawal_id = 4711 WHERE {CONFIRMED}; "
        f"UPDATE audit SET subject = 'withdrawal:4711' WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a confirmation of another sum": (
        f"UPDATE audit SET details = '{{\"amount\": 1}}' WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a confirmation after the payout": (
        f"UPDATE withdrawal_confirmations SET confirmed_at = confirmed_at + interval '1 day' WHERE {CONFIRMED}; "
        f"UPDATE audit SET at = at + interval '1 day' WHERE {SAID}",
        "confirmations_are_of_others",
    ),
    "a refund at a provider beyond its charge": (
        "UPDATE provider_refunds SET booked_amount = 30000, amount = 30000 WHERE money_in_id = "
        "(SELECT money_in_id FROM provider_refunds WHERE state = 'asking'); "
        "UPDATE audit SET details = details || '{\"amount\": 30000}' WHERE action = 'ask_for_refund' AND subject = "
        "(SELECT 'provider_refund:' || id FROM provider_refunds WHERE state = 'asking')",
        "provider_refunds_are_within_the_charge",
    ),
    "a refund at a provider of another customer's charge": (
        "UPDATE provider_refunds r SET money_in_id = (SELECT id FROM money_in m WHERE asset = 'RUB' AND m.customer_id <> "
        "(SELECT customer_id FROM money_in WHERE id = r.money_in_id) AND amount > r.amount ORDER BY id LIMIT 1) "
        "WHERE state = 'asking'",
        "provider_refunds_are_in_the_trail",
    ),
    "a charge booked at another rate than that of its day": (
        "UPDATE orders SET quoted_rate = 40 WHERE idempotency_key = 'crypto-2'; "
        "UPDATE money_in SET booked_amount = booked_amount / 2 WHERE charge_id = 'coin-2'; "
        "UPDATE postings SET amount = amount / 2 WHERE journal_id = "
        "(SELECT j.id FROM journals j JOIN money_in m ON m.id = j.money_in_id WHERE charge_id = 'coin-2')",
        "orders_are_quoted_at_their_rate",
    ),
    "a refund that a provider made, without its journal": (
        "UPDATE provider_refunds SET refund_id = NULL WHERE refund_id IS NOT NULL",
        "provider_refunds_end_in_the_books",
    ),
    "a renewal debited a tenth of its price": (RENEWED_AT_A_TENTH, "journals_move_what_is_due"),
    "a renewal extended 365 days for 30": (RENEWED_FOR_A_YEAR, "events_say_their_fact"),
    "a credit of a payment out of nothing": (
        OUT_OF_NOTHING.format(kind="payment_credit", source="world", purse="paid"),
        "journals_have_facts",
    ),
    "an adjustment out of nothing": (
        OUT_OF_NOTHING.format(kind="admin_adjust", source="adjustment", purse="credit"),
        "journals_have_facts",
    ),
    "a release of a withdrawal out of nothing": (
        OUT_OF_NOTHING.format(kind="withdrawal_release", source="withdrawal_reserve", purse="earned"),
        "journals_have_facts",
    ),
    "a lowered floor": (
        "ALTER TABLE accounts DROP CONSTRAINT purses_have_no_floor; "
        "UPDATE accounts SET balance_floor = -1000000 WHERE id = (SELECT max(id) FROM accounts)",
        "purses_have_no_floor",
    ),
    "a promo code used twice": (
        "INSERT INTO promo_uses (order_id, promo_code_id, customer_id) SELECT id, 1, customer_id FROM orders "
        "WHERE state = 'paid' AND promo_code_id IS NULL LIMIT 1; UPDATE promo_codes SET uses = uses + 1 WHERE id = 1",
        "codes_are_used_by_paid_orders",
    ),
    "a whole payment vanished, but for the provider's event": (VANISHED, "provider_events_have_charges"),
    "a paying friend who never paid": (
        "UPDATE customers SET first_paid_at = atlas_now() "
        "WHERE id = (SELECT id FROM customers WHERE first_paid_at IS NULL LIMIT 1)",
        "paying_friends_have_paid",
    ),
}


@pytest.mark.parametrize("kind", WITH_CUSTOMERS)
async def test_a_leg_moved_to_another_customer_is_named(history: Database, kind: str) -> None:
    async with auditing(history) as auditor:
        named = await auditor.broken_rules(MOVED_LEG.format(kind=kind, other=OTHER))
    assert {"journals_move_what_is_due", "purses_hold_what_is_due"} <= named


@pytest.mark.parametrize("case", KNOWN)
async def test_what_views_did_not_see_is_named(history: Database, case: str) -> None:
    statements, rule = KNOWN[case]
    async with auditing(history) as auditor:
        assert rule in await auditor.broken_rules(statements)
