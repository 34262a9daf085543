"""The canary's packets: they pass, or somebody is told; and nobody but the canary knows of its key."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from actors.canary import Canary, CanarySettings
from actors.canary_events import PASSES
from actors.health_conditions import ConditionBegan, ConditionEnded
from runtime.message import WakeUp
from tests.actors.node_house import NEVER, NodeHouse, node_house
from tests.vpn.agents import gone


@pytest.fixture
async def house(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHouse]:
    """One node, `oslo`, with the canary and the workers."""
    async with node_house(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        yield started


async def release(house: NodeHouse, settings: CanarySettings | None = None) -> None:
    """Start the canary, which probes when it is woken."""
    actor = Canary(settings or CanarySettings(), interval=NEVER, start_jitter=(NEVER, NEVER), budget=30.0, patience=4.0)
    house.refs["canary"] = await house.pool.system.start(actor, name="canary")


async def probe(house: NodeHouse) -> dict[str, object]:
    """One whole round; returns the troubles by subject."""
    ref = house.refs["canary"]

    def own() -> dict[str, object]:
        found = ref.address.inspect()["actor"]
        assert isinstance(found, dict)
        return found

    before = own()["iterations"]
    ref.tell(WakeUp())

    async def is_over() -> bool:
        return own()["iterations"] != before

    await house.until(is_over)
    conditions = own()["conditions"]
    assert isinstance(conditions, dict)
    return conditions


async def test_packets_pass_through_a_node_that_is_well(house: NodeHouse) -> None:
    await release(house)
    assert await probe(house) == {}
    assert await probe(house) == {}
    assert house.refs["canary"].address.readiness == (True, "")
    assert PASSES.labels("oslo").value == 1


async def test_its_key_is_no_customers_and_the_node_that_has_it_is_equal(house: NodeHouse) -> None:
    await house.buy(1)
    await house.until_status(1, "active")
    await release(house)
    await probe(house)
    assert len(await house.listed("oslo")) == 2
    assert await house.value("SELECT count(*) FROM vpn_keys") == 1
    await house.look("equal")
    assert await house.at_rest() == []


async def test_a_key_that_the_node_lost_is_told_and_put_again(house: NodeHouse) -> None:
    await release(house)
    await probe(house)
    [canary] = await house.listed("oslo")
    await house.lose("oslo", canary)
    [(subject, found)] = (await probe(house)).items()
    assert subject == "packets through oslo"
    assert "did not serve" in str(found)
    assert await probe(house) == {}


async def test_packets_that_do_not_pass_are_told_although_the_node_says_that_it_serves(house: NodeHouse) -> None:
    await release(house, CanarySettings(url="http://127.0.0.1:9/"))
    [found] = (await probe(house)).values()
    assert "no packet passes" in str(found)
    ready, why = house.refs["canary"].address.readiness
    assert not ready
    assert "oslo" in why
    assert PASSES.labels("oslo").value == 0
    assert [event for event in house.pool.events if isinstance(event, ConditionBegan)]


async def test_a_node_that_is_away_restarts_nothing_and_is_well_again_when_it_is_back(house: NodeHouse) -> None:
    await release(house)
    await probe(house)
    agent = house.agents["oslo"]
    [xray] = agent.xray_pids()
    await agent.kill()
    with trio.fail_after(10):
        await gone(xray)
    assert "not tried" in str(await probe(house))
    assert house.refs["canary"].incarnation == 1
    restarted = await house.agent("oslo")
    assert restarted.url == agent.url
    assert house.refs["canary"].address.readiness[0] is False

    async def is_well() -> bool:
        return await probe(house) == {}

    await house.until(is_well)
    assert [event for event in house.pool.events if isinstance(event, ConditionEnded)]
    assert house.refs["canary"].incarnation == 1


async def test_a_frozen_xray_is_found_by_packets_alone(house: NodeHouse) -> None:
    await release(house)
    await probe(house)
    [xray] = house.agents["oslo"].xray_pids()
    os.kill(xray, signal.SIGSTOP)
    try:
        assert await probe(house) != {}
    finally:
        os.kill(xray, signal.SIGCONT)

    async def is_well() -> bool:
        return await probe(house) == {}

    await house.until(is_well)
