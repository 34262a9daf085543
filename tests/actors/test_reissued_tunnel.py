"""A reissued key, seen by the customer: the old link works until the new one does, and then it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from db.reissue import request_reissue
from tests.actors.node_house import NodeHouse, node_house
from tests.vpn.origin import PAGE, origin_server
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.errors import TunnelError
from vpn.link import VlessLink, link_for
from vpn.protocol import KeySpec
from vpn.tunnel import open_tunnel


async def link(house: NodeHouse) -> VlessLink:
    """The link that the customer is shown."""
    key = await house.key(1)
    node = key.nodes[0]
    return link_for(KeySpec(key.key_id, key.uuid, flow=node.flow), house.agents[node.name].facts)


async def test_the_old_link_works_until_the_new_key_is_confirmed_everywhere_and_is_cut_then(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_house(database_dsn, tmp_path) as house, origin_server() as site:
        await house.activation()
        await house.fast_expiry()
        await house.node("oslo")
        await house.node("rome")
        await house.buy(1)
        await house.until_status(1, "active")
        old, end = await link(house), (await house.view(1)).expires_at
        async with open_tunnel(old) as tunnel, open_stream(tunnel, site) as stream:
            await house.agents["rome"].kill()
            new_key = await house.run(request_reissue, 1, actor="test", idempotency_key="r-1")
            house.wake("activation")

            async def is_on_oslo() -> bool:
                return new_key in await house.listed("oslo")

            await house.until(is_on_oslo)
            # rome does not have the new one, so the old one is still the customer's
            assert await link(house) == old
            await read_more(stream, 50)
            await house.agent("rome")
            with trio.fail_after(20):
                await read_until_cut(stream)
            with pytest.raises(TunnelError):
                await tunnel.fetch(site.url, within=5)
        new = await link(house)
        assert (new.uuid, new.port) != (old.uuid, old.port)
        assert (await house.view(1)).expires_at == end
        async with open_tunnel(new) as tunnel:
            assert (await tunnel.fetch(site.url)).body == PAGE

        async def is_at_rest() -> bool:
            return await house.at_rest() == []

        await house.until(is_at_rest)
        for name in ("oslo", "rome"):
            assert list(await house.listed(name)) == [new_key]
