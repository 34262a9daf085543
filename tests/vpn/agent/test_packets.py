"""Real packets through a real node: refused before, through after, refused and cut after removal."""

from __future__ import annotations

import pytest

from tests.run_queue import at_most
from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.errors import TunnelError
from vpn.protocol import KeyState
from vpn.xray.tunnel import open_tunnel


async def test_a_key_works_exactly_while_it_is_wanted(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer-1")
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)
        applied = await client.put(spec)
        assert applied.created and applied.state is KeyState.SERVING
        page = await tunnel.fetch(origin.url)
        assert (page.status, page.body) == (200, PAGE)
        removed = await client.remove("customer-1", 1)
        assert removed.existed
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)


@pytest.mark.parametrize("mux", [0, 8], ids=["no-mux", "mux"])
async def test_removal_cuts_the_open_stream_and_nobody_elses(agent: RunningAgent, origin: Origin, mux: int) -> None:
    leaving, staying = key("leaving"), key("staying")
    async with (
        agent.client() as client,
        open_tunnel(agent.link(leaving), mux=mux) as leaving_tunnel,
        open_tunnel(agent.link(staying), mux=mux) as staying_tunnel,
    ):
        await client.put(leaving)
        await client.put(staying)
        async with open_stream(leaving_tunnel, origin) as cut, open_stream(staying_tunnel, origin) as kept:
            removed = await client.remove("leaving", 1)
            assert removed.cut == 1
            with at_most(1):
                await read_until_cut(cut)
            with pytest.raises(TunnelError):
                await leaving_tunnel.fetch(origin.url)
            await read_more(kept, 50)
        assert (await staying_tunnel.fetch(origin.url)).body == PAGE
