"""What a node hears of its backend, and what the backend makes of a node whose time is wrong."""

from __future__ import annotations

from pathlib import Path

import trio

from actors.conditions import ConditionBegan
from actors.nodes.node import NodeActor
from actors.nodes.trouble import ENDED_TOO_SOON
from runtime.config import Secret
from tests.actors.node_fixtures import node_harness
from tests.actors.nodes.lying_proxy import lying_proxy
from tests.fork_server import shared_fork_server
from tests.vpn.agent.test_grace import HOUR
from tests.vpn.agents import TOKEN, measured, running_agent, unheard_since
from vpn.node.settings import NodeSettings


async def test_a_backend_without_its_database_does_not_end_the_grace_and_one_with_it_does(
    database_dsn: str, tmp_path: Path
) -> None:
    unheard_since(tmp_path / "oslo", HOUR)
    async with node_harness(database_dsn, tmp_path) as harness:
        agent = await harness.agent("oslo")
        proxy = await harness.stack.enter_async_context(lying_proxy(agent.url))
        asked = trio.Event()

        def note(_: str, answer: bytes) -> bytes:
            asked.set()
            return answer

        proxy.lie = note
        harness.pool.state.pause()
        node = NodeActor("oslo", NodeSettings(url=proxy.url, token=Secret(TOKEN)), probe_interval=0.05)
        await harness.pool.system.start(node, name="node.oslo")
        with trio.fail_after(10):
            await asked.wait()
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= HOUR
        harness.pool.state.resume()

        async def is_heard() -> bool:
            return await measured(agent, "atlas_node_backend_silence_seconds") < HOUR

        await harness.until(is_heard)


async def test_a_node_that_refuses_who_has_paid_is_not_ready_until_it_gives_them_back(
    database_dsn: str, tmp_path: Path
) -> None:
    """What the node takes to be over contradicts the end that it has confirmed."""
    async with node_harness(database_dsn, tmp_path) as harness:
        agent = harness.agents["oslo"] = await harness.stack.enter_async_context(
            running_agent(tmp_path / "oslo", "--clock-offset", "0", server=shared_fork_server("vpn.agent"))
        )
        await harness.activation()
        await harness.node("oslo", wakes=())
        await harness.buy(1)
        await harness.until_status(1, "active")
        address = harness.pool.system.address("node.oslo")
        async with agent.client() as operator:
            for offset, expected in ((40 * 86_400.0, False), (0.0, True)):
                await operator.move_clock(offset)

                async def is_so(expected: bool = expected) -> bool:
                    return address.readiness[0] is expected

                await harness.until(is_so)
                assert ("ended 1 keys whose time is not over" in address.readiness[1]) is not expected
                assert ENDED_TOO_SOON.labels("oslo").value == (0 if expected else 1)
    subjects = [event.subject for event in harness.pool.events if isinstance(event, ConditionBegan)]
    assert "ends of node.oslo" in subjects
