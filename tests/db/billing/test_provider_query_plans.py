"""Claiming what providers are late with costs what is due, however many events and invoices there were before."""

from __future__ import annotations

import re

import pytest

from db.billing.invoices import claim_invoices
from db.billing.provider_events import claim_events
from db.work.claims import Claimer
from tests.db.database import Database
from tests.db.test_query_plans import Explaining, steps

DUE = 100
TOUCHED_AT_MOST = 12 * DUE
FILL = """
SET session_replication_role = replica;  -- bulk rows of a test: no triggers, no events
INSERT INTO customers (telegram_id) VALUES (1);
INSERT INTO orders (customer_id, kind, list_amount, price_amount, quoted_amount, quoted_asset, quoted_rate, idempotency_key,
                    state, expires_at)
SELECT 1, 'topup', 10000, 10000, 10000, 'RUB', 1, n::text, 'expired', now() FROM generate_series(1, 30000) n;
INSERT INTO provider_events (provider, event_id, body, state, outcome, settled_at, next_attempt_at)
SELECT 'stripe', 'evt_' || n, 'x', CASE WHEN n % 300 = 0 THEN 'received' ELSE 'processed' END,
       CASE WHEN n % 300 > 0 THEN '{}'::jsonb END, CASE WHEN n % 300 > 0 THEN now() END, now() - interval '1 minute'
FROM generate_series(1, 30000) n;
INSERT INTO invoices (order_id, provider, invoice_id, pay_url, state, opened_at, settled_at, next_attempt_at)
SELECT id, 'stripe', 'cs_' || id, 'https://pay.example', CASE WHEN id % 300 = 0 THEN 'open' ELSE 'closed' END, now(),
       CASE WHEN id % 300 > 0 THEN now() END, now() - interval '1 minute'
FROM orders;
SET session_replication_role = DEFAULT;
ANALYZE;
"""
OWNER = Claimer("main/payment_watcher", 1)


@pytest.mark.unchecked_money("bulk rows, written past the rules")
async def test_claims_of_the_payment_watcher_read_no_more_than_what_is_due(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute(FILL)
        explaining = Explaining(connection.raw)
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}; BEGIN")
            explaining.plans.clear()
            await claim_events(explaining, OWNER, 50, 60.0)
            await claim_invoices(explaining, OWNER, ["stripe", "yookassa"], 50, 60.0)
            await connection.execute("ROLLBACK")
            for plan in explaining.plans:
                scans = [step for step in steps(plan) if re.search("Scan", step["Node Type"])]
                read = sum(
                    (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]
                    for step in scans
                )
                assert not [step["Relation Name"] for step in scans if step["Node Type"] == "Seq Scan"], mode
                assert 0 < read <= TOUCHED_AT_MOST, f"{mode} read {read} rows"
