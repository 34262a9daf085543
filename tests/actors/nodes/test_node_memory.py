"""A node that forgets what it accepted, with real agents and a real database: it is named, and its keys are put again."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.conditions import ConditionBegan, ConditionEnded
from actors.nodes.memory import FORGOTTEN, NodeForgot, NodeMemory
from actors.nodes.node import NodeActor
from runtime.config import Secret
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.actors.nodes.lying_proxy import lying_proxy
from tests.vpn.agents import TOKEN
from vpn.node.settings import NodeSettings


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    """Every worker; the test starts its node."""
    async with node_harness(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        yield started


async def start(harness: NodeHarness, url: str, probation: float, probe: float = 0.1) -> None:
    settings = NodeSettings(url=url, token=Secret(TOKEN), within=5.0)
    actor = NodeActor(
        "oslo",
        settings,
        wakes=tuple(harness.refs),
        probe_interval=probe,
        count_interval=0.1,
        first_pause=0.1,
        longest_pause=0.2,
        memory_probation=probation,
    )
    await harness.pool.system.start(actor, name="node.oslo")
    await harness.until_back("oslo")


async def buy(harness: NodeHarness, *telegram_ids: int) -> None:
    for telegram_id in telegram_ids:
        await harness.buy(telegram_id)
    for telegram_id in telegram_ids:
        await harness.until_status(telegram_id, "active")


def told(harness: NodeHarness) -> list[str]:
    found = [e for e in harness.pool.events if isinstance(e, ConditionBegan | ConditionEnded)]
    return [type(e).__name__ for e in found if e.subject == "memory of node.oslo"]


async def test_a_node_back_from_a_snapshot_is_named_and_gets_what_it_forgot(harness: NodeHarness) -> None:
    """Its owner's nonce is that of before, so that alone does not show."""
    agent = await harness.agent("oslo")
    await start(harness, agent.url, probation=1.0)
    await buy(harness, 1)
    snapshot = agent.directory.with_name("snapshot")
    shutil.copytree(agent.directory, snapshot, ignore=shutil.ignore_patterns("xray"))
    await buy(harness, 2, 3)
    before = {key_id: found.spec for key_id, found in (await harness.listed("oslo")).items()}
    await agent.kill()
    shutil.rmtree(agent.directory)
    snapshot.rename(agent.directory)
    await harness.agent("oslo")

    async def is_whole_again() -> bool:
        if told(harness) != ["ConditionBegan", "ConditionEnded"]:
            return False
        return {key_id: found.spec for key_id, found in (await harness.listed("oslo")).items()} == before

    async def is_named() -> bool:
        return told(harness) == ["ConditionBegan"]

    await harness.until(is_named)
    await harness.until(is_whole_again, within=20)
    # a key that the comparison after the start has put again before the look is not missed any more
    assert next(event.changes for event in harness.pool.events if isinstance(event, NodeForgot)) >= 1
    assert harness.pool.system.address("node.oslo").readiness[0]


async def test_an_agent_that_accepts_and_reads_back_old_state_is_not_ready(
    harness: NodeHarness,
) -> None:
    agent = await harness.agent("oslo")
    async with lying_proxy(agent.url) as proxy:
        # seldom enough that not every change is on its way during a look
        await start(harness, proxy.url, probation=30.0, probe=0.5)
        await buy(harness, 1)
        async with agent.client() as client:
            old = await client.state()
        kept = set(await harness.listed("oslo"))

        def forgets(request: str, answer: bytes) -> bytes:
            """What it says of itself and of its keys is as it was."""
            said = json.loads(answer)
            if request.startswith("GET /v1/state"):
                said |= {"sequence": old.sequence, "count": old.count, "digest": old.digest}
            elif request.startswith("GET /v1/users?"):
                said["keys"] = [each for each in said["keys"] if each["key_id"] in kept]
            else:
                return answer
            return json.dumps(said).encode()

        address = harness.pool.system.address("node.oslo")
        counted = FORGOTTEN.labels("oslo").value
        proxy.lie = forgets

        sent = len(proxy.requests)
        for telegram_id in range(2, 10):  # one by one: what goes as a batch is put again
            await buy(harness, telegram_id)

        async def is_told() -> bool:
            return not address.readiness[0] and "has forgotten" in address.readiness[1]

        async def is_put_again() -> bool:
            later = proxy.requests[sent:]
            return any(request.startswith("POST /v1/batch") for request in later)

        await harness.until(is_told, within=20)
        await harness.until(is_put_again, within=20)
        assert told(harness) == ["ConditionBegan"]
        assert FORGOTTEN.labels("oslo").value > counted
        proxy.lie = None


async def test_a_change_on_its_way_during_a_look_accuses_nobody(harness: NodeHarness) -> None:
    agent = await harness.agent("oslo")
    await start(harness, agent.url, probation=30.0)
    await buy(harness, *range(1, 30))
    for telegram_id in range(1, 20):
        await harness.revoke(telegram_id)
    for telegram_id in range(1, 20):
        await harness.until_status(telegram_id, "removed")
    assert not [event for event in harness.pool.events if isinstance(event, NodeForgot)]


def test_a_node_that_forgets_all_the_time_is_compared_every_ten_seconds_at_most() -> None:
    memory = NodeMemory(60.0)
    memory._wake_is_due = True
    assert memory.take_wake(100.0)
    memory._wake_is_due = True
    assert [memory.take_wake(now) for now in (101.0, 109.9, 110.0, 111.0)] == [False, False, True, False]
