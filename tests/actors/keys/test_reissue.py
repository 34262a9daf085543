"""A reissued key, seen by the customer: the old link works until the new one does, and then it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from db.keys.reissue import request_reissue
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.vpn.origin import PAGE, origin_server
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.errors import TunnelError
from vpn.link import VlessLink, link_for
from vpn.protocol import KeySpec
from vpn.xray.tunnel import open_tunnel


async def link(harness: NodeHarness) -> VlessLink:
    """The link that the customer is shown."""
    key = await harness.key(1)
    node = key.nodes[0]
    return link_for(KeySpec(key.key_id, key.uuid, flow=node.flow), harness.agents[node.name].facts)


async def test_the_old_link_is_cut_only_when_the_new_key_is_confirmed_everywhere(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness, origin_server() as site:
        await harness.activation()
        await harness.fast_expiry()
        await harness.node("oslo")
        await harness.node("rome")
        await harness.buy(1)
        await harness.until_status(1, "active")
        old, end = await link(harness), (await harness.view(1)).expires_at
        async with open_tunnel(old) as tunnel, open_stream(tunnel, site) as stream:
            await harness.agents["rome"].kill()
            new_key = await harness.run(request_reissue, 1, actor="test", idempotency_key="r-1")
            harness.wake("activation")

            async def is_on_oslo() -> bool:
                return new_key in await harness.listed("oslo")

            await harness.until(is_on_oslo)
            # rome does not have the new one, so the old one is still the customer's
            assert await link(harness) == old
            await read_more(stream, 50)
            await harness.agent("rome")
            with trio.fail_after(20):
                await read_until_cut(stream)
            with pytest.raises(TunnelError):
                await tunnel.fetch(site.url, within=5)
        new = await link(harness)
        assert (new.uuid, new.port) != (old.uuid, old.port)
        assert (await harness.view(1)).expires_at == end
        async with open_tunnel(new) as tunnel:
            assert (await tunnel.fetch(site.url)).body == PAGE

        async def is_at_rest() -> bool:
            return await harness.at_rest() == []

        await harness.until(is_at_rest)
        for name in ("oslo", "rome"):
            assert list(await harness.listed(name)) == [new_key]
