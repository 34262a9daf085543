"""What a customer moves through a real tunnel is what the customer's subscription says, and a kick cuts it."""

from __future__ import annotations

from pathlib import Path

from actors.node_messages import KickKey
from actors.usage import Usage
from db.usage import usage_of
from tests.actors.node_house import NEVER, node_house
from tests.vpn.origin import origin_server
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.tunnel import open_tunnel


async def test_traffic_of_a_tunnel_is_added_up_once_and_survives_a_restart_of_the_worker(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_house(database_dsn, tmp_path) as house, origin_server() as site:
        await house.activation()
        node = await house.node("oslo")
        await house.buy(1)
        await house.until_status(1, "active")
        key_id = (await house.key(1)).key_id
        link = house.agents["oslo"].link((await house.listed("oslo"))[key_id].spec)
        async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
            await read_more(stream, 50)
            assert (await node.ask(KickKey(key_id), within=10.0)).cut >= 1
            await read_until_cut(stream)
        for name in ("usage", "usage again"):
            worker = Usage(interval=NEVER, start_jitter=(0.0, 0.0), page_size=1)
            ref = await house.pool.system.start(worker, name=name)

            async def has_looked() -> bool:
                own = ref.address.inspect()["actor"]  # noqa: B023  # looked at before the next one is made
                assert isinstance(own, dict)
                return bool(own["iterations"] == 1)

            await house.until(has_looked)
        moved = await house.run(usage_of, 1)
        assert moved.uploaded > 0 and moved.downloaded > 0
        async with house.agents["oslo"].client() as client:
            [told] = [user for user in (await client.usage_all()).users if user.key_id == key_id]
        assert (told.uplink, told.downlink) == (moved.uploaded, moved.downloaded)
