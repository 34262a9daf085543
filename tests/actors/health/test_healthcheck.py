"""The health check: a round completes whatever it finds, alerts have their own cooldown, and a full pool does not blind it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio

from actors.conditions import ConditionBegan, ConditionEnded
from actors.health.healthcheck import Healthcheck
from actors.nodes.messages import ReadState
from actors.pool.settings import PoolSettings
from runtime import Actor, Deferred, Ref, handler
from runtime.testing import OnCrash
from tests.actors.locks import locked
from tests.actors.node_fixtures import node_harness
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.run_queue import Stopwatch
from vpn.protocol import NodeState

NOBODY = "postgresql://atlas@127.0.0.1:1/atlas"


@attrs.define(eq=False)
class SilentNode(Actor):
    """Role: a node's actor that takes every request and answers none. Owns nothing. On crash: loses nothing."""

    _kept: list[Deferred[NodeState]] = attrs.field(init=False, factory=list)

    @handler
    async def read_state(self, message: ReadState) -> Deferred[NodeState]:
        self._kept.append(self.context.defer(message))
        return self._kept[-1]


async def start(harness: PoolHarness, **options: object) -> Ref:
    worker = Healthcheck(**{"interval": 0.01, "patience": 0.3, **options})  # type: ignore[arg-type]  # the test's own
    return await harness.system.start(worker, name="healthcheck", on_crash=OnCrash.RESTART)


async def rounds(harness: PoolHarness, count: int) -> None:
    """Wait until so many more rounds have completed."""
    beats = harness.system.services.beats
    for _ in range(count):
        seen = beats.healthcheck
        with trio.fail_after(10):
            while beats.healthcheck == seen:
                await trio.sleep(0.005)  # rule-ok: a beat is a plain slot: nobody is told of it


def began(harness: PoolHarness) -> list[ConditionBegan]:
    return [event for event in harness.events if isinstance(event, ConditionBegan)]


async def test_a_round_completes_and_beats_when_everything_is_well(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        await start(harness)
        await rounds(harness, 3)
        assert began(harness) == []


async def test_a_pool_with_every_connection_held_is_checked_on_the_reserved_lease(
    database_dsn: str,
) -> None:
    async with pool_harness(database_dsn, PoolSettings(size=3, reserved=1)) as harness, AsyncExitStack() as held:
        for number in range(2):
            _, other = await harness.holder(f"holder {number}")
            await held.enter_async_context(locked(other, "SELECT 1"))
        await start(harness)
        await rounds(harness, 3)
        assert began(harness) == []
        await held.aclose()


async def test_an_absent_database_is_a_condition_and_the_beat_goes_on() -> None:
    async with pool_harness(NOBODY, wait=False) as harness:
        worker = await start(harness)
        await rounds(harness, 3)
        [found] = began(harness)
        assert found.subject == "pool.main"
        assert "cannot be reached" in found.trouble or "no answer" in found.trouble
        assert worker.incarnation == 1


async def test_a_node_that_answers_nobody_costs_a_round_its_patience_and_no_more(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        await harness.system.start(SilentNode(), name="node.silent")
        took = Stopwatch()
        await start(harness)
        await rounds(harness, 2)
        assert took.seconds() < 5 * 2 * 0.3, str(took)
        [found] = began(harness)
        assert found.subject == "node.silent"
        assert "0.3" in found.trouble


async def test_each_condition_alerts_at_its_begin_and_end_with_a_cooldown_of_its_own(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.node("oslo")
        await harness.node("rome")
        await start(harness.pool, cooldown=3600.0, patience=2.0)
        await rounds(harness.pool, 1)
        for name in ("oslo", "rome"):
            await harness.agents[name].kill()

            async def is_told(subject: str = f"node.{name}") -> bool:
                return any(event.subject == subject for event in began(harness.pool))

            await harness.until(is_told)
        await rounds(harness.pool, 3)
        assert [event.subject for event in began(harness.pool)] == ["node.oslo", "node.rome"], "one alert each"
        await harness.agent("oslo")

        async def is_over() -> bool:
            return any(isinstance(event, ConditionEnded) for event in harness.pool.events)

        await harness.until(is_over)
        [ended] = [event for event in harness.pool.events if isinstance(event, ConditionEnded)]
        assert ended.subject == "node.oslo"


async def test_a_condition_that_lasts_is_told_again_after_its_cooldown() -> None:
    async with pool_harness(NOBODY, wait=False) as harness:
        await start(harness, cooldown=0.05)
        with trio.fail_after(10):
            while len(began(harness)) < 3:
                await harness._next_event()
        assert all(event.lasted >= 0.05 for event in began(harness)[1:])


async def test_killed_amid_a_round_the_next_incarnation_looks_at_once(database_dsn: str) -> None:
    async with pool_harness(database_dsn) as harness:
        harness.system.services.failpoints.arm("healthcheck", "probed")
        worker = await start(harness)
        with trio.fail_after(10):
            await harness.system.up(worker, 2)
        await rounds(harness, 2)
        assert worker.incarnation == 2
