"""What it costs to expire subscriptions: by how many are due, and by how many there are.

Three tables in one run: few due in a small table, as few in one ten times as large, and ten times as many in the large one.
Cost must follow what is due (the second ratio), not the table (the first). Only those that are due have keys here, which makes
a million customers quick to write; that keys are found by index is proved with the plans.
"""

from __future__ import annotations

import time

import attrs
import trio
import trio_asyncio

from benchmarks.filling import execute_script
from benchmarks.leases import server
from benchmarks.result import Result, Sense, Target
from db.access.subscriptions import expire_page
from tests.db.database import Database
from tests.postgres_cluster import Cluster

PAGE = 100
MILLISECONDS = 1e3
FILL = """
SET session_replication_role = replica;  -- bulk rows: no triggers, no events
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, {rows}) n;
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at)
SELECT id, 'basic', now() + interval '20 days', 'payment', 'active',
       CASE WHEN id % ({rows} / {due}) = 1 THEN now() - interval '1 minute' ELSE now() + interval '20 days' END
FROM customers;
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at)
SELECT 'k' || lpad(id::text, 12, '0'), id, gen_random_uuid(), 1, 'present', 'active', now()
FROM subscriptions WHERE expires_at < now();
SET session_replication_role = DEFAULT;
VACUUM ANALYZE subscriptions, vpn_keys;
"""


@attrs.frozen
class Sizes:
    """Rows in the small table and in the large one; how many are due of few and of many."""

    small: int = 100_000
    large: int = 1_000_000
    few: int = 1_000
    many: int = 10_000


QUICK = Sizes(small=5_000, large=20_000, few=100, many=400)


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    with server() as cluster:
        cluster.template()  # built before the loop runs
        small = trio.run(_expire, cluster, sizes.small, sizes.few)
        large = trio.run(_expire, cluster, sizes.large, sizes.few)
        many = trio.run(_expire, cluster, sizes.large, sizes.many)
    times = sizes.large // sizes.small
    return [
        Result(
            f"expire {sizes.few:,} of {sizes.large:,} subscriptions",
            large * MILLISECONDS,
            "ms",
            f"as many of {sizes.small:,}",
            small * MILLISECONDS,
            large / small,
            "× the cost",
            Target(Sense.AT_MOST, times / 2),
        ),
        Result(
            f"expire {sizes.many:,} of {sizes.large:,} subscriptions",
            many * MILLISECONDS,
            "ms",
            f"{sizes.few:,} of them",
            large * MILLISECONDS,
            many / large,
            "× the cost",
            Target(Sense.AT_MOST, 2 * sizes.many / sizes.few),
        ),
    ]


async def _expire(cluster: Cluster, rows: int, due: int) -> float:
    """Seconds to expire everything that is due, page by page, keys included."""
    async with trio_asyncio.open_loop():
        database = Database(cluster.dsn(cluster.create_database(cluster.template())))
        async with database.connect() as connection:
            await execute_script(connection, FILL.format(rows=rows, due=due))
        after, expired, began = 0, 0, time.perf_counter()
        async with database.connect() as connection:
            while True:
                await connection.execute("BEGIN")
                page = await expire_page(connection, after, PAGE)
                await connection.execute("COMMIT")
                after, expired = page.last_id, expired + len(page.subscription_ids)
                if not page.more:
                    break
        seconds = time.perf_counter() - began
        assert expired == due, f"{expired} expired, {due} were due"
        return seconds
