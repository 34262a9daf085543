"""Traffic adds up over restarts of a node, and noting the same again adds nothing."""

from __future__ import annotations

from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.customers import add_customer
from db.keys.nodes import register_node
from db.keys.usage import MOST_BYTES, CustomerTraffic, note_usage, usage_of
from db.tx import Tx
from tests.db.database import Database


async def _buy(tx: Tx) -> str:
    await add_customer(tx, 42)
    order = await open_order(tx, 42, "basic", 30, idempotency_key="first")
    await finalize_purchase(tx, FinalizePurchase("test", "first", order.quote.amount, order.id))
    name: str = await tx.fetchval("SELECT key_id FROM vpn_keys")
    return name


async def test_absolute_counters_add_up_over_boots_and_nodes_and_never_twice(database: Database) -> None:
    for name in ("oslo", "rome"):
        await database.run(register_node, name, {"host": "h", "port": 1}, inbounds=["vless"])
    bought = await database.run(_buy)
    assert await database.run(usage_of, 42) == CustomerTraffic(0, 0)

    async def note(node: str, boot: str, up: int, down: int) -> int:
        return await database.run(note_usage, node, boot, [(bought, up, down), ("canary12345678", 5, 5)])

    assert await note("oslo", "b1", 10, 100) == 1
    for _ in range(2):
        assert await note("oslo", "b1", 15, 150) == 1
    assert await database.run(usage_of, 42) == CustomerTraffic(15, 150)
    await note("oslo", "b2", 1, 2)
    await note("rome", "b9", 1000, 2000)
    assert await database.run(usage_of, 42) == CustomerTraffic(1016, 2152)
    await note("oslo", "b2", 0, 0)  # a late answer
    await note("oslo", "b2", 3, 3)
    assert await database.run(usage_of, 42) == CustomerTraffic(1018, 2153)
    await note("rome", "b9", 10**40, -5)
    found = await database.run(usage_of, 42)
    assert (found.uploaded, found.downloaded) == (18 + MOST_BYTES, 2153)
    assert await database.run(usage_of, 7) == CustomerTraffic(0, 0)
