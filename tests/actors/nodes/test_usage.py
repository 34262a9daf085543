"""What a customer moves through a real tunnel is what the customer's subscription says, and a kick cuts it."""

from __future__ import annotations

from pathlib import Path

from actors.nodes.messages import KickKey
from actors.nodes.usage import UsageCollector
from db.keys.usage import usage_of
from tests.actors.node_fixtures import NEVER, node_harness
from tests.vpn.origin import origin_server
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.xray.tunnel import open_tunnel


async def test_traffic_of_a_tunnel_is_added_up_once_and_survives_a_restart_of_the_worker(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness, origin_server() as site:
        await harness.activation()
        node = await harness.node("oslo")
        await harness.buy(1)
        await harness.until_status(1, "active")
        key_id = (await harness.key(1)).key_id
        link = harness.agents["oslo"].link((await harness.listed("oslo"))[key_id].spec)
        async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
            await read_more(stream, 50)
            assert (await node.ask(KickKey(key_id), within=10.0)).cut >= 1
            await read_until_cut(stream)
        for name in ("usage", "usage again"):
            worker = UsageCollector(interval=NEVER, start_jitter=(0.0, 0.0), page_size=1)
            ref = await harness.pool.system.start(worker, name=name)

            async def has_looked() -> bool:
                own = ref.address.inspect()["actor"]  # noqa: B023  # looked at before the next one is made
                assert isinstance(own, dict)
                return bool(own["iterations"] == 1)

            await harness.until(has_looked)
        moved = await harness.run(usage_of, 1)
        assert moved.uploaded > 0 and moved.downloaded > 0
        async with harness.agents["oslo"].client() as client:
            [told] = [user for user in (await client.usage_all()).users if user.key_id == key_id]
        assert (told.uplink, told.downlink) == (moved.uploaded, moved.downloaded)
