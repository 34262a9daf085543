"""The cost of claiming and expiring grows with what is due, not with the table."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from db.access.subscriptions import expire_page
from db.keys.activation import claim_activations
from db.keys.reconcile import expected_page
from db.keys.removal import claim_removals
from db.tx import Row, Tx
from db.work.claims import Claimer
from db.work.outbox import OutboxMessage, claim_messages, spread_messages
from tests.db.database import Connection, Database

CUSTOMERS = 60_000  # as in FILL
DUE = 300
TOUCHED_AT_MOST = 40 * DUE
"""Rows that a statement may read in all its steps; the tables have 200 times as many as are due."""

FILL = """
SET session_replication_role = replica;  -- bulk rows of a test: no triggers, no events
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, 60000) n;
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at)
SELECT id, 'basic', now() + interval '20 days', 'payment', CASE WHEN id % 5 = 0 THEN 'expired' ELSE 'active' END,
       CASE WHEN id % 5 = 0 THEN now() - interval '10 days'
            WHEN id % 200 = 1 THEN now() - interval '1 minute'
            ELSE now() + interval '20 days' END
FROM customers;
INSERT INTO vpn_nodes (name, endpoint, inbounds) VALUES ('local', '{}', '{in}');
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at, next_attempt_at)
SELECT 'k' || lpad(id::text, 12, '0'), id, gen_random_uuid(), 1,
       CASE WHEN id % 200 = 3 THEN 'absent' ELSE 'present' END,
       CASE id % 200 WHEN 2 THEN 'pending' WHEN 3 THEN 'removing' ELSE 'active' END, now(), now() - interval '1 minute'
FROM subscriptions;
INSERT INTO key_placements (key_id, node_id) SELECT k.id, n.id FROM vpn_keys k, vpn_nodes n;
INSERT INTO reissues (idempotency_key, subscription_id, key_id, actor, finished_at, result)
SELECT 'r' || id, subscription_id, id, 'test', CASE WHEN id % 400 <> 2 THEN now() END, CASE WHEN id % 400 <> 2 THEN 'replaced' END
FROM vpn_keys;
INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, new_end, actor, created_at)
SELECT id, 1, 'grant', source, tariff, interval '30 days', expires_at, 'test', expires_at - interval '30 days' FROM subscriptions;
INSERT INTO first_placements (event_id) SELECT id FROM entitlement_events WHERE subscription_id % 200 <> 2;
INSERT INTO outbox (customer_id, kind, subject, state, settled_at, next_attempt_at)
SELECT id, 'purchase', 'order:' || id, CASE WHEN id % 200 = 4 THEN 'pending' ELSE 'sent' END,
       CASE WHEN id % 200 <> 4 THEN now() END, now() - interval '1 minute'
FROM customers;
SET session_replication_role = DEFAULT;
ANALYZE;
"""


class Explaining(Connection):
    """Runs each statement under EXPLAIN ANALYZE and keeps the plans; results are empty."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self.plans: list[Any] = []

    async def fetch(self, query: str, /, *args: object) -> list[Row]:
        text = await super().fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {query}", *args)
        self.plans.append(json.loads(text)[0]["Plan"])
        return []


def steps(plan: Any) -> Iterator[Any]:
    yield plan
    for child in plan.get("Plans", []):
        yield from steps(child)


OWNER = Claimer("main/test", 1)
MESSAGE = OutboxMessage(4, 1, 4, 4, "ru", "purchase", "order:4", {}, 0, datetime.now(UTC), datetime.now(UTC))
HOT: list[tuple[str, Callable[[Tx], Awaitable[object]]]] = [
    ("claim_activations", lambda tx: claim_activations(tx, OWNER, 50, 60.0)),
    ("claim_removals", lambda tx: claim_removals(tx, OWNER, 50, 60.0)),
    ("expire_page", lambda tx: expire_page(tx, 0, 100)),
    ("expire_page later", lambda tx: expire_page(tx, CUSTOMERS // 2, 100)),
    ("claim_messages", lambda tx: claim_messages(tx, OWNER, 50, 60.0)),
    ("spread_messages", lambda tx: spread_messages(tx, [MESSAGE], 1.0)),
    ("expected_page", lambda tx: expected_page(tx, "local", "", 1000)),
    ("expected_page later", lambda tx: expected_page(tx, "local", "k000000030000", 1000)),
]


@pytest.mark.unchecked_money("bulk rows, written past the rules")
async def test_hot_statements_read_no_more_than_what_is_due(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute(FILL)
        explaining = Explaining(connection.raw)
        for name, run in HOT:
            # A prepared statement is planned for its values at first and for any value later; both must be good.
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
                    if step["Node Type"] == "Seq Scan" and step["Relation Name"] not in ("vpn_nodes", "tariffs")
                ]
                assert whole == [], f"{name} ({mode}) scans whole tables"
                assert 0 < read <= TOUCHED_AT_MOST, f"{name} ({mode}) read {read} rows"
