"""A pool whose connection does not come back, beside a worker that does not get on: the watchdog says who holds and who waits."""

from __future__ import annotations

import json
from typing import Any

from tests.watchdog.watched_process import LONG, watched

ACTORS = """
[actor."pool.main"]
actor = "actors.pool.pool:PoolActor"
args = {{ size = 1, migrate = false }}
[actor.hoarder]
actor = "tests.actors.pool.busy_pool:Hoarder"
needs = ["pool.main"]
[actor.activation]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [0.0, 0.0], stuck = true }}
shutdown = 0.3
needs = ["hoarder"]
"""


async def test_one_line_tells_of_a_busy_pool_who_holds_since_when_where_and_who_waits(
    database_dsn: str, pool_bridge: str
) -> None:
    env = {
        "ATLAS__DATABASE__DSN": database_dsn,
        "ATLAS__POOL__BRIDGE": pool_bridge,
        "ATLAS__POOL__WAIT_WARNING": "0.3",
        "ATLAS__POOL__SLOW_TARGET": "60",
    }
    async with watched(ACTORS, env=env, worker_stale=LONG, worker_critical=1.0) as process:
        line = await process.err.until("workers starve")
        assert "CRITICAL" in line
        assert 'pool.main: "debit" has waited' in line, "the spike"
        told: dict[str, Any] = json.JSONDecoder().raw_decode(line[line.index('{"pool": "pool.main"') :])[0]
        (holder,) = told["holders"]
        assert holder["label"] == "hoard"
        assert holder["owner"] == "hoarder#1"
        assert holder["site"].startswith("pool/busy_pool.py:")
        assert 0.3 < holder["held_seconds"] < 40
        assert "Hoarder._hold" in holder["stack"]
        assert told["leased"] == told["size"] == 1
        assert told["waiting_in_all"] == 20
        assert len(told["waiting"]) == 5
        assert told["waiting"][0]["label"] == "debit"
        assert "Hoarder._wait" in told["waiting"][0]["site"]
        assert told["waiting"][0]["waited_seconds"] > 0.3
        assert len(line) < 4_000, "a line that a person can read"
        assert await process.stop() == 0
