"""A pool that takes no more requests is found and replaced by the watchdog of a real process, and everybody goes on."""

from __future__ import annotations

from tests.watchdog.watched_process import watched

ACTORS = """
[actor."pool.main"]
actor = "tests.actors.pool.wedged_pool:WedgingPool"
args = {{ size = 1, migrate = false }}
[actor.customer]
actor = "tests.actors.pool.wedged_pool:Customer"
needs = ["pool.main"]
"""


async def test_a_wedged_pool_is_replaced_its_holder_ends_and_service_resumes(
    database_dsn: str, pool_bridge: str
) -> None:
    env = {"ATLAS__DATABASE__DSN": database_dsn, "ATLAS__POOL__BRIDGE": pool_bridge}
    async with watched(ACTORS, env=env) as process:
        stale = await process.err.until("pool pool.main is")
        assert "pool.main is starved" in stale
        assert "wedged_pool.py" in stale, "it says where the pool stands"
        assert "its pool pool.main ended" in await process.out.until("holder ended")
        await process.out.until("waiter was told")
        assert "found=42" in await process.out.until("served again")
        incarnations = await process.incarnations()
        assert incarnations.pop("pool.main") == 2
        assert set(incarnations.values()) == {1}, "nobody else was restarted"
        assert await process.stop() == 0
