"""A health check that completes no round: restarted; and left out while an operator has put it aside."""

from __future__ import annotations

import re

import trio

from tests.watchdog.watched_process import watched

TICKER = """
[actor.ticker]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [0.0, 0.1] }}
"""


def healthcheck(freezes_at: int, seconds: float = 0.0) -> str:
    return f"""
{TICKER}
[actor.healthcheck]
actor = "{{actors}}:Healthcheck"
args = {{{{ freezes_at = {freezes_at}, seconds = {seconds} }}}}
"""


async def test_a_round_that_takes_less_than_the_limit_is_left_alone() -> None:
    async with watched(healthcheck(3, 0.4), others=False) as process:
        await process.out.until("healthcheck goes on")
        assert await process.incarnations() == {"ticker": 1, "healthcheck": 1}
        assert process.complaints == []


async def test_a_frozen_health_check_is_restarted_alone_even_if_its_first_round_hangs() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frozen)
        nursery.start_soon(frozen_from_the_start)
        nursery.start_soon(frozen_under_another_name)


async def frozen() -> None:
    """All three beats stale cannot follow from it: the loop turns, so the loop's beat is fresh."""
    async with watched(healthcheck(3), others=False) as process:
        stale = await process.err.until("healthcheck healthcheck is silent")
        assert re.search(r"is silent for 1\.\d s; handling Probe, it stands at .*demo_actors\.py:\d+", stale)
        await process.out.until("healthcheck healthcheck is fresh again")
        assert await process.incarnations() == {"ticker": 1, "healthcheck": 2}
        assert await process.stop() == 0


async def frozen_from_the_start() -> None:
    async with watched(healthcheck(1), others=False) as process:
        await process.err.until("healthcheck healthcheck is silent")
        await process.out.until("healthcheck healthcheck is fresh again")
        assert await process.incarnations() == {"ticker": 1, "healthcheck": 2}


async def frozen_under_another_name() -> None:
    async with watched(
        healthcheck(3).replace("actor.healthcheck", "actor.probes"), others=False, healthcheck='"probes"'
    ) as process:
        await process.err.until("healthcheck probes is silent")
        await process.out.until("healthcheck probes is fresh again")
        assert await process.incarnations() == {"ticker": 1, "probes": 2}


async def test_a_paused_health_check_is_left_out_and_watched_again_afterwards() -> None:
    """What an operator put aside is not stale: its beat is absent, and a stuck worker is repaired meanwhile."""
    text = """
[actor.activation]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [3.0, 3.0], stuck = true }}
"""
    async with watched(healthcheck(20) + text, others=False) as process:
        await process.out.until("atlas is up")
        await process.call("pause", name="healthcheck")
        # The worker is found stale 1.4 s after it got stuck: by then the silence of the other is 4 s old.
        await process.out.until("worker activation is fresh again")
        status = await process.call("status")
        assert status["beats"]["healthcheck"] is None
        assert {child["name"]: child["incarnation"] for child in status["children"]}["healthcheck"] == 1
        assert "healthcheck healthcheck is" not in process.err
        await process.call("resume", name="healthcheck")
        await process.err.until("healthcheck healthcheck is silent")
        await process.out.until("healthcheck healthcheck is fresh again")
