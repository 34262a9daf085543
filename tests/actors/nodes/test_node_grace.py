"""A node hears that keys can be extended only from a backend whose database works."""

from __future__ import annotations

import os
import time
from pathlib import Path

import trio

from actors.nodes.node import NodeActor
from runtime.config import Secret
from tests.actors.node_fixtures import node_harness
from tests.actors.nodes.lying_proxy import lying_proxy
from tests.vpn.agent.test_grace import HOUR
from tests.vpn.agents import TOKEN, measured
from vpn.node.settings import NodeSettings


async def test_a_backend_without_its_database_does_not_end_the_grace_and_one_with_it_does(
    database_dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "oslo").mkdir()
    (tmp_path / "oslo" / "heard").touch()
    os.utime(tmp_path / "oslo" / "heard", (time.time() - HOUR,) * 2)
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
