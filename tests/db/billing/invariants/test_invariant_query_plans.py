"""Looking at the money costs as many steps as there are rows: twice as much for twice as large a shop, not four times."""

import json
import re

from db.billing.invariants import list_invariants
from tests.db.database import Database
from tests.db.test_query_plans import steps

CUSTOMERS = 1000
READ_AT_MOST = 3
"""How often a view may read a row of the database, on average over all tables."""
FILL = """
SET session_replication_role = replica;  -- bulk rows of a test: no triggers, no events
INSERT INTO vpn_nodes (name, endpoint, inbounds) VALUES ('n1', '{}', '{in}'), ('n2', '{}', '{in}');
INSERT INTO customers (telegram_id, referrer_id, first_paid_at)
SELECT n, CASE WHEN n % 3 = 0 AND n > 100 THEN 1 + n % 97 END, now() FROM generate_series(1, :customers) n;
INSERT INTO accounts (kind, customer_id, currency, balance) SELECT kind, id, 'RUB', 0 FROM customers
CROSS JOIN unnest(ARRAY['paid', 'credit', 'earned', 'debt']) AS kind;
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at, plan_tariff, period_days, price_amount,
                           price_currency)
SELECT id, 'basic', now() + interval '26 days', 'payment', 'active', now() + interval '26 days',
       'basic', 30, 14900, 'RUB' FROM customers;
-- Three orders each, the last one paid from the balance.
INSERT INTO orders (customer_id, kind, tariff, days, list_amount, price_amount, quoted_amount, quoted_asset, quoted_rate,
                    idempotency_key, state, paid_from, paid_at, expires_at)
SELECT c.id, 'subscription', 'basic', 30, 14900, 14900, 14900, 'RUB', 1, 'o' || k, 'paid',
       CASE WHEN k = 3 THEN 'balance' ELSE 'provider' END, now(), now()
FROM customers c, generate_series(1, 3) k;
INSERT INTO money_in (provider, charge_id, customer_id, order_id, amount, asset, booked_amount, booked_currency)
SELECT 'test', 'c' || id, customer_id, id, 14900, 'RUB', 14900, 'RUB' FROM orders WHERE paid_from = 'provider';
INSERT INTO journals (kind, idempotency_key, customer_id, order_id, money_in_id)
SELECT CASE o.paid_from WHEN 'balance' THEN 'balance_purchase' ELSE 'purchase' END, 'p' || o.id, o.customer_id, o.id, m.id
FROM orders o LEFT JOIN money_in m ON m.order_id = o.id;
INSERT INTO journals (kind, idempotency_key, customer_id) SELECT 'admin_adjust', 'x' || id, id FROM customers;
INSERT INTO journals (kind, idempotency_key, customer_id, money_in_id)
SELECT 'referral_reward', 'r' || m.id, c.referrer_id, m.id
FROM money_in m JOIN customers c ON c.id = m.customer_id WHERE c.referrer_id IS NOT NULL;
INSERT INTO referral_rewards (buyer_id, referrer_id, money_in_id, journal_id, friends, percent, amount, currency, created_at,
                              spending_journal_id, base, matures_at)
SELECT m.customer_id, j.customer_id, m.id, j.id, 1, 10, 1490, 'RUB', now() - interval '10 days', s.id, 14900, now()
FROM journals j JOIN money_in m ON m.id = j.money_in_id JOIN journals s ON s.money_in_id = m.id AND s.kind = 'purchase'
WHERE j.kind = 'referral_reward';
ANALYZE;
INSERT INTO postings (journal_id, account_id, currency, amount)
SELECT j.id, a.id, 'RUB', leg.amount
FROM journals j
JOIN (VALUES ('purchase', 'world', -14900), ('purchase', 'revenue', 14900),
             ('balance_purchase', 'credit', -14900), ('balance_purchase', 'revenue', 14900),
             ('admin_adjust', 'adjustment', -14900), ('admin_adjust', 'credit', 14900),
             ('referral_reward', 'referral_expense', -1490), ('referral_reward', 'earned', 1490)) AS leg (kind, account, amount)
    ON leg.kind = j.kind
JOIN accounts a ON a.kind = leg.account AND (a.customer_id IS NULL OR a.customer_id = j.customer_id);
UPDATE accounts a SET balance = p.amount
FROM (SELECT account_id, sum(amount) AS amount FROM postings GROUP BY account_id) AS p
WHERE p.account_id = a.id AND a.customer_id IS NOT NULL;
INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end, order_id,
                                money_in_id, journal_id, actor, created_at)
SELECT s.id, k, 'grant', CASE WHEN k = 3 THEN 'balance' ELSE 'payment' END, 'basic', interval '30 days',
       CASE WHEN k > 1 THEN s.expires_at - interval '30 days' * (4 - k) END, s.expires_at - interval '30 days' * (3 - k),
       o.id, m.id, j.id, 'x', s.expires_at - interval '30 days' * (4 - k) - interval '1 hour' * (k - 1)
FROM subscriptions s CROSS JOIN generate_series(1, 3) k
JOIN orders o ON o.customer_id = s.customer_id AND o.idempotency_key = 'o' || k
JOIN journals j ON j.order_id = o.id
LEFT JOIN money_in m ON m.order_id = o.id;
INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
SELECT id, subscription_id, tariff, period, '0', '0', new_end - period, new_end FROM entitlement_events;
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at)
SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'active', now() - interval '30 days'
FROM subscriptions;
INSERT INTO key_placements (key_id, node_id, applied, applied_generation, applied_expires_at)
SELECT k.id, n.id, 'present', 1, s.expires_at
FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id CROSS JOIN vpn_nodes n;
INSERT INTO outbox (customer_id, kind, subject, state, settled_at, created_at)
SELECT s.customer_id, 'purchase', 'order:' || e.order_id, 'sent', e.created_at, e.created_at
FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id;
INSERT INTO outbox (customer_id, kind, subject, state, settled_at, created_at)
SELECT s.customer_id, kind, 'subscription:' || s.id || ':' || extract(epoch FROM s.expires_at)::bigint, 'sent', now(),
       now() - interval '1 day'
FROM subscriptions s, unnest(ARRAY['reminder_paid_3d', 'reminder_paid_24h', 'reminder_paid_3h']) AS kind;
SET session_replication_role = DEFAULT;
ANALYZE;
"""


async def test_every_view_reads_the_tables_a_few_times_at_most_for_a_large_shop(
    database: Database,
) -> None:
    async with database.connect() as connection:
        await connection.execute(FILL.replace(":customers", str(CUSTOMERS)))
        rows = await connection.fetchval("SELECT sum(reltuples) FROM pg_class WHERE relkind = 'r' AND reltuples > 0")
        for view, _ in await list_invariants(connection):
            text = await connection.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM {view}")
            plan = json.loads(text)[0]["Plan"]
            assert plan["Actual Rows"] == 0, view
            read = sum(
                (
                    step["Actual Rows"]
                    + step.get("Rows Removed by Filter", 0)
                    + step.get("Rows Removed by Join Filter", 0)
                )
                * step["Actual Loops"]
                for step in steps(plan)
                if re.search("Scan|Join|Nested Loop", step["Node Type"])
            )
            assert read <= READ_AT_MOST * rows, f"{view} reads {read} rows, and there are {rows}"
