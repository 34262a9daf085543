"""What recurs reads what is due, not the tables that it is due in."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from db.access.entitlements import follow_tariffs
from db.access.reminders import queue_reminders
from db.billing.orders import expire_orders
from db.billing.renewal_schedule import claim_renewals
from db.tx import Row, Tx
from db.work.outbox import prune_messages
from tests.db.database import Database
from tests.db.test_query_plans import OWNER, Explaining, steps

SMALL_TABLES = ("tariffs",)
DUE = 200
TOUCHED_AT_MOST = 40 * DUE
"""Rows that a statement may read in all its steps; the tables have 200 times as many as are due."""
FILL = """
SET session_replication_role = replica;  -- bulk rows of a test: no triggers, no events
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, 40000) n;
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at)
SELECT id, 'basic', CASE WHEN id % 200 = 1 THEN now() - interval '1 minute' ELSE now() + interval '20 days' END,
       'payment', 'active', now() + interval '20 days' FROM customers;
INSERT INTO renewal_schedule (subscription_id, period_start, state, due_at)
SELECT id, expires_at, CASE WHEN id % 3 = 0 AND id % 200 <> 1 THEN 'missed' ELSE 'due' END,
       CASE WHEN id % 200 = 1 THEN now() - interval '1 minute' WHEN id % 3 = 0 THEN NULL ELSE expires_at END
FROM subscriptions;
INSERT INTO reminder_schedule (subscription_id, plan, began_at, ends_at, due_at)
SELECT id, 'paid', now() - interval '10 days', expires_at,
       CASE WHEN id % 200 = 1 THEN now() - interval '1 minute' WHEN id % 2 = 0 THEN now() + interval '1 day' END
FROM subscriptions;
INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
SELECT 2 * id, id, 'basic', interval '30 days', '0', '0', now() - interval '10 days', now() + interval '20 days'
FROM subscriptions WHERE id % 200 <> 1;
INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
SELECT 2 * id, id, 'basic', interval '30 days', '0', '0', tariff_until - interval '30 days', tariff_until
FROM subscriptions WHERE id % 200 = 1;
INSERT INTO entitlement_intervals (event_id, subscription_id, tariff, granted, used, taken, starts_at, ends_at)
SELECT 2 * id + 1, id, 'plus', expires_at - tariff_until, '0', '0', tariff_until, expires_at
FROM subscriptions WHERE id % 200 = 1;
INSERT INTO outbox (customer_id, kind, subject, state, settled_at)
SELECT id, 'purchase', 'order:' || id, CASE WHEN id % 2 = 0 THEN 'pending' ELSE 'sent' END,
       CASE WHEN id % 200 = 1 THEN now() - interval '40 days' WHEN id % 2 = 1 THEN now() - interval '1 day' END
FROM customers;
INSERT INTO orders (customer_id, kind, tariff, days, list_amount, price_amount, quoted_amount, quoted_asset, quoted_rate,
                    idempotency_key, state, expires_at)
SELECT id, 'subscription', 'basic', 30, 14900, 14900, 14900, 'RUB', 1, 'o',
       CASE WHEN id % 2 = 0 THEN 'expired' ELSE 'pending' END,
       CASE WHEN id % 200 = 1 THEN now() - interval '1 minute' ELSE now() + interval '20 minutes' END
FROM customers;
SET session_replication_role = DEFAULT;
ANALYZE;
"""


class ExplainingAll(Explaining):
    """Explains whatever way a statement is run."""

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        await self._explain(query, *args)
        row: Row = {"looked_at": 0, "queued": 0}
        return row

    async def execute(self, query: str, /, *args: object) -> str:
        await self._explain(query, *args)
        return "UPDATE 0"

    async def _explain(self, query: str, *args: object) -> None:
        text = await self.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {query}", *args)
        self.plans.append(json.loads(text)[0]["Plan"])


HOT: list[tuple[str, Callable[[Tx], Awaitable[object]]]] = [
    ("claim_renewals", lambda tx: claim_renewals(tx, OWNER, 50, 60.0)),
    ("queue_reminders", lambda tx: queue_reminders(tx, 50)),
    ("expire_orders", lambda tx: expire_orders(tx, 50)),
    ("follow_tariffs", lambda tx: follow_tariffs(tx, 50)),
    ("prune_messages", lambda tx: prune_messages(tx, 50, older_than=timedelta(days=30))),
]


@pytest.mark.unchecked_money("bulk rows, written past the rules")
async def test_recurring_statements_read_no_more_than_what_is_due(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute(FILL)
        assert await connection.fetchval("SELECT count(*) FROM renewal_schedule WHERE due_at < now()") == DUE
        explaining = ExplainingAll(connection.raw)
        for name, run in HOT:
            for mode in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}; BEGIN")
                explaining.plans.clear()
                await run(explaining)
                await connection.execute("ROLLBACK")
                [plan] = explaining.plans
                read = sum(
                    (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]
                    for step in steps(plan)
                    if re.search("Scan", step["Node Type"])
                )
                whole = [
                    step["Relation Name"]
                    for step in steps(plan)
                    if step["Node Type"] == "Seq Scan" and step["Relation Name"] not in SMALL_TABLES
                ]
                assert whole == [], f"{name} ({mode}) scans whole tables"
                assert 0 < read <= TOUCHED_AT_MOST, f"{name} ({mode}) read {read} rows"
