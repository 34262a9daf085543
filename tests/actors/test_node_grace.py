"""A node hears that keys can be extended only from a backend whose database works."""

from __future__ import annotations

import os
import time
from pathlib import Path

import trio

from actors.node import NodeActor
from runtime.config.secret import Secret
from tests.actors.lying_proxy import lying_proxy
from tests.actors.node_house import node_house
from tests.vpn.agents import TOKEN, measured
from tests.vpn.test_agent_grace import HOUR
from vpn.settings import NodeSettings


async def test_a_backend_without_its_database_does_not_end_the_grace_and_one_with_it_does(
    database_dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "oslo").mkdir()
    (tmp_path / "oslo" / "heard").touch()
    os.utime(tmp_path / "oslo" / "heard", (time.time() - HOUR,) * 2)
    async with node_house(database_dsn, tmp_path) as house:
        agent = await house.agent("oslo")
        proxy = await house.stack.enter_async_context(lying_proxy(agent.url))
        asked = trio.Event()

        def note(_: str, answer: bytes) -> bytes:
            asked.set()
            return answer

        proxy.lie = note
        house.pool.book.pause()
        node = NodeActor("oslo", NodeSettings(url=proxy.url, token=Secret(TOKEN)), probe_interval=0.05)
        await house.pool.system.start(node, name="node.oslo")
        with trio.fail_after(10):
            await asked.wait()
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= HOUR
        house.pool.book.resume()

        async def is_heard() -> bool:
            return await measured(agent, "atlas_node_backend_silence_seconds") < HOUR

        await house.until(is_heard)
