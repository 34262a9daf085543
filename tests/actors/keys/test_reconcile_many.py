"""Reconciling very many keys. The promise is for ATLAS_TEST_KEYS=50000: equal within 2 s, all lost and back within 60 s."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from db.tx import Tx
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.vpn.agents import gone
from tests.vpn.origin import PAGE, origin_server
from vpn.link import link_for
from vpn.xray.tunnel import open_tunnel

KEYS = int(os.environ.get("ATLAS_TEST_KEYS", "3000"))
EQUAL_WITHIN = 2.0
BACK_WITHIN = 60.0

FILL = """
SET LOCAL statement_timeout = 0;
SET LOCAL session_replication_role = replica;  -- bulk rows of a test: no triggers, no events
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, {count}) n;
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at)
SELECT id, 'basic', now() + interval '20 days', 'admin', 'active', now() + interval '20 days' FROM customers;
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at)
SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'active', now() FROM subscriptions;
ANALYZE;
"""


async def look(harness: NodeHarness) -> float:
    """One look at a node that is up; returns how many seconds it took."""
    await harness.until_back("oslo")
    began = trio.current_time()
    await harness.look("equal")
    return trio.current_time() - began


async def until_whole(harness: NodeHarness) -> float:
    """Let it look, and wait until the node has everything; returns how many seconds that took."""
    began = trio.current_time()
    harness.wake("reconcile")

    async def is_whole() -> bool:
        state = await harness.state("oslo")
        return state.ready and state.serving == KEYS

    await harness.until(is_whole)
    seconds = trio.current_time() - began

    while await harness.look() != "equal":
        await harness.until_back("oslo")
    return seconds


async def lose_the_disk(harness: NodeHarness) -> None:
    """The agent starts again with its identity, but without a single key."""
    agent = harness.agents["oslo"]
    [xray] = agent.xray_pids()
    await agent.kill()
    await gone(xray)
    for path in agent.directory.glob("keys.*"):
        path.unlink()
    assert (await harness.agent("oslo")).url == agent.url


@pytest.mark.unchecked_money("bulk rows, written past the rules")
async def test_all_keys_are_put_on_a_new_node_found_equal_lost_and_put_back(
    database_dsn: str, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness, origin_server() as site:

        async def fill(tx: Tx) -> None:
            await tx.execute(FILL.format(count=KEYS))

        await harness.pool.pool.run("fill", fill, hold=60.0)
        await harness.reconcile(patience=60.0, page_size=2000)
        await harness.node("oslo")
        harness.patience = 150.0
        placed = await until_whole(harness)
        equal = await look(harness)
        listed = await harness.listed("oslo")
        assert len(listed) == KEYS
        await lose_the_disk(harness)
        lost = await until_whole(harness)
        await look(harness)
        spec = next(iter(listed.values())).spec
        async with open_tunnel(link_for(spec, harness.agents["oslo"].facts)) as tunnel:
            assert (await tunnel.fetch(site.url)).body == PAGE
    tell(f"{KEYS} keys: placed in {placed:.2f} s, equal in {equal:.2f} s, lost and back in {lost:.2f} s")
    assert equal < EQUAL_WITHIN
    assert lost < BACK_WITHIN
