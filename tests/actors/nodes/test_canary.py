"""The canary's packets: they pass, or somebody is told; and nobody but the canary knows of its key."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from actors.conditions import ConditionBegan, ConditionEnded
from actors.nodes.canary import CANARY_PASSES, CANARY_PROBES, Canary, CanarySettings
from runtime import WakeUp
from tests.actors.node_fixtures import NEVER, NodeHarness, node_harness
from tests.stopping import stop
from tests.vpn.agents import gone
from tests.vpn.origin import Origin


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    """One node, `oslo`, with the canary and the workers."""
    async with node_harness(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        yield started


async def release(harness: NodeHarness, settings: CanarySettings | None = None, retry: float = NEVER) -> None:
    """Start the canary, which probes when it is woken."""
    actor = Canary(
        settings or CanarySettings(),
        interval=NEVER,
        start_jitter=(NEVER, NEVER),
        budget=30.0,
        patience=4.0,
        retry=retry,
    )
    harness.refs["canary"] = await harness.pool.system.start(actor, name="canary")


async def probe(harness: NodeHarness) -> dict[str, object]:
    """One whole round; returns the troubles by subject."""
    before = inspected(harness)["iterations"]
    harness.refs["canary"].tell(WakeUp())

    async def is_over() -> bool:
        return inspected(harness)["iterations"] != before

    await harness.until(is_over)
    conditions = inspected(harness)["conditions"]
    assert isinstance(conditions, dict)
    return conditions


def inspected(harness: NodeHarness) -> dict[str, object]:
    """What the canary shows of itself."""
    found = harness.refs["canary"].address.inspect()["actor"]
    assert isinstance(found, dict)
    return found


async def test_packets_pass_through_a_node_that_is_well_also_with_one_client_as_it_says(
    harness: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpn.clients.mihomo._PACKAGE", "a_package_that_is_not_installed")
    await release(harness)
    assert await probe(harness) == {}
    assert await probe(harness) == {}
    assert harness.refs["canary"].address.readiness == (True, "")
    assert CANARY_PASSES.labels("oslo").value == 1
    assert inspected(harness)["clients"] == ["xray"]
    assert "one VPN client only (xray)" in str(inspected(harness)["last"])


async def test_it_takes_turns_between_clients_and_tries_the_one_in_trouble_again(
    harness: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await release(harness)
    assert inspected(harness)["clients"] == ["xray", "mihomo"]
    before = passed()

    async def found_after(**turns: int) -> object:
        troubles = await probe(harness)
        assert {name: count - before[name] for name, count in passed().items()} == turns
        return troubles

    assert await found_after(xray=1, mihomo=0) == {}
    assert await found_after(xray=1, mihomo=1) == {}
    assert await found_after(xray=2, mihomo=1) == {}
    with monkeypatch.context() as patched:
        # a program that ends at once: mihomo's packets alone do not pass, and so it has the next turn as well
        patched.setattr("vpn.clients.mihomo.mihomo_program", lambda: Path(sys.executable))
        for _ in range(2):
            found = await found_after(xray=2, mihomo=1)
            assert "no packet passes (mihomo)" in str(found)
            assert CANARY_PASSES.labels("oslo").value == 0
    assert await found_after(xray=2, mihomo=2) == {}
    assert CANARY_PASSES.labels("oslo").value == 1
    assert await found_after(xray=3, mihomo=2) == {}


def passed() -> dict[str, float]:
    """How often the packets of each client passed, in this process so far."""
    return {name: CANARY_PROBES.labels("oslo", name, "passed").value for name in ("xray", "mihomo")}


async def test_its_key_is_no_customers_and_the_node_that_has_it_is_equal(harness: NodeHarness) -> None:
    await harness.buy(1)
    await harness.until_status(1, "active")
    await release(harness)
    await probe(harness)
    assert len(await harness.listed("oslo")) == 2
    assert await harness.value("SELECT count(*) FROM vpn_keys") == 1
    await harness.look("equal")
    assert await harness.at_rest() == []


async def test_a_key_that_the_node_lost_is_told_and_put_again(harness: NodeHarness) -> None:
    await release(harness)
    await probe(harness)
    [canary] = await harness.listed("oslo")
    await harness.lose("oslo", canary)
    [(subject, found)] = (await probe(harness)).items()
    assert subject == "packets through oslo"
    assert "did not serve" in str(found)
    assert await probe(harness) == {}


async def test_packets_that_do_not_pass_are_told_although_the_node_says_that_it_serves(harness: NodeHarness) -> None:
    await release(harness, CanarySettings(url="http://127.0.0.1:9/"))
    [found] = (await probe(harness)).values()
    assert "no packet passes" in str(found)
    ready, why = harness.refs["canary"].address.readiness
    assert not ready
    assert "oslo" in why
    assert CANARY_PASSES.labels("oslo").value == 0
    assert [event for event in harness.pool.events if isinstance(event, ConditionBegan)]


async def test_a_node_in_trouble_is_ready_again_soon_after_the_cure_not_at_the_next_tick(
    harness: NodeHarness,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        await release(harness, CanarySettings(url=f"http://127.0.0.1:{port}/"), retry=0.2)
        address = harness.refs["canary"].address
        assert await probe(harness) != {}
        [trouble] = address.troubles()
        assert (trouble.about, trouble.kind, trouble.blocks) == ("nodes.oslo", "packets", True)
        closed.listen()
        serve = Origin(port).serve_one
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(closed.dup()))
            nursery.start_soon(trio.serve_listeners, serve, [listener])

            async def is_ready() -> bool:
                return address.readiness == (True, "")

            await harness.until(is_ready)
            nursery.cancel_scope.cancel()


async def test_a_node_that_is_away_restarts_nothing_and_is_well_again_when_it_is_back(harness: NodeHarness) -> None:
    await release(harness)
    await probe(harness)
    agent = harness.agents["oslo"]
    [xray] = agent.xray_pids()
    await agent.kill()
    with trio.fail_after(10):
        await gone(xray)
    assert "not tried" in str(await probe(harness))
    assert harness.refs["canary"].incarnation == 1
    restarted = await harness.agent("oslo")
    assert restarted.url == agent.url
    assert harness.refs["canary"].address.readiness[0] is False

    async def is_well() -> bool:
        return await probe(harness) == {}

    await harness.until(is_well)
    assert [event for event in harness.pool.events if isinstance(event, ConditionEnded)]
    assert harness.refs["canary"].incarnation == 1


async def test_a_frozen_xray_is_found_by_packets_alone(harness: NodeHarness) -> None:
    await release(harness)
    await probe(harness)
    [xray] = harness.agents["oslo"].xray_pids()
    stop(xray)
    try:
        assert await probe(harness) != {}
    finally:
        os.kill(xray, signal.SIGCONT)

    async def is_well() -> bool:
        return await probe(harness) == {}

    await harness.until(is_well)
